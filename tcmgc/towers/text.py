"""Text towers: open_clip's text encoders, returning every word and not only the sentence."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tcmgc.towers.embedding import WordEmbedding
from tcmgc.towers.ending import Ending


class TextTower(nn.Module):
    """Token ids to sentence and words in the joint space."""

    token_embedding: WordEmbedding
    ending: Ending

    def forward(
        self, tokens: Int[Tensor, "texts words"]
    ) -> tuple[
        Float[Tensor, "texts dim"], Float[Tensor, "texts words dim"], Bool[Tensor, "texts words"]
    ]:
        """Sentence, words and the mask of words up to the end of the caption."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "TextTower":
        """Keep the encoder in evaluation mode: its dropout would use PyTorch's generator."""
        return super().train(False)

    @property
    def embeddings(self) -> list[nn.Module | nn.Parameter]:
        """The modules and parameters that turn ids into vectors."""
        return [self.token_embedding]

    def start(self) -> tuple[nn.ModuleList, Float[Tensor, "words dim"]]:
        """Blocks and position embeddings to initialise other transformers from.

        Raises:
            ValueError: this tower has none like CLIP's.
        """
        raise ValueError(
            f"initialise_from_text: {type(self).__name__} has no blocks of CLIP's kind to start from; switch it off"
        )


class ClipText(TextTower):
    """CLIP's text transformer and open_clip's variants of it.

    Causal or not, the sentence at the end token, at the first or last position, or at a class
    token appended to the words (CoCa), with or without a projection.

    Args:
        clip: An open_clip model.
        ending: How captions end.

    Raises:
        ValueError: the model has a different text encoder.
    """

    attn_mask: Tensor | None

    def __init__(self, clip: Any, ending: Ending) -> None:
        super().__init__()
        source: Any = clip if hasattr(clip, "token_embedding") else getattr(clip, "text", None)
        if not hasattr(source, "token_embedding"):
            raise ValueError(
                f"towers.name: the text encoder {type(source).__name__} of {type(clip).__name__} is not known; choose "
                "a model whose open_clip JSON has a plain text_cfg, such as ViT-B-32-quickgelu"
            )
        self.ending = ending
        self.token_embedding = WordEmbedding(source.token_embedding.weight)
        self.positional_embedding = source.positional_embedding
        self.transformer = source.transformer
        self.ln_final = source.ln_final
        self.text_projection = source.text_projection
        self.cls_emb = getattr(source, "cls_emb", None)
        self.pool = getattr(source, "text_pool_type", None) or source.pool_type
        self.late_class_mask = getattr(source, "correct_cls_mask", False)
        self.register_buffer("attn_mask", source.attn_mask, persistent=False)

    def forward(
        self, tokens: Int[Tensor, "texts words"]
    ) -> tuple[
        Float[Tensor, "texts dim"], Float[Tensor, "texts words dim"], Bool[Tensor, "texts words"]
    ]:
        """See :meth:`TextTower.forward`."""
        hidden = self.token_embedding(tokens)
        if self.cls_emb is not None:
            hidden = torch.cat([hidden, self.cls_emb.expand(len(tokens), 1, -1)], dim=1)
        places = hidden.shape[1]
        hidden = hidden + self.positional_embedding[:places]
        hidden = self.transformer(hidden, attn_mask=self._visible(tokens, places))
        hidden = self._project(self.ln_final(hidden))
        if self.cls_emb is not None:
            return hidden[:, -1], hidden[:, :-1], self.ending.mask(tokens)
        return hidden[self._pooled(tokens)], hidden, self.ending.mask(tokens)

    def _pooled(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        every = torch.arange(len(tokens), device=tokens.device)
        if self.pool in ("first", "last"):
            place = 0 if self.pool == "first" else tokens.shape[1] - 1
            return every, torch.full_like(every, place)
        return every, tokens.argmax(dim=1) if self.pool == "argmax" else self.ending.last(tokens)

    def _project(self, hidden: Tensor) -> Tensor:
        if self.text_projection is None:
            return hidden
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(hidden)
        return hidden @ self.text_projection

    def _visible(self, tokens: Tensor, places: int) -> Tensor | None:
        """The additive attention mask, as in open_clip."""
        causal = None if self.attn_mask is None else self.attn_mask[:places, :places]
        if self.cls_emb is None:
            return causal
        # The class token sees no padding. The published CoCa masks one position too early, also in training.
        words, own = tokens != 0, tokens.new_ones(len(tokens), 1, dtype=torch.bool)
        keys = torch.cat([words, own] if self.late_class_mask else [own, words], dim=1)
        hidden = torch.zeros(keys.shape, device=keys.device).masked_fill(~keys, float("-inf"))
        heads = self.transformer.resblocks[0].attn.num_heads
        added = hidden[:, None].expand(-1, places, -1).repeat_interleave(heads, dim=0)
        return added if causal is None else added + causal

    @property
    def embeddings(self) -> list[nn.Module | nn.Parameter]:
        """The tables of words and positions."""
        return [self.token_embedding, self.positional_embedding]

    def start(self) -> tuple[nn.ModuleList, Float[Tensor, "words dim"]]:
        """The transformer's blocks and position embeddings."""
        return self.transformer.resblocks, self.positional_embedding


class HfText(TextTower):
    """A text encoder of the transformers library, as open_clip wraps it.

    Words are the last hidden states after the projection that is also applied to the pooled sentence.

    Args:
        encoder: open_clip's ``HFTextEncoder``.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.ending = Ending("padding", encoder.config.pad_token_id)
        table = encoder.transformer.get_input_embeddings()
        # Not a submodule, because the encoder looks words up itself and already has the table.
        self.__dict__["token_embedding"] = WordEmbedding(table.weight, whole=True)

    def forward(
        self, tokens: Int[Tensor, "texts words"]
    ) -> tuple[
        Float[Tensor, "texts dim"], Float[Tensor, "texts words dim"], Bool[Tensor, "texts words"]
    ]:
        """See :meth:`TextTower.forward`."""
        real = tokens != self.ending.token
        out = self.encoder.transformer(input_ids=tokens, attention_mask=real.long())
        sentence = self.encoder.proj(self.encoder.pooler(out, real.long()))
        return sentence, self.encoder.proj(out.last_hidden_state), real

    @property
    def embeddings(self) -> list[nn.Module | nn.Parameter]:
        """The encoder's tables."""
        return [getattr(self.encoder.transformer, "embeddings", self.token_embedding)]


def text_tower(clip: Any, ending: Ending) -> TextTower:
    """The text tower of an open_clip model."""
    encoder = getattr(clip, "text", None)
    if type(encoder).__name__ == "HFTextEncoder":
        return HfText(encoder)
    return ClipText(clip, ending)
