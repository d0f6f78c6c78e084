"""The table of an index's video files: where each lies, what it was when it was read, what is in it."""

import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields

import pyarrow as pa
import pyarrow.parquet as pq

from tcmgc import storage
from tcmgc.video import probe
from tcmgc.video.file import Source, find

KEY_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One video file."""

    path: str
    """Absolute, or a URI without credentials; bytes that are no UTF-8 as in ``os.fsdecode``."""
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""
    key: bytes = b""
    """Of its content (:func:`content_key`); empty where it could not be read."""
    error: str = ""
    """Why nothing of it can be decoded; empty where something can."""
    note: str = ""
    """What cannot be decoded where the rest can."""
    container: str = ""
    codec: str = ""
    width: int = 0
    height: int = 0
    duration: float = 0.0
    """Seconds."""
    frame_rate: float = 0.0


_SCHEMA = pa.schema(
    {
        "path": pa.binary(),
        "size": pa.int64(),
        "modified": pa.int64(),
        "key": pa.binary(),
        "error": pa.string(),
        "note": pa.string(),
        "container": pa.string(),
        "codec": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "duration": pa.float64(),
        "frame_rate": pa.float64(),
    }
)
assert _SCHEMA.names == [f.name for f in fields(FileRow)]


def to_parquet(rows: Iterable[FileRow]) -> bytes:
    """The table as a file."""
    rows = list(rows)
    columns = {name: [getattr(row, name) for row in rows] for name in _SCHEMA.names}
    columns["path"] = [os.fsencode(path) for path in columns["path"]]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def from_parquet(content: bytes) -> pa.Table:
    """The table that :func:`to_parquet` wrote.

    Raises:
        ValueError: damaged.
    """
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"the table of files is damaged: {error}") from error
    if table.schema.names != _SCHEMA.names:
        raise ValueError(f"the table of files has the columns {', '.join(table.schema.names)}")
    return table


def rows(table: pa.Table) -> list[FileRow]:
    """Rows of a table, or of a part of one."""
    return [
        FileRow(**{**values, "path": os.fsdecode(values["path"])}) for values in table.to_pylist()
    ]


def content_key(source: Source | str) -> bytes:
    """The first 16 bytes of the SHA-256 of a file's content: a moved or copied file keeps it.

    Raises:
        DecodeError: the file is not there, or is not a file.
        OSError: it cannot be read.
    """
    source = find(source) if isinstance(source, str) else source
    found = hashlib.sha256()
    with source.open() as file:
        while block := file.read(4 << 20):
            found.update(block)
    return found.digest()[:KEY_BYTES]


def look(path: str, stamp: storage.FileStamp) -> FileRow:
    """A file's row, from its content and its container.

    Raises:
        DecodeError: not a video, or not there.
        OSError: it cannot be read.
    """
    info = probe(path)
    return FileRow(
        path=path,
        size=stamp.size,
        modified=stamp.modified,
        key=content_key(find(path)),
        container=info.container,
        codec=info.codec,
        width=info.width,
        height=info.height,
        duration=info.duration,
        frame_rate=info.frame_rate,
    )


def state(row: FileRow) -> str:
    """``""`` where the file is as it was indexed, else ``"missing"`` or ``"changed"``."""
    now = stamp(row.path)
    if now is None:
        return "missing"
    return "" if (now.size, now.modified) == (row.size, row.modified) else "changed"


def stamp(path: str) -> storage.FileStamp | None:
    """Size and time of last change, of names that are no UTF-8 too; None where it cannot be reached."""
    try:
        if storage.is_uri(path):
            return storage.stamp(path)
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return storage.FileStamp(info.st_size, info.st_mtime_ns)
