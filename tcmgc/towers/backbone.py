"""CLIP's two towers through open_clip: the only module that imports it.

Any open_clip model whose text tower is CLIP's own (causal, one end token) will do, by its name
there, by one of the JSON files in ``tcmgc/towers/models/``, or by the path of such a file.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from tcmgc.towers.activation import QuickGELU

TOWERS = Path(__file__).parent / "models"


@functools.cache
def _open_clip() -> Any:
    """The package: its import takes seconds, and the processes that only direct others never need it."""
    import open_clip

    return open_clip


def known_towers() -> list[str]:
    """Names that :func:`load_towers` takes, ours first."""
    return [path.stem for path in sorted(TOWERS.glob("*.json"))] + _open_clip().list_models()


def _register(name: str) -> str:
    """Make one of our JSON files, or the user's, known to open_clip; give its name there."""
    path = TOWERS / f"{name}.json" if not name.endswith(".json") else Path(name)
    if path.is_file():
        _open_clip().add_model_config(path)
        return path.stem
    if name.endswith(".json"):
        raise ValueError(f"towers.name: there is no file {name}; expected an open_clip model JSON")
    if name not in _open_clip().list_models():
        import difflib

        near = difflib.get_close_matches(name, known_towers(), n=4) or known_towers()[:4]
        raise ValueError(
            f"towers.name: open_clip has no model {name!r}; near it: {', '.join(near)}. "
            "`python -c 'import open_clip; print(open_clip.list_models())'` lists all"
        )
    return name


def _configuration(name: str) -> dict[str, Any]:
    registered = _register(name)
    configuration = _open_clip().get_model_config(registered)
    if configuration is None:
        raise ValueError(f"towers.name: {name!r} is not an open_clip model: {json.dumps(name)}")
    return configuration


def image_size(name: str) -> int:
    """Side in pixels of the square frames that the model takes, without building it."""
    size = _configuration(name)["vision_cfg"].get("image_size", 224)
    return size if isinstance(size, int) else size[0]


def width(name: str) -> int:
    """Width of the joint space, without building the model."""
    return _configuration(name)["embed_dim"]


def tokenizer(name: str, max_words: int) -> Callable[[Sequence[str]], Int[Tensor, "texts words"]]:
    """Captions to token ids: start, tokens cut to ``max_words - 2``, end, zeros.

    Raises:
        ValueError: ``max_words`` is longer than the model's position table.
    """
    limit = _configuration(name)["text_cfg"].get("context_length", 77)
    if max_words > limit:
        raise ValueError(
            f"data.max_words is {max_words}; {name} has positions for {limit} words at most"
        )
    tokenise = _open_clip().get_tokenizer(_register(name), context_length=max_words)
    return lambda captions: tokenise(list(captions), context_length=max_words)


def caption_lengths(name: str, captions: Sequence[str]) -> list[int]:
    """Positions that each caption takes uncut, start and end included; counted up to 1024."""
    tokenise = _open_clip().get_tokenizer(_register(name))
    return (tokenise(list(captions), context_length=1024) != 0).sum(1).tolist()


def spelling(name: str, max_words: int) -> Callable[[str], list[tuple[str, list[int]]]]:
    """From a caption to its words as the model sees them, each with the positions it takes.

    A word is a token; tokens that are no whole character alone are put together. The start and
    the end are left out, and so is what is cut off.
    """
    tokenise: Any = _open_clip().get_tokenizer(_register(name), context_length=max_words)
    decode = getattr(tokenise, "decode", None) or tokenise.tokenizer.decode

    def spell(caption: str) -> list[tuple[str, list[int]]]:
        tokens = tokenise([caption], context_length=max_words)[0].tolist()
        end = tokens.index(max(tokens))
        words, start = [], 1
        for stop in range(2, end + 1):
            # A character has four bytes at most, and so four tokens.
            text = decode(tokens[start:stop])
            if "\ufffd" not in text or stop == end or stop - start == 4:
                words.append((text.strip(), list(range(start, stop))))
                start = stop
        return words

    return spell


class WordEmbedding(nn.Module):
    """Vectors of token ids, of which a training step can learn those that it uses, and no others.

    A batch has a few hundred words of CLIP's 49,408. A gradient of the whole table is zeros that
    every piece of a batch writes, adds up and sends.

    Args:
        weight: A vector for each id.
    """

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self.used: Tensor | None = None
        """Inside :meth:`only`, the rows in use, of which the gradient is taken."""
        self._ids = torch.empty(0, dtype=torch.int64)
        self._grad: tuple[Tensor, Tensor] | None = None

    def forward(self, ids: Int[Tensor, "texts words"]) -> Float[Tensor, "texts words width"]:
        """The ids' vectors."""
        if self.used is None:
            return F.embedding(ids, self.weight)
        return F.embedding(torch.searchsorted(self._ids, ids), self.used)

    @contextmanager
    def only(self, ids: Int[Tensor, "texts words"]) -> Iterator[None]:
        """No other ids are used inside; afterwards the weight's gradient is that of :attr:`used`.

        Nothing changes where the weight is not learnt.
        """
        if not self.weight.requires_grad:
            yield
            return
        self._ids = ids.unique()
        self.used = self.weight.detach()[self._ids].requires_grad_()
        try:
            yield
            if self.used.grad is not None:
                self.weight.grad = self._spread(self.used.grad)
        finally:
            self.used = None

    def _spread(self, grad: Tensor) -> Tensor:
        """The table's gradient, in memory kept from step to step: only rows used last become zero again."""
        whole, written = self._grad or (torch.zeros_like(self.weight), self._ids)
        if (whole.device, whole.dtype) != (grad.device, grad.dtype):
            whole = torch.zeros_like(self.weight)
        else:
            whole[written] = 0
        whole[self._ids] = grad
        self._grad = whole, self._ids
        return whole


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


class VisualTower(nn.Module):
    """CLIP's image encoder on uint8 frames; normalises where it runs."""

    mean: Tensor
    std: Tensor

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.visual = clip.visual
        mean = getattr(clip.visual, "image_mean", None) or _open_clip().OPENAI_DATASET_MEAN
        std = getattr(clip.visual, "image_std", None) or _open_clip().OPENAI_DATASET_STD
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def forward(
        self,
        pixels: UInt8[Tensor, "videos frames 3 size size"],
        frame_mask: Bool[Tensor, "videos frames"],
        *,
        encode_padding: bool = False,
    ) -> Float[Tensor, "videos frames dim"]:
        """Frame features; padded frames are zero, or an encoded black-level frame.

        Args:
            pixels: Frames as decoded.
            frame_mask: True for real frames; others are not encoded.
            encode_padding: Encode padding too, as zeros after normalising: what systems do
                that let padded frames take part.
        """
        frames = (pixels[frame_mask].to(self.mean.dtype) - self.mean) / self.std
        encoded = self.visual(frames)
        out = encoded.new_zeros(*frame_mask.shape, encoded.shape[-1])
        if encode_padding and not bool(frame_mask.all()):
            blank = self.visual(frames.new_zeros(1, *frames.shape[1:]))
            out = out + blank
        return out.masked_scatter(frame_mask[..., None], encoded)


def load_towers(
    name: str,
    pretrained: str | None,
    *,
    freeze: str = "embeddings",
    checkpoint_activations: bool = False,
) -> tuple[TextTower, VisualTower, int]:
    """Both towers and the width of their joint space.

    Raises:
        ValueError: an unknown name, weights that are not there or do not fit, a text tower
            that is not CLIP's.
    """
    registered = _register(name)
    if pretrained is not None and not Path(pretrained).is_file():
        tags = _open_clip().list_pretrained_tags_by_model(registered)
        if pretrained not in tags:
            raise ValueError(
                f"towers.pretrained: {pretrained!r} is neither a file nor a tag of {name}; "
                f"its tags: {', '.join(tags) or 'none'}"
            )
    try:
        clip: Any = _open_clip().create_model(
            registered, pretrained=pretrained, load_weights=pretrained is not None
        )
    except (RuntimeError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"towers.pretrained: the weights {pretrained!r} of {name} could not be loaded: {first}. "
            "Without internet, give the path of a checkpoint file"
        ) from error
    if checkpoint_activations:
        clip.set_grad_checkpointing(True)
    text, visual = TextTower(clip), VisualTower(clip)
    for tower in (text, visual):
        _lighten(tower)
    _freeze(text, visual, freeze)
    return text, visual, width(name)


def _lighten(tower: nn.Module) -> None:
    """Put our activation, the same function, in the place of open_clip's."""
    theirs = [
        (parent, name)
        for parent in tower.modules()
        for name, child in parent.named_children()
        if isinstance(child, _open_clip().transformer.QuickGELU)
    ]
    for parent, name in theirs:
        setattr(parent, name, QuickGELU())


def _freeze(text: TextTower, visual: VisualTower, what: str) -> None:
    if what == "all":
        text.requires_grad_(False)
        visual.requires_grad_(False)
    elif what == "embeddings":
        # CLIP4Clip's list: what turns pixels and ids into vectors stays as CLIP has it.
        names = ("conv1", "class_embedding", "positional_embedding", "ln_pre")
        parts = [getattr(visual.visual, name, None) for name in names]
        for part in (text.token_embedding, text.positional_embedding, *parts):
            if part is not None:
                part.requires_grad_(False)
