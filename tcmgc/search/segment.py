"""A segment: some thousand windows in one safetensors file, which is mapped and never changed.

| tensor | shape | |
|---|---|---|
| ``key`` | windows, 16 | content key of the video (uint8) |
| ``span`` | windows, 2 | start and end in seconds (float64) |
| ``times`` | windows, frames | when the model's frames are shown, NaN for padding (float32) |
| ``vectors`` | windows, vectors, dim | for finding candidates (:mod:`tcmgc.search.candidates`) |
| ``records`` | windows, numbers | the head's record of each, for exact scores (:mod:`tcmgc.heads.records`) |
| ``strips``, ``strip_ends`` | bytes; windows | concatenated thumbnail strips (JPEG), and where each ends |

All windows of a video are in one segment, so a video is indexed completely or not at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tcmgc import storage
from tcmgc.search.files import KEY_BYTES


@dataclass(frozen=True)
class Rows:
    """Windows to be written to a segment; can be sent between processes."""

    tensors: dict[str, np.ndarray]
    """The tensors of the table above, except the strips."""
    strips: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.strips)

    @staticmethod
    def cat(parts: Sequence["Rows"]) -> "Rows":
        """Concatenate several."""
        names = parts[0].tensors
        return Rows(
            {name: np.concatenate([part.tensors[name] for part in parts]) for name in names},
            tuple(strip for part in parts for strip in part.strips),
        )


def write(path: Path, rows: Rows) -> None:
    """Write a segment.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in rows.tensors.items()
    }
    ends = np.cumsum([len(strip) for strip in rows.strips], dtype=np.int64)
    tensors["strip_ends"] = torch.from_numpy(ends)
    tensors["strips"] = torch.frombuffer(
        bytearray(b"".join(rows.strips)) or bytearray(1), dtype=torch.uint8
    )
    try:
        with storage.usual_rights(path):
            save_file(tensors, path)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


class Segment:
    """A segment's memory-mapped file.

    Raises:
        ValueError: the file is truncated, or not a segment.
        FileNotFoundError: it does not exist.
    """

    def __init__(self, name: str, path: Path, rows: int, size: int) -> None:
        self.name = name
        if path.stat().st_size != size:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes of {size:,}")
        try:
            with safe_open(path, "pt") as file:
                names = file.keys()
                self.tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        wanted = {"key", "span", "times", "vectors", "records", "strips", "strip_ends"}
        missing = wanted - self.tensors.keys()
        if missing or len(self.tensors["key"]) != rows:
            raise ValueError(f"{path} is not a segment of {rows} windows")
        self.keys = self.tensors["key"].numpy()
        self.spans = self.tensors["span"].numpy()

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def vectors(self) -> Tensor:
        """Vectors for finding candidates."""
        return self.tensors["vectors"]

    def records(self, at: Tensor | None = None) -> Tensor:
        """Rows of records: all of them, mapped, or a copy of some."""
        return self.tensors["records"] if at is None else self.tensors["records"][at]

    def strip(self, row: int) -> bytes:
        """A window's thumbnail strip as JPEG."""
        ends = self.tensors["strip_ends"]
        start = int(ends[row - 1]) if row else 0
        return self.tensors["strips"][start : int(ends[row])].numpy().tobytes()

    def rows(self, at: np.ndarray) -> Rows:
        """Some windows, to be written into another segment."""
        kept = torch.from_numpy(np.ascontiguousarray(at))
        names = self.tensors.keys() - {"strips", "strip_ends"}
        return Rows(
            {name: self.tensors[name][kept].numpy() for name in sorted(names)},
            tuple(self.strip(int(row)) for row in at),
        )


def key_array(keys: np.ndarray) -> Any:
    """Keys as an Arrow array, for look-ups."""
    buffer = pa.py_buffer(np.ascontiguousarray(keys))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, buffer])
