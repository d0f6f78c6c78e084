"""Change an index: one writer at a time, any number of readers, versions replaced atomically."""

import csv
import dataclasses
import functools
import io
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from tcmgc import storage
from tcmgc.search import candidates, files, manifest, segment
from tcmgc.search.encoder import described
from tcmgc.search.files import KEY_BYTES, FileRow
from tcmgc.search.manifest import Manifest, Part, Settings
from tcmgc.search.place import Place, digest
from tcmgc.search.segment import Rows, Segment, key_array
from tcmgc.training.checkpoint import CONFIG, TOWER, WEIGHTS

SEGMENT = 8192
"""Number of windows that a segment grows to."""
SMALL = 8
"""Segments below half that size that are tolerated; more are merged."""
GRACE = 60.0
"""Seconds that files of an earlier version are kept for readers that have just read its manifest."""
MODEL = "model"


class Writer:
    """Changes an index. The caller ensures that there is only one writer (by a lock).

    :meth:`put`, :meth:`forget` and :meth:`add` collect changes; :meth:`commit` makes them
    one new version. Uncommitted files of a killed writer are removed when the next one opens.
    """

    def __init__(self, place: Place, version: Manifest) -> None:
        self.place = place
        self.version = version
        self.damaged: list[str] = []
        """Damaged files that are skipped; their videos count as not indexed."""
        self._segments: dict[str, Segment] = {}
        kept = []
        for part in version.segments:
            try:
                self._segments[part.name] = open_segment(place, part)
                kept.append(part)
            except (ValueError, FileNotFoundError) as error:
                self.damaged.append(str(error))
        self.version = dataclasses.replace(version, segments=tuple(kept))
        self.files = {row.path: row for row in self._files()}
        self._known = {
            bytes(key) for one in self._segments.values() for key in np.unique(one.keys, axis=0)
        }
        self._new: dict[bytes, Rows] = {}
        self._changed = bool(self.damaged)
        self._tidy()

    @classmethod
    def create(cls, place: Place, checkpoint: Path, settings: Settings) -> "Writer":
        """Create an empty index with a copy of a checkpoint's model.

        Raises:
            OSError: it cannot be written.
        """
        settings.windowing.cut(0.0)
        for name in (CONFIG, WEIGHTS, TOWER):
            if (checkpoint / name).is_file():
                copy = functools.partial(shutil.copyfile, checkpoint / name)
                place.put(f"{MODEL}/{name}", copy)
        first = Manifest(model=described(checkpoint), settings=settings)
        first.save(place)
        return cls(place, first)

    @classmethod
    def open(cls, place: Place) -> "Writer":
        """Open an existing index.

        Raises:
            ValueError: there is no index, or it has another format.
        """
        return cls(place, manifest.load(place))

    def has(self, key: bytes) -> bool:
        """Whether windows of this content are stored or waiting to be committed."""
        return key in self._known or key in self._new

    def current(self, path: str, stamp: storage.FileStamp) -> bool:
        """Whether a file, in its current state, is indexed or known to be broken."""
        row = self.files.get(path)
        if row is None or (row.size, row.modified) != (stamp.size, stamp.modified):
            return False
        return bool(row.error) or self.has(row.key)

    def add(self, key: bytes, rows: Rows) -> None:
        """Add all windows of a content that is not in the index."""
        if not self.has(key):
            self._new[key] = rows
            self._changed = True

    def put(self, row: FileRow) -> None:
        """Record an existing file, replacing the entry of its path."""
        if self.files.get(row.path) != row:
            self.files[row.path] = row
            self._changed = True

    def forget(self, path: str) -> None:
        """Remove the entry of a deleted file."""
        if self.files.pop(path, None) is not None:
            self._changed = True

    def note_root(self, root: str) -> None:
        """Record a folder that was indexed."""
        roots = tuple(sorted({*self.version.roots, storage.plain(root)}))
        self._changed |= roots != self.version.roots
        self.version = dataclasses.replace(self.version, roots=roots)

    @property
    def waiting(self) -> int:
        """Number of windows that are not committed yet."""
        return sum(len(rows) for rows in self._new.values())

    def commit(self) -> bool:
        """Make the changes the index's new version; False if there are none.

        Raises:
            OSError: for example, the disk is full; the previous version stays, and the changes are
                kept for another attempt.
        """
        if not self._changed:
            return False
        segments = list(self.version.segments)
        if self._new:
            segments.append(self._write(list(self._new.values())))
        self._publish(segments)
        self._known |= self._new.keys()
        self._new.clear()
        return True

    def compact(self) -> bool:
        """Merge small segments and drop windows without a file, if that is worthwhile."""
        live = {row.key for row in self.files.values() if not row.error}
        wanted = pa.array(list(live), pa.binary(KEY_BYTES))
        parts = list(self.version.segments)
        alive = {part.name: self._alive(part.name, wanted) for part in parts}
        wasteful = [p for p in parts if len(alive[p.name]) < 0.75 * p.rows]
        small = [p for p in parts if len(alive[p.name]) < SEGMENT // 2]
        chosen = {p.name for p in wasteful} | (
            {p.name for p in small} if len(small) > SMALL else set()
        )
        if not chosen:
            return False
        kept = [part for part in parts if part.name not in chosen]
        group: list[Rows] = []
        for part in (part for part in parts if part.name in chosen):
            if len(alive[part.name]):
                group.append(self._segments[part.name].rows(alive[part.name]))
            if sum(map(len, group)) >= SEGMENT // 2:
                kept.append(self._write(group))
                group = []
        if group:
            kept.append(self._write(group))
        gone = {bytes(k) for n in chosen for k in np.unique(self._segments[n].keys, axis=0)} - live
        self._publish(kept)
        self._known -= gone
        return True

    def encode(self) -> bool:
        """Update the compressed vectors, if the index is large enough to need them."""
        parts = self.version.segments
        names = tuple(part.name for part in parts)
        if sum(part.rows for part in parts) < candidates.CODES_FROM or self.version.coded == names:
            return False
        before = self.version.coded
        codes = None
        if before and names[: len(before)] == before:
            codes = load_codes(self.place, self.version)
        todo = names[len(before) :] if codes is not None else names
        if codes is None:
            codes = candidates.Codes.train(sample_vectors(self._segments[name] for name in names))
        for name in todo:
            codes.add(self._segments[name].vectors.flatten(0, 1))
        content = codes.save()
        part = self._put(f"codes-{_stamp()}.faiss", lambda path: _bytes(path, content), len(codes))
        old = self.version.codes
        self._save(
            dataclasses.replace(self.version, codes=part, coded=names),
            [old.name] if old else [],
        )
        return True

    def calibrate(self, values: dict[str, object]) -> None:
        """Store a calibration (:mod:`tcmgc.search.calibration`)."""
        self._save(dataclasses.replace(self.version, calibration=values), [])

    @property
    def broken(self) -> list[FileRow]:
        """Files that cannot be decoded in part or in full."""
        return [row for _, row in sorted(self.files.items()) if row.error or row.note]

    def write_broken(self) -> None:
        """Write the list of broken files into the index's folder, tab-separated."""
        sink = io.StringIO()
        table = csv.writer(sink, delimiter="\t", lineterminator="\n")
        table.writerow(["file", "reason"])
        table.writerows([storage.plain(row.path), row.error or row.note] for row in self.broken)
        self.place.write("broken.tsv", sink.getvalue().encode(errors="surrogateescape"))

    def _files(self) -> list[FileRow]:
        part = self.version.files
        if part is None:
            return []
        content = self.place.read(part.name)
        if content is None:
            self.damaged.append(f"{self.place}/{part.name} is not there")
            return []
        try:
            return files.rows(files.from_parquet(content))
        except ValueError as error:
            self.damaged.append(f"{self.place}/{part.name}: {error}")
            return []

    def _alive(self, name: str, live: pa.Array) -> np.ndarray:
        found = pc.is_in(key_array(self._segments[name].keys), value_set=live)
        return np.flatnonzero(found.to_numpy(zero_copy_only=False))

    def _write(self, rows: Sequence[Rows]) -> Part:
        whole = Rows.cat(rows)
        part = self._put(
            f"segments/{_stamp()}.safetensors", lambda path: segment.write(path, whole), len(whole)
        )
        self._segments[part.name] = open_segment(self.place, part)
        return part

    def _publish(self, segments: list[Part]) -> None:
        content = files.to_parquet(row for _, row in sorted(self.files.items()))
        table = self._put(
            f"files-{_stamp()}.parquet", lambda path: _bytes(path, content), len(self.files)
        )
        now = {part.name for part in segments}
        gone = [part.name for part in self.version.segments if part.name not in now]
        if self.version.files:
            gone.append(self.version.files.name)
        self._save(dataclasses.replace(self.version, files=table, segments=tuple(segments)), gone)
        for name in gone:
            self._segments.pop(name, None)
        self._changed = False

    def _save(self, version: Manifest, gone: Iterable[str]) -> None:
        now = time.time()
        old = [(n, s) for n, s in version.retired if not 0 <= s <= now - GRACE]
        late = [n for n, s in version.retired if 0 <= s <= now - GRACE]
        version = dataclasses.replace(
            version,
            version=version.version + 1,
            retired=(*old, *((name, now) for name in gone)),
        )
        version.save(self.place)
        self.version = version
        for name in late:
            self.place.remove(name)

    def _put(self, name: str, write: Callable[[Path], None], rows: int) -> Part:
        seen: list[tuple[int, str]] = []

        def noted(path: Path) -> None:
            write(path)
            seen.append((path.stat().st_size, digest(path)))

        self.place.put(name, noted)
        size, sha256 = seen[0]
        return Part(name, rows, size, sha256)

    def _tidy(self) -> None:
        """Remove what a killed writer left: index files that no manifest names."""
        version = self.version
        named = {part.name for part in version.segments} | {name for name, _ in version.retired}
        named |= {part.name for part in (version.files, version.codes) if part is not None}
        for name in self.place.names():
            ours = name.startswith(("segments/", "files-", "codes-")) or name.endswith(".partial")
            if ours and name not in named:
                self.place.remove(name)


def open_segment(place: Place, part: Part) -> Segment:
    """Open a segment of a version; a damaged local copy of a remote one is downloaded again, once.

    Raises:
        ValueError: it is damaged.
        FileNotFoundError: it does not exist.
    """
    try:
        return Segment(part.name, place.local(part.name), part.rows, part.bytes)
    except ValueError:
        if not place.remote:
            raise
        place.drop_copy(part.name)
        return Segment(part.name, place.local(part.name), part.rows, part.bytes)


def load_codes(place: Place, version: Manifest) -> candidates.Codes | None:
    """The compressed vectors of a version; None if missing or damaged, since they can be recomputed."""
    if version.codes is None:
        return None
    try:
        codes = candidates.Codes.load(place.local(version.codes.name).read_bytes())
    except (OSError, ValueError):
        return None
    return codes if len(codes) == version.codes.rows else None


def sample_vectors(segments: Iterable[Segment], most: int = 65_536) -> Tensor:
    """Vectors for computing the mean: those of the first windows of each segment."""
    each = [one.vectors[:4096].flatten(0, 1).float() for one in segments]
    return torch.cat(each)[:most]


def _stamp() -> str:
    return f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"


def _bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
