"""A shard of the frame cache: a blob of records and its index.

The blob is the frames' bytes in sequence. The index is a Parquet file of the same
name. A shard exists once its index does. The index is written last and
atomically, so readers see nothing of a writer that was killed.
"""

import contextlib
import os
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from tcmgc import storage

BLOB, INDEX, PARTIAL = ".frames", ".parquet", ".partial"

Status = Literal["frames", "failed", "dropped"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """The index's entry for one clip."""

    id: str
    file: str
    """The last two parts of the video's path, which do not depend on the data root's location."""
    start: float
    end: float | None
    size: int
    """Size of the video in bytes; -1 if there is no such file."""
    modified: int
    """The video's last change, nanoseconds since 1970; -1 if there is no such file."""
    status: Status
    """Stored; unreadable; or stored once and found damaged."""
    error: str = ""
    offset: int = 0
    lengths: tuple[int, ...] = ()
    """Bytes of each frame."""
    checksum: int = 0
    """CRC-32 of the record's bytes."""
    timestamps: tuple[float, ...] = ()
    """Seconds from the first frame of the video."""
    shard: str = ""
    """Name of its shard; known once the index is read."""

    @property
    def key(self) -> tuple[Any, ...]:
        """The clip's content: the same file, by name, size and time of change, and the same window."""
        return self.file, self.size, self.modified, self.start, self.end


_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "file": pa.string(),
        "start": pa.float64(),
        "end": pa.float64(),
        "size": pa.int64(),
        "modified": pa.int64(),
        "status": pa.string(),
        "error": pa.string(),
        "offset": pa.int64(),
        "lengths": pa.list_(pa.uint32()),
        "checksum": pa.uint32(),
        "timestamps": pa.list_(pa.float64()),
    }
)


@runtime_checkable
class Writable(Protocol):
    """The method that a blob's file object must have."""

    def write(self, data: memoryview, /) -> int | None:
        """Append."""


class ShardWriter:
    """Appends records; :meth:`finish` makes them visible."""

    def __init__(self, blob: Writable, name: str) -> None:
        self._blob = blob
        self._records: list[Record] = []
        self.name = name
        self.offset = 0

    def add(self, record: Record, frames: list[memoryview]) -> None:
        """Append a clip; ``frames`` is empty if there are none."""
        checksum = 0
        for frame in frames:
            self._blob.write(frame)
            checksum = zlib.crc32(frame, checksum)
        values = {field.name: getattr(record, field.name) for field in fields(record)}
        values |= {
            "offset": self.offset,
            "lengths": tuple(frame.nbytes for frame in frames),
            "checksum": checksum,
        }
        self._records.append(Record(**values))
        self.offset += sum(frame.nbytes for frame in frames)

    def __len__(self) -> int:
        return len(self._records)

    def index(self) -> bytes:
        """The index as a Parquet file."""
        rows = [{k: v for k, v in asdict(r).items() if k != "shard"} for r in self._records]
        sink = pa.BufferOutputStream()
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        pq.write_table(table.replace_schema_metadata({"bytes": str(self.offset)}), sink)
        return sink.getvalue().to_pybytes()


@contextlib.contextmanager
def writing(folder: str) -> Iterator[ShardWriter]:
    """A new shard in ``folder``, which becomes visible only if the block succeeds.

    Names begin with the time, so they sort by age, and end with random characters, so any number of
    writers can work at the same time.
    """
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}"
    if storage.is_uri(folder):
        system, inner = storage.resolve(folder)
        with system.open_output_stream(f"{inner}/{name}{BLOB}") as blob:
            writer = ShardWriter(blob, name)
            yield writer
        with system.open_output_stream(f"{inner}/{name}{INDEX}") as index:
            index.write(writer.index())
        return
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    with _aside(root / f"{name}{BLOB}") as blob:
        writer = ShardWriter(blob, name)
        yield writer
    with _aside(root / f"{name}{INDEX}") as index:
        index.write(writer.index())


def read_index(system: fs.FileSystem, inner: str, sizes: dict[str, int]) -> list[Record]:
    """The records of one shard; none if its blob does not have the size stated in the index.

    Args:
        system: The cache's file system.
        inner: Path of the index there.
        sizes: Bytes of every blob of the folder, by shard name.
    """
    name = inner.rpartition("/")[2].removesuffix(INDEX)
    with system.open_input_file(inner) as file:
        table = pq.read_table(file)
    metadata = table.schema.metadata or {}
    if sizes.get(name) != int(metadata.get(b"bytes", b"-1")):
        return []
    return [
        Record(
            **{
                **row,
                "lengths": tuple(row["lengths"]),
                "timestamps": tuple(row["timestamps"]),
                "shard": name,
            }
        )
        for row in table.to_pylist()
    ]


def read_bytes(path: str, offset: int, target: memoryview) -> None:
    """Fill ``target`` from a local file.

    The file is read, not mapped: if another process truncates a mapped file, the reader dies with a
    bus error, and mapped pages count as the reader's memory.

    Raises:
        OSError: no such file, or it ends too early.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        done = 0
        while done < len(target):
            read = os.preadv(handle, [target[done:]], offset + done)
            if not read:
                raise OSError(f"{path} ends after {offset + done} bytes")
            done += read
    finally:
        os.close(handle)


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[BinaryIO]:
    """Write to a temporary file next to the path, flush to disk, then move it into place."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
