"""Similarity reorganisation: SR and Bi-SR (Section 3.4, Eq. 16-17, Algorithms 1-3)."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tcmgc.heads.parts.lanes import largest

Mode = Literal["none", "remove", "fuse"]


class Slots(NamedTuple):
    """Similarities along one axis, and their mask."""

    values: Float[Tensor, "..."]
    """0 where the mask is False."""
    mask: Bool[Tensor, "..."] | None
    """Broadcasts to `values`; None: nothing is masked."""


def slot_count(size: int, mode: Mode, kept: int) -> int:
    """Length of an axis of `size` similarities after :func:`reorganise`."""
    return {"none": size, "remove": kept, "fuse": kept + 1}[mode]


def reorganise(slots: Slots, mode: Mode, kept: int, dim: int) -> Slots:
    """SR along one axis (Algorithms 1 and 2); on both axes of a matrix in turn it is Bi-SR.

    ``remove`` keeps the k largest similarities in descending order. ``fuse`` appends the rest as one,
    combined by a softmax over their own values; if there is no rest, that one is 0, as the sum in
    Algorithm 2 is. If a mask leaves fewer than k, the remaining slots are masked.

    Args:
        slots: similarities and mask.
        mode: ``none``, ``remove`` or ``fuse``.
        kept: k.
        dim: the axis, counted from the end.
    """
    if mode == "none":
        return slots
    values, mask = slots
    size = values.shape[dim]
    if mask is not None:
        values = values.masked_fill(~mask, float("-inf"))
    if mode == "fuse" and size > kept:
        top = largest(values, kept + 1, dim)
        rest = _fused(values, top, mask, kept, dim)
        top = top.narrow(dim, 0, kept)
    else:
        top = largest(values, kept, dim)
        rest = torch.zeros_like(top.narrow(dim, 0, 1))
    kept_mask = None
    if mask is not None:
        present = mask.sum(dim, keepdim=True)
        index = torch.arange(kept, device=values.device)
        kept_mask = index.view([-1] + [1] * (-dim - 1)) < present
        top = top.masked_fill(~kept_mask, 0.0)
        if mode == "fuse":
            kept_mask = torch.cat([kept_mask, present > kept], dim)
    return Slots(top if mode == "remove" else torch.cat([top, rest], dim), kept_mask)


def _fused(values: Tensor, top: Tensor, mask: Tensor | None, kept: int, dim: int) -> Tensor:
    """Softmax-weighted sum of all but the k largest; `top` holds k + 1.

    Values below the k-th certainly belong to the rest. Of those equal to it, the counts determine how
    many belong to the rest; they all have the same weight.
    """
    threshold, following = top.narrow(dim, kept - 1, 1), top.narrow(dim, kept, 1)
    below = values < threshold
    left = values.shape[dim] - kept if mask is None else mask.sum(dim, keepdim=True) - kept
    if mask is not None:
        below = below & mask
        following = following.masked_fill(following == float("-inf"), 0.0)
    tied = (left - below.sum(dim, keepdim=True)).clamp_min(0).to(values.dtype)
    values = values.masked_fill(~below, 0.0)
    weights = (values - following.detach()).masked_fill(~below, float("-inf")).exp()
    total = weights.sum(dim, keepdim=True) + tied
    fused = (weights * values).sum(dim, keepdim=True) + tied * following
    if mask is not None:
        total = total.masked_fill(total == 0, 1.0)
    return fused / total
