"""Search: rank videos and their moments for a sentence."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from tcmgc.search import files
from tcmgc.search.calibration import CLOSE
from tcmgc.search.files import FileRow
from tcmgc.towers.features import TextFeatures

if TYPE_CHECKING:
    from tcmgc.search.index import Index

CANDIDATES = 2000
"""Default number of windows that are scored exactly in a large index."""
_WIDER = 4
"""Windows taken by compressed vectors for each one that is scored exactly."""
_MOMENTS = 3
"""Number of further moments shown per video."""
_LIKE = 32
"""Most vectors of a video that others are compared with."""


@dataclass(frozen=True)
class Filters:
    """Which videos may be found."""

    folder: str | None = None
    """Absolute path or URI: files in it or below."""
    longer_than: float | None = None
    """Shortest duration in seconds."""
    shorter_than: float | None = None
    after: float | None = None
    """Files changed at this Unix time or later."""
    before: float | None = None

    def apply(self, table: pa.Table) -> np.ndarray | None:
        """Which rows of an index's table of files pass; None if all do."""
        tests: list[Any] = []
        if self.folder is not None:
            start = os.fsencode(self.folder.rstrip("/") + "/")
            tests.append(pc.starts_with(table["path"], start))
        if self.longer_than is not None:
            tests.append(pc.greater(table["duration"], self.longer_than))
        if self.shorter_than is not None:
            tests.append(pc.less(table["duration"], self.shorter_than))
        if self.after is not None:
            tests.append(pc.greater_equal(table["modified"], _nanoseconds(self.after)))
        if self.before is not None:
            tests.append(pc.less(table["modified"], _nanoseconds(self.before)))
        if not tests:
            return None
        return np.logical_and.reduce([test.to_numpy() for test in tests])


@dataclass(frozen=True)
class Like:
    """An example that results should resemble: windows of the index, or vectors of a video not in it."""

    vectors: Float[Tensor, "vectors dim"]
    key: bytes = b""
    """Content excluded from the results: the video itself."""


@dataclass(frozen=True)
class Moment:
    """A window of a video."""

    start: float
    end: float
    """Seconds from the first frame."""
    score: float
    segment: str
    row: int
    """Row of the window in its segment."""


@dataclass(frozen=True)
class Match:
    """A video and its best moment."""

    rank: int
    moment: Moment
    file: FileRow
    place: float | None
    """Share of everyday queries whose best window scores lower; None if that is not meaningful."""
    others: tuple[Moment, ...] = ()
    """Further moments that do not overlap, best first."""
    copies: tuple[str, ...] = ()
    """Other files with the same content."""

    @property
    def state(self) -> str:
        """``""`` if the file is as it was indexed, else ``"missing"`` or ``"changed"``."""
        return files.state(self.file)


@dataclass(frozen=True)
class Answer:
    """The result for one query."""

    query: str
    matches: tuple[Match, ...]
    close: bool | None
    """Whether the best match stands out; None if it cannot be judged."""
    scored: int
    """Number of windows whose exact scores were computed."""
    windows: int
    """Number of windows that pass the filters."""
    notes: tuple[str, ...] = field(default=())


def search(
    index: "Index",
    texts: Sequence[str] | None,
    k: int,
    *,
    like: Like | None,
    without: str | None,
    filters: Filters,
    exact: bool | None,
    candidates: int | None,
) -> list[Answer]:
    """Rank videos with their best moments for each text, or for ``like`` alone.

    In an index of up to :data:`tcmgc.search.candidates.CODES_FROM` windows, every window gets its
    exact score. In a larger one, only windows whose vectors are nearest to the sentence do. Scores
    are exact in both cases; ``pipeline/index.py --check`` measures what the second case misses.

    Args:
        index: the index to search.
        texts: queries; None with ``like``.
        k: videos for each query.
        like: find what looks like this; with texts, what fits both.
        without: text to avoid: a window that fits it better than average loses as much in score.
        filters: which videos may be found.
        exact: score all windows, or candidates only; None decides by the index's size.
        candidates: number of windows scored exactly if not all are; more find more and take longer.

    Raises:
        ValueError: an empty query, no query at all, or a number out of range.
    """
    if k < 1:
        raise ValueError(f"the number of results must be at least 1; got {k}")
    if candidates is not None and candidates < 1:
        raise ValueError(f"candidates must be at least 1; got {candidates}")
    if texts is None and like is None:
        raise ValueError("nothing to search by: give a sentence, or a video to find similar ones")
    for text in texts or ():
        if not text.strip():
            raise ValueError("the query is empty; write what should be seen, such as 'a dog swims'")
    file_of = index.files_allowed(filters)
    if like is not None and like.key:
        file_of = file_of.copy()
        file_of[index.windows_of(like.key)] = -1
    allowed = np.flatnonzero(file_of >= 0)
    two_stage = index.large if exact is None else not exact
    count = candidates or max(CANDIDATES, k)
    two_stage = two_stage and len(allowed) > count
    run = Run(index, allowed, count if two_stage else None)
    found = run.similar(like) if texts is None else run.texts(texts, like, without)
    answers = []
    for at, (windows, order, scores) in enumerate(found):
        text = "" if texts is None else texts[at]
        matches = _group(index, windows, order, scores, k, file_of, with_place=texts is not None)
        close = None
        if matches and matches[0].place is not None and without is None and like is None:
            close = matches[0].place >= CLOSE
        notes = tuple(index.encoder.notes(text)) if text else ()
        answers.append(Answer(text, tuple(matches), close, len(windows), len(allowed), notes))
    return answers


def like_windows(index: "Index", windows: np.ndarray) -> Like:
    """Example for results that look like some windows of the index, all of one video."""
    segment, row = index.at(int(windows[0]))
    return Like(index.vectors(windows).flatten(0, 1)[:_LIKE], bytes(segment.keys[row]))


def like_file(index: "Index", path: str) -> Like:
    """Example for results that look like a file, which may be in the index or not.

    Raises:
        DecodeError: it is not in the index, and cannot be decoded.
    """
    known = index.file_at(path)
    if known is not None and not known[1].error and files.state(known[1]) == "":
        windows = index.windows_of(known[1].key)
        if len(windows):
            return like_windows(index, windows)
    from tcmgc.video import probe

    encoder, settings = index.encoder, index.version.settings
    spans = settings.windowing.cut(probe(path).duration)
    step = -(-len(spans) // 8)
    frames = [encoder.sample(path, span) for span in spans[::step]]
    vectors = encoder.vectors(encoder.video(frames), settings.vectors)
    return Like(vectors.flatten(0, 1).cpu()[:_LIKE], files.content_key(path))


_Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Scored windows, the values that rank them, and their scores."""


@dataclass(frozen=True)
class Run:
    """One search over the windows that pass the filters."""

    index: "Index"
    allowed: np.ndarray
    count: int | None
    """Windows scored exactly; None: all."""

    def texts(self, texts: Sequence[str], like: Like | None, without: str | None) -> list[_Found]:
        """Results for each text; ``like`` and ``without`` change the ranking."""
        encoder = self.index.encoder
        text = encoder.texts(texts)
        against = None if without is None else encoder.texts([without])
        whole = self.count is None and len(self.allowed) == self.index.starts[-1]
        found = []
        together = (
            self.index.scores(text, None if whole else self.allowed) if self.count is None else None
        )
        for at in range(len(texts)):
            if together is not None:
                windows, scores = self.allowed, together[at].numpy()
            else:
                windows = self.near(text[at : at + 1])
                scores = self.index.scores(text[at : at + 1], windows)[0].numpy()
            order = scores
            if against is not None or like is not None:
                order = self._standard(scores)
            if against is not None:
                unwanted = self.index.scores(against, windows)[0].numpy()
                order = order - np.maximum(self._standard(unwanted), 0)
            if like is not None:
                near = self._likeness(like, windows)
                order = order + (near - near.mean()) / (near.std() or 1.0)
            found.append((windows, order, scores))
        return found

    def similar(self, like: Like | None) -> list[_Found]:
        """Results for an example video alone."""
        assert like is not None
        windows = self.allowed if self.count is None else self._near(like.vectors)
        scores = self._likeness(like, windows)
        return [(windows, scores, scores)]

    def _likeness(self, like: Like, windows: np.ndarray) -> np.ndarray:
        """Mean over the example's vectors of the best cosine with a window's vectors."""
        if not len(windows):
            return np.empty(0, np.float32)
        return self.index.products(like.vectors, windows).mean(0).numpy()

    def near(self, text: TextFeatures) -> np.ndarray:
        """Numbers of the candidates for one text, ascending."""
        return self._near(F.normalize(text.sentence, dim=-1).cpu())

    def _near(self, queries: Float[Tensor, "queries dim"]) -> np.ndarray:
        """Numbers of the allowed windows whose vectors are nearest to one of the queries, ascending."""
        assert self.count is not None
        wide = self._by_codes(queries, self.count * _WIDER)
        best = self.index.products(queries, wide).amax(0)
        kept = best.topk(min(self.count, len(wide))).indices.numpy()
        return np.sort(wide[kept])

    def _by_codes(self, queries: Float[Tensor, "queries dim"], wanted: int) -> np.ndarray:
        """Allowed windows nearest by compressed vectors, ascending; all if there are not many more."""
        per, total = self.index.per_window, self.index.starts[-1]
        # Request more, in proportion to what the filters remove.
        ask = int(wanted * total / len(self.allowed)) * per
        if len(self.allowed) <= wanted or ask >= total * per // 4:
            return self.allowed
        _, places = self.index.codes().search(queries, ask)
        windows = np.unique(places[places >= 0] // per)
        return windows[np.isin(windows, self.allowed, assume_unique=True)]

    def _standard(self, scores: np.ndarray) -> np.ndarray:
        calibration = self.index.calibration
        if calibration is not None:
            return calibration.standard(scores)
        return (scores - scores.mean()) / (scores.std() or 1.0) if len(scores) else scores


def gathered(
    index: "Index",
    text: str,
    windows: np.ndarray,
    scores: np.ndarray,
    k: int,
    file_of: np.ndarray,
    allowed: int,
) -> Answer:
    """The answer to a text from the exact scores of all windows, or of those that :func:`shown` keeps.

    Args:
        index: the index that was searched.
        text: the query.
        windows: numbers of windows.
        scores: their scores.
        k: number of videos.
        file_of: result of :meth:`Index.files_allowed`.
        allowed: number of windows that pass the filters, all of which were scored.
    """
    matches = _group(index, windows, scores, scores, k, file_of, with_place=True)
    close = None
    if matches and matches[0].place is not None:
        close = matches[0].place >= CLOSE
    notes = tuple(index.encoder.notes(text))
    return Answer(text, tuple(matches), close, allowed, allowed, notes)


def shown(
    index: "Index", windows: np.ndarray, order: np.ndarray, k: int, file_of: np.ndarray
) -> np.ndarray:
    """Positions of the windows shown for the best ``k`` videos: each one's best and some further moments."""
    return np.array(
        [at for _, places in _best(index, windows, order, k, file_of) for at in places], np.int64
    )


def _best(
    index: "Index", windows: np.ndarray, order: np.ndarray, k: int, file_of: np.ndarray
) -> list[tuple[int, list[int]]]:
    """The best ``k`` files, each with positions of its best window and of others without overlap."""
    best: dict[int, None] = {}
    top = min(len(order), max(64, 8 * k))
    while True:
        best.clear()
        chosen = np.arange(len(order))
        if top < len(order):
            # Include all that are equal to the last one; otherwise the cut would choose among them.
            cut = np.partition(order, len(order) - top)[len(order) - top]
            chosen = np.flatnonzero(order >= cut)
        # Equal scores are ordered by window, so that results are deterministic.
        for at in chosen[np.lexsort((windows[chosen], -order[chosen]))]:
            best.setdefault(int(file_of[windows[at]]))
        if len(best) >= k or top >= len(order):
            break
        top = min(len(order), 4 * top)
    found = []
    files = file_of[windows]
    for row in list(best)[:k]:
        places = np.flatnonzero(files == row)  # also those below the cut
        places = places[np.lexsort((windows[places], -order[places]))]
        found.append((row, _apart(index, windows, places.tolist())))
    return found


def _apart(index: "Index", windows: np.ndarray, places: Sequence[int]) -> list[int]:
    kept: list[int] = []
    spans: list[tuple[float, float]] = []
    for at in places:
        segment, row = index.at(int(windows[at]))
        start, end = segment.spans[row]
        if all(end <= first or start >= last for first, last in spans):
            kept.append(at)
            spans.append((float(start), float(end)))
        if len(kept) > _MOMENTS:
            break
    return kept


def _group(
    index: "Index",
    windows: np.ndarray,
    order: np.ndarray,
    scores: np.ndarray,
    k: int,
    file_of: np.ndarray,
    with_place: bool,
) -> list[Match]:
    """The best ``k`` videos with their windows."""
    matches = []
    calibration = index.calibration if with_place else None
    for rank, (row, places) in enumerate(_best(index, windows, order, k, file_of), start=1):
        first, *others = (_moment(index, int(windows[at]), float(scores[at])) for at in places)
        file = index.file(row)
        place = None if calibration is None else calibration.place(first.score)
        copies = tuple(index.copies(file))
        matches.append(Match(rank, first, file, place, tuple(others), copies))
    return matches


def _nanoseconds(seconds: float) -> int:
    return max(-(2**63), min(int(seconds * 1e9), 2**63 - 1))


def _moment(index: "Index", window: int, score: float) -> Moment:
    segment, row = index.at(window)
    start, end = segment.spans[row]
    return Moment(float(start), float(end), score, segment.name, row)
