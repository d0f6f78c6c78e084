"""The text tower: an open_clip text encoder that gives every word and not only the sentence."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tcmgc.towers.embedding import WordEmbedding


class TextTower(nn.Module):
    """CLIP's text transformer, giving every word position and not only the sentence."""

    attn_mask: Tensor

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        source: Any = clip if hasattr(clip, "token_embedding") else getattr(clip, "text", None)
        if not hasattr(source, "token_embedding") or getattr(source, "attn_mask", None) is None:
            raise ValueError(
                f"towers.name: the text tower of {type(clip).__name__} is not CLIP's (causal, with one end token); "
                "choose a model whose open_clip JSON has a plain text_cfg, such as ViT-B-32-quickgelu"
            )
        self.token_embedding = WordEmbedding(source.token_embedding.weight)
        self.positional_embedding = source.positional_embedding
        self.transformer = source.transformer
        self.ln_final = source.ln_final
        self.text_projection = source.text_projection
        self.register_buffer("attn_mask", source.attn_mask, persistent=False)

    def train(self, mode: bool = True) -> "TextTower":
        """The encoder runs as in evaluation in training, too: dropout would draw from PyTorch's generator."""
        return super().train(False)

    @property
    def embeddings(self) -> list[nn.Module | nn.Parameter]:
        """The tables of words and positions."""
        return [self.token_embedding, self.positional_embedding]

    def forward(self, tokens: Int[Tensor, "texts words"]) -> tuple[Tensor, Tensor, Tensor]:
        """Sentence (texts, dim), words (texts, words, dim) and the mask of words up to the end token."""
        words = tokens.shape[1]
        hidden = self.token_embedding(tokens) + self.positional_embedding[:words]
        hidden = self.transformer(hidden, attn_mask=self.attn_mask[:words, :words])
        hidden = self.ln_final(hidden)
        if isinstance(self.text_projection, nn.Linear):
            hidden = self.text_projection(hidden)
        else:
            hidden = hidden @ self.text_projection
        end = tokens.argmax(dim=1)  # the end token has the largest id
        sentence = hidden[torch.arange(len(tokens), device=tokens.device), end]
        mask = torch.arange(words, device=tokens.device) <= end[:, None]
        return sentence, hidden, mask
