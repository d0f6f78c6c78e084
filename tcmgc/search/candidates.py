"""Vectors for finding candidates, and their compressed form for scanning millions of them.

A window has a few vectors, a query has one; windows are ranked by the vector nearest to the query.
Vectors depend on the head: if texts attend to frames, a vector is the attention block's output for
a single frame (:meth:`tcmgc.heads.Head.alone`), compared with the sentence.
"""

from collections.abc import Sequence

import faiss
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

_TOGETHER = 256
"""Windows whose vectors are widened to float32 at a time, so that they fit in the cache."""
CODES_FROM = 10_000
"""Number of windows from which an index keeps compressed vectors; a smaller one compares the originals."""


def spread(
    vectors: Float[Tensor, "windows any dim"], mask: Bool[Tensor, "windows any"], count: int
) -> Float[Tensor, "windows count dim"]:
    """Choose ``count`` of each window's vectors that are far apart: each the farthest from those before.

    Neighbouring frames look alike, so a few of a window's vectors represent all of them. If a window
    has fewer, its first one is repeated. Vectors are unit vectors.
    """
    first = mask.int().argmax(1, keepdim=True)
    chosen = [first]
    rows = torch.arange(len(vectors), device=vectors.device).unsqueeze(1)
    nearest = (vectors @ vectors[rows, first].mT).squeeze(-1)
    for _ in range(count - 1):
        at = nearest.masked_fill(~mask, float("inf")).argmin(1, keepdim=True)
        chosen.append(at)
        nearest = torch.maximum(nearest, (vectors @ vectors[rows, at].mT).squeeze(-1))
    return vectors[rows, torch.cat(chosen, 1)]


class Codes:
    """One bit per number (RaBitQ with the mean as centre), searched by an exhaustive scan.

    There is no graph and there are no clusters: only a mean is trained, nothing needs tuning, and
    vectors added later are found as well as the first ones.
    """

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def train(cls, vectors: Float[Tensor, "vectors dim"]) -> "Codes":
        """Empty codes, trained for vectors like these."""
        dim = vectors.shape[-1]
        index = faiss.IndexRaBitQFastScan(dim, faiss.METRIC_INNER_PRODUCT)
        index.train(_float32(vectors))
        return cls(index)

    @classmethod
    def load(cls, content: bytes) -> "Codes":
        """The inverse of :meth:`save`.

        Raises:
            ValueError: damaged.
        """
        try:
            return cls(faiss.deserialize_index(np.frombuffer(content, np.uint8)))
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[0]) from error

    def save(self) -> bytes:
        """The codes as a file's content."""
        return faiss.serialize_index(self._index).tobytes()

    def __len__(self) -> int:
        return self._index.ntotal

    def add(self, vectors: Float[Tensor, "vectors dim"]) -> None:
        """Append vectors."""
        for part in vectors.split(1 << 16):
            self._index.add(_float32(part))

    def search(
        self, queries: Float[Tensor, "queries dim"], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Estimated products and positions of the ``count`` nearest vectors of each query, best first."""
        return self._index.search(_float32(queries), min(count, len(self)))


def best_product(
    queries: Float[Tensor, "queries dim"], vectors: Sequence[Tensor]
) -> Float[Tensor, "queries windows"]:
    """Each window's best product with each query; ``vectors`` are parts of the windows."""
    found = [
        (queries @ part.flatten(0, 1).float().mT).unflatten(1, part.shape[:2]).amax(-1)
        for whole in vectors
        for part in whole.split(_TOGETHER)
    ]
    return torch.cat(found, 1) if found else queries.new_empty(len(queries), 0)


def _float32(vectors: Tensor) -> np.ndarray:
    return np.ascontiguousarray(vectors.float().numpy())
