"""Find the end of captions in token ids, which tokenisers mark in three ways."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

_SIGLIP_END = 1


@dataclass(frozen=True)
class Ending:
    """How a tokeniser marks the end."""

    rule: Literal["largest", "token", "padding"] = "largest"
    """The end token has the largest id (CLIP); it is :attr:`token`; or :attr:`token` is the padding."""
    token: int = 0

    def last(self, ids: Int[Tensor, "texts words"]) -> Int[Tensor, " texts"]:
        """Position of the caption's last token; the last position if no token ends the caption."""
        if self.rule == "largest":
            return ids.argmax(dim=1)
        if self.rule == "padding":
            return (ids != self.token).sum(dim=1).sub(1).clamp_min(0)
        found = ids == self.token
        return torch.where(found.any(dim=1), found.int().argmax(dim=1), ids.shape[1] - 1)

    def mask(self, ids: Int[Tensor, "texts words"]) -> Bool[Tensor, "texts words"]:
        """True up to that position."""
        return torch.arange(ids.shape[1], device=ids.device) <= self.last(ids)[:, None]


def of_configuration(text: dict[str, Any]) -> Ending:
    """The ending for a model's ``text_cfg`` in open_clip; towers of transformers know their own padding."""
    tokeniser = text.get("hf_tokenizer_name") or ""
    if text.get("pool_type") == "eos":
        return Ending("token", text.get("eos_id", 2))
    if "siglip" in tokeniser.lower():
        # T5's and Gemma's vocabularies: 1 is </s> and <eos>; SigLIP pads with it, SigLIP 2 with 0.
        return Ending("token", _SIGLIP_END)
    if tokeniser:
        return Ending("padding", text.get("pad_id", 0))
    return Ending()
