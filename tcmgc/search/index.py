"""An index as seen by a reader: one memory-mapped version, unaffected by concurrent writes."""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Float
from torch import Tensor

from tcmgc.heads import scan
from tcmgc.search import files, manifest
from tcmgc.search.calibration import Calibration
from tcmgc.search.candidates import CODES_FROM, Codes, best_product
from tcmgc.search.encoder import Encoder
from tcmgc.search.files import KEY_BYTES, FileRow
from tcmgc.search.manifest import Manifest
from tcmgc.search.place import Place
from tcmgc.search.query import Answer, Filters, Like, search
from tcmgc.search.segment import Segment, key_array
from tcmgc.search.writer import MODEL, load_codes, open_segment, sample_vectors
from tcmgc.towers.features import TextFeatures
from tcmgc.training import checkpoint

_TOGETHER = 4096
"""Number of windows scored at a time."""
_TRIES = 5


class Index:
    """A searchable index of windows of videos. Created by :meth:`open`; thread-safe.

    Windows are numbered consecutively over all segments; windows of removed videos keep their
    numbers, but are never found.
    """

    def __init__(self, place: Place, version: Manifest, segments: dict[str, Segment | str]) -> None:
        self.place = place
        self.version = version
        self._opened = segments
        self.segments = [one for one in segments.values() if isinstance(one, Segment)]
        self.problems = [one for one in segments.values() if isinstance(one, str)]
        """Damaged files of the index with descriptions; the rest is searched."""
        self.table = self._read_files()
        self.starts = np.cumsum([0, *(len(one) for one in self.segments)])
        """Number of each segment's first window, and their count."""
        keys = [one.keys for one in self.segments]
        self._keys = np.concatenate(keys) if keys else np.empty((0, KEY_BYTES), np.uint8)
        self.file_of = self._files_of(np.arange(self.table.num_rows))
        """The file of each window, as a row of :attr:`table`; -1 if it has none any more."""
        self.calibration = Calibration.from_dict(version.calibration)
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._codes: Codes | None = None

    @classmethod
    def open(cls, path: str, *, mirror: str | None = None) -> "Index":
        """Open the current version of the index in a folder or at a URI.

        Args:
            path: local path or URI.
            mirror: folder for local copies of a remote index's files.

        Raises:
            ValueError: there is no index, or it has another format version.
        """
        return cls._open(Place(path, mirror), {})

    @classmethod
    def _open(cls, place: Place, known: dict[str, Segment | str]) -> "Index":
        for _ in range(_TRIES):
            version = manifest.load(place)
            segments: dict[str, Segment | str] = {}
            for part in version.segments:
                held = known.get(part.name)
                try:
                    segments[part.name] = (
                        held if isinstance(held, Segment) else open_segment(place, part)
                    )
                except (ValueError, OSError) as error:
                    segments[part.name] = (
                        f"{error}; its videos are not found until they are indexed again"
                    )
            # A version that was replaced while it was opened may have lost files: try again.
            if manifest.load(place).version == version.version:
                break
        return cls(place, version, segments)

    def refreshed(self) -> "Index":
        """The index's current version; this object if it has not changed."""
        if manifest.load(self.place).version == self.version.version:
            return self
        new = self._open(self.place, self._opened)
        new._encoder = self._encoder
        return new

    def __len__(self) -> int:
        """Number of windows that can be found."""
        return int((self.file_of >= 0).sum())

    @property
    def encoder(self) -> Encoder:
        """The index's model, loaded on first use.

        Raises:
            ValueError: the index's copy of it is damaged.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = Encoder.load(model_folder(self.place))
            return self._encoder

    def use(self, encoder: Encoder) -> None:
        """Use a model that is already loaded; it must be this index's."""
        self._encoder = encoder

    def search(
        self,
        texts: str | Sequence[str] | None = None,
        k: int = 10,
        *,
        like: Like | None = None,
        without: str | None = None,
        filters: Filters | None = None,
        exact: bool | None = None,
        candidates: int | None = None,
    ) -> list[Answer]:
        """The best ``k`` videos for each text, each with its best moment. See :func:`tcmgc.search.query.search`."""
        return search(
            self,
            [texts] if isinstance(texts, str) else texts,
            k,
            like=like,
            without=without,
            filters=filters or Filters(),
            exact=exact,
            candidates=candidates,
        )

    @torch.inference_mode()
    def scores(
        self, text: TextFeatures, windows: np.ndarray | None = None
    ) -> Float[Tensor, "texts windows"]:
        """Exact similarities of texts with all windows, or with those of the given numbers, ascending."""
        encoder = self.encoder

        def blocks() -> Iterator[Any]:
            for segment, at in self._parts(windows):
                for rows in segment.records(at).split(_TOGETHER):
                    yield encoder.layout.record(rows).to(encoder.device)

        scale = encoder.model.scale()
        found = [part.cpu() for part in scan(encoder.head, text, blocks(), scale)]
        return torch.cat(found, 1) if found else torch.empty(len(text), 0)

    def products(
        self, queries: Float[Tensor, "queries dim"], windows: np.ndarray | None = None
    ) -> Float[Tensor, "queries windows"]:
        """Best product of each query with each window's vectors, for all windows or some, ascending."""
        parts = self._parts(windows)
        return best_product(
            queries, [s.vectors if at is None else s.vectors[at] for s, at in parts]
        )

    def vectors(self, windows: np.ndarray) -> Float[Tensor, "windows vectors dim"]:
        """Vectors of some windows, ascending."""
        return torch.cat([s.vectors[at] for s, at in self._parts(windows)]).float()

    def codes(self) -> Codes:
        """Compressed vectors of all windows; those of window w start at w times :attr:`per_window`."""
        with self._lock:
            if self._codes is None:
                self._codes = self._load_codes()
            return self._codes

    @property
    def per_window(self) -> int:
        """Number of vectors per window."""
        return self.segments[0].vectors.shape[1] if self.segments else 1

    @property
    def large(self) -> bool:
        """Whether a search finds candidates first by default."""
        return int(self.starts[-1]) >= CODES_FROM

    def at(self, window: int) -> tuple[Segment, int]:
        """The segment that contains a window, and its row there."""
        which = int(np.searchsorted(self.starts, window, side="right")) - 1
        return self.segments[which], int(window - self.starts[which])

    def find(self, segment: str, row: int) -> int | None:
        """Number of the window at a row of a segment (which identify it in all versions); None if it is gone."""
        for start, one in zip(self.starts, self.segments, strict=False):
            if one.name == segment and 0 <= row < len(one) and self.file_of[start + row] >= 0:
                return int(start + row)
        return None

    def file(self, row: int) -> FileRow:
        """One row of the table of files."""
        return files.rows(self.table.slice(row, 1))[0]

    def file_at(self, path: str) -> tuple[int, FileRow] | None:
        """The row of the file at a path; None if the index has none."""
        matches = pc.equal(self.table["path"], pa.scalar(os.fsencode(path), pa.binary()))
        places = np.flatnonzero(matches.to_numpy())
        return (int(places[0]), self.file(int(places[0]))) if len(places) else None

    def copies(self, row: FileRow) -> list[str]:
        """Other files with the same content."""
        same = pc.equal(self.table["key"], pa.scalar(row.key, pa.binary()))
        paths = self.table["path"].filter(same).to_pylist()
        return [path for path in map(os.fsdecode, paths) if path != row.path]

    def windows_of(self, key: bytes) -> np.ndarray:
        """Numbers of the windows with this content."""
        return np.flatnonzero((self._keys == np.frombuffer(key, np.uint8)).all(1))

    def files_allowed(self, filters: Filters) -> np.ndarray:
        """:attr:`file_of`, restricted to files that pass the filters."""
        allowed = filters.apply(self.table)
        return self.file_of if allowed is None else self._files_of(np.flatnonzero(allowed))

    def _files_of(self, chosen: np.ndarray) -> np.ndarray:
        """For each window, the chosen file that has its content; -1 for none."""
        if not len(self._keys):
            return np.empty(0, np.int64)
        usable = chosen[pc.equal(self.table["error"], "").to_numpy()[chosen]]
        if not len(usable):
            return np.full(len(self._keys), -1)
        known = self.table["key"].combine_chunks().take(pa.array(usable))
        found = pc.index_in(key_array(self._keys), value_set=known.cast(pa.binary(KEY_BYTES)))
        places = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.where(places < 0, -1, usable[np.maximum(places, 0)])

    def _parts(self, windows: np.ndarray | None) -> list[tuple[Segment, Tensor | None]]:
        """Segments with the requested rows in each; None means all."""
        if windows is None:
            return [(one, None) for one in self.segments]
        cuts = np.searchsorted(windows, self.starts)
        rows = [windows[a:b] - s for a, b, s in zip(cuts, cuts[1:], self.starts, strict=False)]
        parts = zip(self.segments, rows, strict=True)
        return [
            # A complete segment is read in place: a copy would cost more than the computation on it.
            (one, None if len(at) == len(one) else torch.from_numpy(at))
            for one, at in parts
            if len(at)
        ]

    def _load_codes(self) -> Codes:
        names = [one.name for one in self.segments]
        coded = list(self.version.coded)
        codes = load_codes(self.place, self.version) if names[: len(coded)] == coded else None
        if codes is None:
            codes, coded = Codes.train(sample_vectors(self.segments)), []
        for one in self.segments[len(coded) :]:
            codes.add(one.vectors.flatten(0, 1))
        return codes

    def _read_files(self) -> pa.Table:
        part = self.version.files
        content = None if part is None else self.place.read(part.name)
        try:
            if content is not None:
                return files.from_parquet(content)
            problem = None if part is None else "is not there"
        except ValueError as error:
            problem = str(error)
        if problem and part:
            self.problems.append(f"{self.place}/{part.name}: {problem}; index the videos again")
        return files.from_parquet(files.to_parquet([]))


def model_folder(place: Place) -> Path:
    """Local path of the index's model.

    Raises:
        ValueError: the index has no model.
    """
    names = [
        name.removeprefix(f"{MODEL}/") for name in place.names() if name.startswith(f"{MODEL}/")
    ]
    wanted = {checkpoint.CONFIG, checkpoint.WEIGHTS}
    if not wanted <= set(names):
        raise ValueError(
            f"{place}/{MODEL} is damaged: {', '.join(sorted(wanted - set(names)))} missing"
        )
    paths = [place.local(f"{MODEL}/{name}") for name in names]  # downloads a remote one's files
    return paths[0].parent
