"""Read stored frames: find records by clip or id, check them, copy them into one buffer."""

import contextlib
import os
import shutil
import tempfile
import threading
import uuid
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from tcmgc import storage
from tcmgc.datasets.rows import Clip
from tcmgc.frames import format as formats
from tcmgc.frames.shards import BLOB, Record, read_bytes, writing

_THREADS = 4
"""Parts of a batch that are read in parallel: reading, checking and JPEG decoding release the GIL."""
_PART = 4 * 2**20
"""Bytes of frames per thread; a batch with fewer than two such parts is read by one thread."""
_fetching = threading.Lock()


class FrameCacheError(ValueError):
    """A record that is damaged or missing."""


class FrameReader:
    """The records of a cache at the time it was opened. Created by :meth:`FrameCache.open`.

    It can be sent to other processes, and holds no open files.
    """

    def __init__(
        self,
        folder: str,
        records: Iterable[Record],
        *,
        max_frames: int,
        size: int,
        frame_format: formats.FrameFormat,
        mirror: str | None,
    ) -> None:
        self.folder = folder
        self.max_frames, self.size, self.frame_format = max_frames, size, frame_format
        self.mirror = mirror
        self._records: dict[tuple[Any, ...], Record] = {}
        for record in records:
            self._records[record.key] = record
        self._by_id: dict[str, list[Record]] = {}
        for record in self._records.values():
            self._by_id.setdefault(record.id, []).append(record)
        self._clips: dict[Clip, Record] = {}
        self._intact: set[tuple[Any, ...]] = set()

    def bind(self, clips: Sequence[Clip]) -> None:
        """Look up clips by their current files; afterwards their ids refer to these clips.

        Raises:
            OSError: the videos' file system cannot be reached.
        """
        for clip, key in zip(clips, keys(clips), strict=True):
            record = self._records.get(key)
            self._by_id[clip.id] = [] if record is None else [record]
            if record is not None:
                self._clips[clip] = record

    @property
    def failures(self) -> dict[str, str]:
        """Reasons for clips that could not be decoded, by id."""
        return {
            id_: records[-1].error
            for id_, records in self._by_id.items()
            if records and records[-1].status == "failed"
        }

    def __contains__(self, item: str | Clip) -> bool:
        """Whether frames of it are stored."""
        try:
            return self._find(item).status == "frames"
        except ValueError:
            return False

    def read(
        self,
        items: Sequence[str] | Sequence[Clip],
        out: UInt8[np.ndarray, "at_least_clips max_frames 3 size size"] | None = None,
    ) -> tuple[
        UInt8[np.ndarray, "clips max_frames 3 size size"], Bool[np.ndarray, "clips max_frames"]
    ]:
        """Frames of clips, or of ids, in order, padded with zeros; and which frames are real.

        Each record's checksum is checked the first time it is read.

        Args:
            items: what to read.
            out: a buffer to read into, of at least as many clips, for instance pinned memory:
                ``torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()``. The result is a view of it.

        Raises:
            ValueError: an item is not stored, could not be decoded, or its record is damaged.
        """
        records = [self._frames(item) for item in items]
        shape = (len(records), self.max_frames, 3, self.size, self.size)
        if out is None:
            out = np.empty(shape, dtype=np.uint8)
        elif out.shape[1:] != shape[1:] or len(out) < len(records) or out.dtype != np.uint8:
            raise ValueError(f"out is {out.dtype} {out.shape}; expected uint8, at least {shape}")
        threads = min(_THREADS, out[: len(records)].nbytes // _PART)
        if threads > 1:
            starts = range(threads)
            parts = [records[start::threads] for start in starts]
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(self._load_all, parts, [out[start::threads] for start in starts]))
        else:
            self._load_all(records, out)
        counts = np.array([len(record.lengths) for record in records], dtype=np.int64)
        return out[: len(records)], np.arange(self.max_frames) < counts[:, None]

    def timestamps(self, item: str | Clip) -> np.ndarray:
        """When each stored frame is first shown, in seconds from the first frame of the video."""
        return np.array(self._frames(item).timestamps)

    def stored_bytes(self, item: str | Clip) -> int:
        """Bytes that its frames take in the cache."""
        return sum(self._frames(item).lengths)

    def record(self, key: tuple[Any, ...]) -> Record | None:
        """The record of a clip's content (:func:`keys`)."""
        return self._records.get(key)

    def intact(self, record: Record) -> bool:
        """Whether a stored record can be read and matches its checksum."""
        try:
            self._bytes(record, memoryview(bytearray(sum(record.lengths))))
        except FrameCacheError:
            return False
        return True

    def _find(self, item: str | Clip) -> Record:
        if isinstance(item, Clip):
            if item not in self._clips:
                self.bind([item])
            if item in self._clips:
                return self._clips[item]
            raise ValueError(
                f"the cache {storage.plain(self.folder)} has no frames of clip {item.id!r} as {storage.plain(item.path)} is now; "
                "fill it with pipeline/cache_frames.py"
            )
        records = self._by_id.get(item, [])
        if len(records) == 1:
            return records[0]
        if records:
            files = ", ".join(sorted({record.file for record in records}))
            raise ValueError(
                f"the cache {storage.plain(self.folder)} knows {len(records)} clips by the id {item!r} ({files}); "
                "open it with the clips that are meant, or read by clip"
            )
        raise ValueError(
            f"the cache {storage.plain(self.folder)} has no clip {item!r}; fill it with pipeline/cache_frames.py"
        )

    def _frames(self, item: str | Clip) -> Record:
        record = self._find(item)
        if record.status == "frames":
            return record
        if record.status == "failed":
            raise ValueError(f"clip {record.id!r} has no frames: {record.file}: {record.error}")
        raise FrameCacheError(
            f"the frames of clip {record.id!r} in the cache {storage.plain(self.folder)} were found damaged; "
            "fill it again with pipeline/cache_frames.py"
        )

    def _load_all(self, records: Sequence[Record], out: np.ndarray) -> None:
        for record, place in zip(records, out, strict=False):  # out may be larger
            self._load(record, place)

    def _load(self, record: Record, out: np.ndarray) -> None:
        out[len(record.lengths) :] = 0
        out = out[: len(record.lengths)]
        if self.frame_format == "raw":
            self._bytes(record, out.data.cast("B"))
            return
        data = memoryview(bytearray(sum(record.lengths)))
        self._bytes(record, data)
        formats.decode(data, record.lengths, out)

    def _bytes(self, record: Record, target: memoryview) -> None:
        """A record's bytes, checked the first time."""
        problem = self._try_bytes(record, target)
        if problem and storage.is_uri(self.folder):
            self._local(record.shard).unlink(missing_ok=True)
            problem = self._try_bytes(record, target)
        if problem:
            self._drop(record)
            raise FrameCacheError(
                f"shard {record.shard} of the cache {storage.plain(self.folder)}: the frames of clip {record.id!r} are damaged "
                f"({problem}); fill it again with pipeline/cache_frames.py: that clip will be decoded anew"
            )

    def _try_bytes(self, record: Record, target: memoryview) -> str:
        if target.nbytes != sum(record.lengths):
            return f"{sum(record.lengths)} bytes where {target.nbytes} were expected"
        try:
            read_bytes(str(self._fetched(record.shard)), record.offset, target)
        except OSError as error:
            return str(error)
        if record.key not in self._intact:
            if zlib.crc32(target) != record.checksum:
                return "its checksum does not match"
            self._intact.add(record.key)
        return ""

    def _fetched(self, shard: str) -> Path:
        """The shard's blob as a local file; a remote one is copied on first use."""
        local = self._local(shard)
        if not storage.is_uri(self.folder):
            return local
        with _fetching:
            if local.exists():
                return local
            local.parent.mkdir(parents=True, exist_ok=True)
            system, inner = storage.resolve(self.folder)
            partial = local.with_name(f"{local.name}.{uuid.uuid4().hex}")
            with (
                system.open_input_stream(f"{inner}/{shard}{BLOB}") as remote,
                open(partial, "wb") as copy,
            ):
                shutil.copyfileobj(remote, copy, 4 << 20)
            partial.rename(local)
        return local

    def _local(self, shard: str) -> Path:
        if not storage.is_uri(self.folder):
            return Path(self.folder, shard + BLOB)
        base = Path(self.mirror or Path(tempfile.gettempdir(), f"tcmgc-frames-{os.getuid()}"))
        where = zlib.crc32(storage.plain(self.folder).encode())
        return (
            base
            / f"{self.folder.partition('?')[0].rpartition('/')[2]}-{where:08x}"
            / (shard + BLOB)
        )

    def _drop(self, record: Record) -> None:
        """Mark the record as damaged in the cache, if the cache can be written to."""
        dropped = replace(record, status="dropped", lengths=(), timestamps=(), offset=0, checksum=0)
        with contextlib.suppress(OSError), writing(self.folder) as shard:
            shard.add(dropped, [])


def keys(clips: Sequence[Clip]) -> list[tuple[Any, ...]]:
    """The key of each clip's content, from its current file (:attr:`Record.key`)."""
    stamps = storage.stamps([clip.path for clip in clips])
    return [identity(clip, stamps[clip.path]).key for clip in clips]


def identity(clip: Clip, stamp: storage.FileStamp | None) -> Record:
    """A record without frames."""
    return Record(
        id=clip.id,
        file="/".join(storage.plain(clip.path).split("/")[-2:]),
        start=clip.start,
        end=clip.end,
        size=-1 if stamp is None else stamp.size,
        modified=-1 if stamp is None else stamp.modified,
        status="frames",
    )
