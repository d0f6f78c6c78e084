"""The service of one replica: one index, kept up to date, and all requests on it."""

import collections
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from pipeline.serving import answers
from pipeline.serving.labels import Labels
from pipeline.serving.media import Clips
from tcmgc import storage
from tcmgc.search import Filters, Index, like_windows
from tcmgc.search.explain import explain
from tcmgc.search.files import FileRow, state
from tcmgc.search.segment import Segment
from tcmgc.search.strips import strip

REFRESH = 5.0
"""Seconds between checks for a new version of the index."""
LONGEST = 10_000
"""Most characters of a query."""
_HEIGHT = 160


class SearchRequest(BaseModel):
    """A search: a sentence, or a window to find similar ones, or both."""

    query: str | None = Field(None, max_length=LONGEST, description="What should be seen.")
    top: int = Field(20, ge=1, le=200, description="Videos wanted.")
    like: str | None = Field(None, description="Id of a window that results should look like.")
    without: str | None = Field(None, max_length=LONGEST, description="What should not be seen.")
    folder: str | None = Field(None, description="Only videos in this folder or below it.")
    longer_than: float | None = Field(None, description="Only videos of more seconds.")
    shorter_than: float | None = Field(None, description="Only videos of fewer seconds.")
    after: float | None = Field(None, description="Only files changed at this Unix time or later.")
    before: float | None = Field(None, description="Only files changed before this Unix time.")
    exact: bool | None = Field(None, description="Score every window; null decides by the size.")
    candidates: int | None = Field(None, ge=1, description="Windows scored exactly otherwise.")


class LabelRequest(BaseModel):
    """A judgement of a result."""

    id: str
    query: str = Field(min_length=1, max_length=LONGEST)
    right: bool


class GoneError(LookupError):
    """A window, or its file, that no longer exists."""


class Service:
    """An index for the page and for programs; methods are thread-safe.

    Args:
        path: the index.
        labels: folder of the tables of labels.

    Raises:
        ValueError: there is no index, or it has another format.
    """

    def __init__(self, path: str, labels: str) -> None:
        self._index = Index.open(path)
        self._labels = labels
        self._looked = time.monotonic()
        self._lock = threading.Lock()
        self.clips = Clips()
        if len(self._index):
            self._index.search("a first query loads what is loaded once", 1)

    @property
    def index(self) -> Index:
        """The index's version of now, or of some seconds ago."""
        if time.monotonic() - self._looked > REFRESH and self._lock.acquire(blocking=False):
            try:
                self._index = self._index.refreshed()
            except (ValueError, OSError):
                pass  # unavailable or damaged: keep the open version
            finally:
                self._looked = time.monotonic()
                self._lock.release()
        return self._index

    def about(self) -> dict[str, Any]:
        """A description of the index."""
        index = self.index
        version = index.version
        return {
            "index": str(index.place),
            "videos": len(np.unique(index.file_of[index.file_of >= 0])),
            "windows": len(index),
            "version": version.version,
            "model": version.model,
            "roots": list(version.roots),
            "problems": list(index.problems),
            "attends": bool(index.encoder.head.attends),
        }

    def search(self, requests: Sequence[SearchRequest]) -> list[dict[str, Any] | Exception]:
        """An answer or an error for each; requests that differ only in the query are scored together."""
        groups: dict[str, list[int]] = collections.defaultdict(list)
        for at, request in enumerate(requests):
            same = request.model_dump_json(exclude={"query"})
            groups[same if request.query else f"{same} {at}"].append(at)
        found: list[dict[str, Any] | Exception] = [ValueError("not answered")] * len(requests)
        for places in groups.values():
            begun = time.perf_counter()
            try:
                given = self._search([requests[at] for at in places])
            except (ValueError, LookupError) as error:
                given = [error] * len(places)
            took = round(1e3 * (time.perf_counter() - begun), 1)
            for at, answer in zip(places, given, strict=True):
                found[at] = answer if isinstance(answer, Exception) else {**answer, "took_ms": took}
        return found

    def _search(self, requests: Sequence[SearchRequest]) -> list[dict[str, Any] | Exception]:
        index, first = self.index, requests[0]
        texts = [request.query for request in requests if request.query is not None]
        like = None
        if first.like is not None:
            segment, row, _ = self.window(first.like, index)
            like = like_windows(index, np.array([index.find(segment.name, row)]))
        found = index.search(
            texts or None,
            first.top,
            like=like,
            without=first.without,
            filters=Filters(
                folder=first.folder,
                longer_than=first.longer_than,
                shorter_than=first.shorter_than,
                after=first.after,
                before=first.before,
            ),
            exact=first.exact,
            candidates=first.candidates,
        )
        usual = None
        if index.calibration is not None and like is None:
            usual = index.calibration.mean
        more = {"problems": index.problems, "usual": usual}
        return [{**answers.to_json(answer), **more} for answer in found]

    def window(self, id: str, index: Index | None = None) -> tuple[Segment, int, FileRow]:
        """The window with an id from an answer.

        Raises:
            GoneError: there is none, or no longer.
        """
        index = index or self.index
        stem, _, row = id.partition(".")
        number = None
        if row.isdecimal() and len(row) < 10:
            number = index.find(f"segments/{stem}.safetensors", int(row))
        if number is None:
            raise GoneError("the index has changed and has no such moment any more; search again")
        segment, at = index.at(number)
        return segment, at, index.file(int(index.file_of[number]))

    def strip(self, id: str) -> bytes:
        """A window's stored thumbnail strip."""
        segment, row, _ = self.window(id)
        return segment.strip(row)

    def frames(self, id: str) -> bytes:
        """All of the model's frames of a window side by side, decoded from its file.

        Raises:
            GoneError: the file has changed since it was indexed.
            DecodeError: it cannot be decoded.
        """
        index = self.index
        segment, row, file = self.window(id, index)
        if state(file):
            raise GoneError(f"the file is {state(file)} since it was indexed")
        start, end = segment.spans[row]
        frames = index.encoder.sample(file.path, (float(start), float(end)), 60.0)
        return strip(frames.pixels, len(frames), _HEIGHT)

    def clip(self, id: str) -> bytes:
        """A window as an MP4 that any browser plays.

        Raises:
            GoneError: no such window.
            DecodeError: it cannot be decoded.
        """
        segment, row, file = self.window(id)
        start, end = segment.spans[row]
        return self.clips.get(file, float(start), float(end))

    def explain(self, id: str, query: str) -> dict[str, Any]:
        """Explain the score of a query and a window."""
        index = self.index
        segment, row, _ = self.window(id, index)
        number = index.find(segment.name, row)
        assert number is not None
        found = explain(index, query, number)
        start = float(segment.spans[row][0])
        rounded = lambda x: None if x is None else np.round(x, 4).tolist()  # noqa: E731
        return {
            "score": round(found.score, 6),
            "contrasts": [
                {"name": c.name, "score": round(c.score, 6), "weight": rounded(c.weight)}
                for c in found.contrasts
            ],
            "times": [round(max(time, start), 3) for time in found.times],
            "words": list(found.words),
            "sentence_weights": rounded(found.sentence_weights),
            "word_weights": rounded(found.word_weights),
        }

    def label(self, request: LabelRequest) -> None:
        """Store a judgement.

        Raises:
            ValueError: labels of this video cannot be stored.
            OSError: the tables cannot be written.
        """
        segment, row, file = self.window(request.id)
        start, end = segment.spans[row]
        roots = tuple(root for root in self.index.version.roots if not storage.is_uri(root))
        Labels(self._labels, roots).add(
            file.path, float(start), float(end), request.query, request.right
        )
