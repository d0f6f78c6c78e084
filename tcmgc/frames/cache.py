"""A cache of frames that any number of runs share, so that every video is decoded once.

A clip is identified by its content: the last two parts of the video's path, the file's size and time of
last change, and the window. A replaced file is decoded again; files in a moved data root are not.
All other settings that change the frames determine the subfolder.

Raw, a clip of 12 frames at 224 takes 1.8 MB (12 x 3 x 224 x 224 bytes); shorter ones take less.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from pyarrow import fs

from tcmgc import storage
from tcmgc.datasets.rows import Clip
from tcmgc.frames import format as formats
from tcmgc.frames.reader import FrameReader, identity, keys
from tcmgc.frames.shards import BLOB, INDEX, PARTIAL, Record, read_index, writing
from tcmgc.video import DECODER_VERSION, DecodeError, Frames, sample_frames
from tcmgc.video.pixels import Kernel, Resize
from tcmgc.video.sampling import Number, Sampler, check_sampling

_LEFTOVER_SECONDS = 3600.0


@dataclass(frozen=True)
class FrameCache:
    """Where frames are stored and how they are sampled; holds no open files and can be pickled."""

    root: str
    """Local folder or URI (s3://, gs://)."""
    _: KW_ONLY
    max_frames: int
    size: int
    fps: Number = 1.0
    sampler: Sampler = "uniform"
    frame_format: formats.FrameFormat = "raw"
    seed: int = 0
    """Decides the instants of the ``random`` sampler, together with the video's name."""
    resize: Resize = "shortest"
    kernel: Kernel = "bicubic"
    mirror: str | None = None
    """Folder for local copies of a remote cache's shards; None: in the system's temporary folder."""

    def __post_init__(self) -> None:
        check_sampling(
            max_frames=self.max_frames, fps=self.fps, start=0, end=None, sampler=self.sampler
        )
        if self.frame_format not in ("raw", "jpeg"):
            raise ValueError(f"frame_format is {self.frame_format!r}; known are raw, jpeg")

    @property
    def folder(self) -> str:
        """The subfolder for these settings, named after them and the version of decoding."""
        settings: dict[str, Any] = {
            "decoder": DECODER_VERSION,
            "max_frames": self.max_frames,
            "size": self.size,
            "fps": self.fps,
            "sampler": self.sampler,
            "seed": self.seed if self.sampler == "random" else None,
            "frame_format": self.frame_format,
            "quality": formats.JPEG_QUALITY if self.frame_format == "jpeg" else None,
        }
        if (self.resize, self.kernel) != ("shortest", "bicubic"):
            settings |= {"resize": self.resize, "kernel": self.kernel}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{self.max_frames}x{self.size}-{self.fps:g}fps-{self.sampler}-{self.frame_format}"
        return storage.join(storage.without_scheme(self.root), f"{name}-{digest}")

    def decode(self, clip: Clip, timeout: Number | None = None) -> Frames | DecodeError:
        """The clip's frames by this cache's settings, or the error."""
        try:
            return sample_frames(
                clip.path,
                max_frames=self.max_frames,
                size=self.size,
                fps=self.fps,
                start=clip.start,
                end=clip.end,
                sampler=self.sampler,
                timeout=timeout,
                seed=(self.seed, *identity(clip, None).file.encode()),
                resize=self.resize,
                kernel=self.kernel,
            )
        except DecodeError as error:
            return error

    def missing(
        self, clips: Sequence[Clip], *, retry_failed: bool = False, verify: bool = False
    ) -> list[Clip]:
        """The clips that, for their current files, are neither stored nor known to be unreadable.

        Args:
            clips: the clips to check.
            retry_failed: include those known to be unreadable.
            verify: read every stored record, and include damaged ones.
        """
        reader = self.open()
        wanted = {"frames"} if retry_failed else {"frames", "failed"}

        def known(record: Record | None) -> bool:
            if record is None or record.status not in wanted:
                return False
            return not verify or record.status == "failed" or reader.intact(record)

        found = (reader.record(key) for key in keys(clips))
        return [clip for clip, record in zip(clips, found, strict=True) if not known(record)]

    def write(self, entries: Iterable[tuple[Clip, Frames | DecodeError]]) -> str:
        """Store decoded clips, and the errors of those that failed, as one new shard; return its name.

        Safe with concurrent writers and if killed: a shard is written atomically. Of two records of
        the same content, the later one is used.

        Raises:
            ValueError: the shape of the frames is not this cache's.
            OSError: the cache cannot be written.
        """
        with writing(self.folder) as shard:
            for clip, outcome in entries:
                record = identity(clip, storage.stamp(clip.path))
                if isinstance(outcome, DecodeError):
                    shard.add(replace(record, status="failed", error=outcome.reason), [])
                    continue
                self._check(clip, outcome)
                record = replace(record, timestamps=tuple(outcome.timestamps.tolist()))
                shard.add(record, formats.encode(outcome.pixels, self.frame_format))
        return shard.name

    def open(self, clips: Sequence[Clip] | None = None) -> FrameReader:
        """A reader of what is stored now. With ``clips``, their ids and files are looked up immediately.

        Without, clips are looked up when they are first read, by the state of their files then.
        """
        reader = FrameReader(
            self.folder,
            self._records(),
            max_frames=self.max_frames,
            size=self.size,
            frame_format=self.frame_format,
            mirror=self.mirror,
        )
        if clips is not None:
            reader.bind(clips)
        return reader

    def remove_leftovers(self) -> int:
        """Delete files that killed writers left in a local cache over an hour ago; return the bytes freed."""
        freed = 0
        if storage.is_uri(self.folder) or not Path(self.folder).is_dir():
            return freed
        for partial in Path(self.folder).glob(f"*{PARTIAL}"):
            info = partial.stat()
            if time.time() - info.st_mtime > _LEFTOVER_SECONDS:
                partial.unlink(missing_ok=True)
                freed += info.st_size
        return freed

    def _check(self, clip: Clip, frames: Frames) -> None:
        shape = (len(frames), 3, self.size, self.size)
        if frames.pixels.shape != shape or not 1 <= len(frames) <= self.max_frames:
            raise ValueError(
                f"clip {clip.id!r} has frames of shape {frames.pixels.shape}; this cache holds "
                f"1 to {self.max_frames} of 3 x {self.size} x {self.size}"
            )

    def _records(self) -> Iterator[Record]:
        """Every record, oldest shard first."""
        system, inner = storage.resolve(self.folder)
        files = system.get_file_info(fs.FileSelector(inner, allow_not_found=True))
        sizes = {
            f.base_name.removesuffix(BLOB): f.size for f in files if f.base_name.endswith(BLOB)
        }
        indexes = sorted(f.path for f in files if f.base_name.endswith(INDEX))
        with ThreadPoolExecutor(8) as pool:
            for records in pool.map(lambda path: read_index(system, path, sizes), indexes):
                yield from records
