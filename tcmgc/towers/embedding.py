"""The word embedding, in which a step computes gradients only for the rows that it uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class WordEmbedding(nn.Module):
    """An embedding in which a training step can restrict gradients to the rows that it uses.

    A batch has a few hundred of CLIP's 49,408 words. A gradient of the complete table is mostly
    zeros, which every piece of a batch would write, add up and send.

    Args:
        weight: A vector for each id.
        whole: True if an encoder looks vectors up without this module, so nothing can be saved.
    """

    def __init__(self, weight: nn.Parameter, *, whole: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.whole = whole
        self.used: Tensor | None = None
        """Inside :meth:`only`, the rows in use, for which gradients are computed."""
        self._ids = torch.empty(0, dtype=torch.int64)
        self._grad: tuple[Tensor, Tensor] | None = None

    def forward(self, ids: Int[Tensor, "texts words"]) -> Float[Tensor, "texts words width"]:
        """The ids' vectors."""
        if self.used is None:
            return F.embedding(ids, self.weight)
        return F.embedding(torch.searchsorted(self._ids, ids), self.used)

    @contextmanager
    def only(self, ids: Int[Tensor, "texts words"]) -> Iterator[None]:
        """Only these ids are used inside; afterwards the weight's gradient is that of :attr:`used`.

        Has no effect if the weight is not learnt, or is looked up without this module.
        """
        if self.whole or not self.weight.requires_grad:
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
        """The table's gradient, in memory reused between steps: only the last used rows are reset to zero."""
        whole, written = self._grad or (torch.zeros_like(self.weight), self._ids)
        if (whole.device, whole.dtype) != (grad.device, grad.dtype):
            whole = torch.zeros_like(self.weight)
        else:
            whole[written] = 0
        whole[self._ids] = grad
        self._grad = whole, self._ids
        return whole
