"""A shard of the frame cache: a blob of records and the index that makes it one.

The blob is the frames' bytes, one after the other. The index is a Parquet file of the same
name: anyone can read it. A shard exists once its index does, and the index is put in place last
and whole, so that a writer that is killed leaves nothing that a reader would see.
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
    """What the index says of one clip."""

    id: str
    file: str
    """The last two parts of the video's path: the same wherever the data root is mounted."""
    start: float
    end: float | None
    size: int
    """Of the video, bytes; -1 where there is no such file."""
    modified: int
    """The video's last change, nanoseconds since 1970; -1 where there is no such file."""
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
    """Name of the shard that holds it; known once it is read."""

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
    """What is asked of a blob's file object."""

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
        """Append a clip; ``frames`` is empty for one that has none."""
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
    """A new shard in ``folder``, visible when the block ends well and never otherwise.

    Names begin with the time, so that they sort by age, and end at random, so that any number of
    writers can write at once.
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
    """The records of one shard; none where its blob is not the size that the index says.

    Args:
        system: Where the cache lives.
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

    Read, not mapped: a mapped file that another process cuts short ends the reader with a bus
    error, and mapped pages count as the reader's memory.

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
    """Write beside the place, flush to disk, then move into it."""
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
