"""Records stored as rows of numbers, one row per video, and scored in place."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tcmgc.heads.base import MEMORY, ROWS, Group, Head, Tiles, check_text
from tcmgc.heads.parts.memory import same_memory
from tcmgc.towers.features import TextFeatures, VideoFeatures

_TOGETHER = 512
"""Videos in a tile, for heads whose tiles hold a copy of them."""


@dataclass(frozen=True)
class RecordLayout:
    """How a head's record of one video is stored in a row of numbers: its tensors in sequence.

    An index stores one row per video or per window of a video. A row's size does not depend on the
    processor, and any rows can be combined: a mapped file, a few hundred rows from a table.
    The head alone determines the layout (:func:`record_layout`), so it need not be stored.
    """

    kind: type[Any]
    """Class of the record."""
    parts: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
    """Name, shape for one video, and type of each of its tensors."""

    @property
    def numbers(self) -> int:
        """Numbers per row."""
        return sum(math.prod(shape) for _, shape, _ in self.parts)

    def bytes(self, dtype: torch.dtype = torch.float16) -> int:
        """Bytes per row."""
        return self.numbers * dtype.itemsize

    def rows(
        self, record: Any, dtype: torch.dtype = torch.float16
    ) -> Float[Tensor, "videos numbers"]:
        """The record's rows, with booleans as 0 and 1.

        Args:
            record: of this layout, on the CPU.
            dtype: float16 halves the size and rounds each number to 11 bits; float32 is exact.

        Raises:
            ValueError: a record of another layout, or a number out of float16's range.
        """
        if layout_of(record) != self:
            raise ValueError(
                f"the record is laid out as {layout_of(record)}, expected {self}: "
                "were both made by the same model, with as many frames?"
            )
        flat = [getattr(record, name).flatten(1).to(dtype) for name, _, _ in self.parts]
        found = torch.cat(flat, 1)
        bad = (~torch.isfinite(found)).any(1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"the record of video {bad[0]} (of {len(found)}; {len(bad)} such) has numbers that "
                f"{dtype} cannot hold: store it as torch.float32"
            )
        return found

    def record(self, rows: Float[Tensor, "videos numbers"]) -> Any:
        """The record that these rows hold, as views of them except for booleans.

        Args:
            rows: float16 or float32; may be ``torch.from_numpy`` of a read-only memory map.

        Raises:
            ValueError: rows of another length.
        """
        if rows.ndim != 2 or rows.shape[1] != self.numbers:
            raise ValueError(
                f"rows have shape {tuple(rows.shape)}; a record of this model takes "
                f"{self.numbers} numbers a video: was the index made by another model?"
            )
        pieces = rows.split([math.prod(shape) for _, shape, _ in self.parts], 1)
        given = {}
        for (name, shape, dtype), piece in zip(self.parts, pieces, strict=True):
            if dtype == torch.bool:
                # In NumPy: torch would wake its threads for little work and let them spin.
                piece = torch.from_numpy(piece.numpy() > 0)
            given[name] = piece.unflatten(1, shape) if shape else piece[:, 0]
        return self.kind(**given)


def layout_of(record: Any) -> RecordLayout:
    """The layout of a record."""
    parts = []
    for field in fields(record):
        tensor = getattr(record, field.name)
        kind = torch.bool if tensor.dtype == torch.bool else torch.float32
        parts.append((field.name, tuple(tensor.shape[1:]), kind))
    return RecordLayout(type(record), tuple(parts))


@torch.no_grad()
def record_layout(head: Head, frames: int) -> RecordLayout:
    """The layout of a head's records.

    Args:
        head: in evaluation mode.
        frames: frames per video, padded ones included.
    """
    like = next(head.parameters(), torch.empty(0))
    seen = like.new_ones(1, frames, head.dim)
    mask = torch.ones(1, frames, dtype=torch.bool, device=like.device)
    patches = like.new_ones(1, frames, head.patches, head.dim) if head.patches else None
    return layout_of(head.record(VideoFeatures(seen, seen, mask, patches)))


def scan(
    head: Head,
    text: TextFeatures,
    record_blocks: Iterable[Any],
    scale: Tensor | float = 1.0,
    *,
    memory: int = MEMORY,
) -> Iterator[Float[Tensor, "texts videos"]]:
    """Compute exact similarities of texts with stored videos, block by block.

    Equal to :func:`tcmgc.heads.score_tiled` on all records at once, but holds only one
    block's similarities and the working memory: blocks may be views of a file that is larger than
    memory. Blocks of some thousand videos are best; the division into blocks does not change
    the similarities.

    Args:
        head: the scoring rule, in evaluation mode.
        text: features of the texts, in the head's precision; each block is read once for all of them.
        record_blocks: records from :meth:`Head.record` or :meth:`RecordLayout.record`, in
            float32 or float16. Float16 numbers are widened while they are read; the arithmetic is
            float32.
        scale: the logit scale.
        memory: bytes that intermediate results may take.

    Yields:
        For each block, the similarities of all texts with its videos, in order.

    Raises:
        ValueError: features whose shape does not fit, or that are not finite.
    """
    check_text(text, head.dim)
    tiles = Tiles(head, text, memory, most=_TOGETHER)
    groups: list[Group] | None = None
    for record in record_blocks:
        with torch.no_grad():
            if groups is None and len(text) <= ROWS and len(text) and len(record):
                groups = list(tiles.groups(record))
            found = _block(tiles, groups, record, scale)
        yield found


def _block(
    tiles: Tiles, groups: list[Group] | None, record: Any, scale: Tensor | float
) -> Float[Tensor, "texts videos"]:
    """Similarities with one block's videos."""
    found = tiles.text.sentence.new_empty(len(tiles.text), len(record))
    if not found.numel():
        return found
    with same_memory():
        for group in tiles.groups(record) if groups is None else groups:
            for rows, columns, texts, videos in tiles.of(group, record):
                scores = tiles.head.tile(texts, videos)
                found[rows, columns] = tiles.head.combine(scores, scale)
    return found
