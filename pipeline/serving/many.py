"""Many queries over an index of any size: Ray Data distributes its segments over the cluster.

Every window is scored exactly. A worker maps one segment at a time and returns only what a result
may need, so memory depends on the number of queries and results and not on the index. All
windows of a video are in one segment, so the best videos of all segments are the best of the index.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy

from pipeline import cli
from tcmgc.datasets import Split
from tcmgc.search import Answer, Filters, Index
from tcmgc.search.query import gathered, shown
from tcmgc.search.segment import Segment

TEXTS = 256
"""Queries that a worker scores at a time."""


@dataclass(frozen=True)
class _Job:
    index: str
    version: int
    texts: Any
    """Reference to all queries."""
    k: int
    filters: Filters


def search_many(
    index: Index,
    texts: Sequence[str],
    k: int = 10,
    *,
    filters: Filters | None = None,
    workers: int = 0,
) -> Iterator[Answer]:
    """The exact answer of each query, in order; equal to ``index.search(texts, k, exact=True)``.

    Args:
        index: the index; workers open it by its path or URI.
        texts: queries.
        k: videos per query.
        filters: which videos may be found.
        workers: processes, one CPU each; 0 uses all CPUs of the cluster.

    Raises:
        ValueError: an empty query; gives its position.
    """
    for place, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"query {place + 1} of {len(texts)} is empty")
    filters = filters or Filters()
    job = _Job(index.place.folder, index.version.version, ray.put(list(texts)), k, filters)
    file_of = index.files_allowed(filters)
    held: list[tuple[np.ndarray, np.ndarray]] = [_nothing() for _ in texts]
    for row in _each_segment(index, _Best, job, len(texts), workers):
        segment = _start(index, row["segment"])
        for at, windows, scores in zip(
            range(row["first"], row["last"]), row["windows"], row["scores"], strict=True
        ):
            before = held[at]
            merged = np.concatenate([before[0], windows + segment])
            values = np.concatenate([before[1], scores])
            kept = shown(index, merged, values, k, file_of)
            held[at] = merged[kept], values[kept]
    allowed = int((file_of >= 0).sum())
    for text, (windows, scores) in zip(texts, held, strict=True):
        yield gathered(index, text, windows, scores, k, file_of, allowed)


def similarity(index: Index, texts: Sequence[str], split: Split, *, workers: int = 0) -> np.ndarray:
    """Similarities of texts and the clips of a split: for each clip, that of its best window.

    A window belongs to a clip if half of the shorter of the two is inside the other.

    Raises:
        ValueError: clips without a window in the index; gives their number and the first names.
    """
    columns = np.full(index.starts[-1], -1)
    missing = []
    for at, clip in enumerate(split.clips):
        known = index.file_at(clip.path)
        windows = np.empty(0, np.int64)
        if known is not None and not known[1].error:
            windows = index.windows_of(known[1].key)
        inside = [w for w in windows.tolist() if _belongs(index, w, clip.start, clip.end)]
        if inside:
            columns[inside] = at
        else:
            missing.append(clip.id)
    if missing:
        raise ValueError(
            f"{len(missing)} of the split's {len(split)} clips are not in the index ({', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}): "
            "index the folder that the split's videos lie in"
        )
    job = _Job(index.place.folder, index.version.version, ray.put(list(texts)), 0, Filters())
    result = np.full((len(texts), len(split)), -np.inf, np.float32)
    for row in _each_segment(index, _All, job, len(texts), workers):
        start = _start(index, row["segment"])
        scores = row["scores"]
        mine = columns[start : start + scores.shape[1]]
        part = result[row["first"] : row["last"]]
        for window in np.flatnonzero(mine >= 0):
            column = mine[window]
            part[:, column] = np.maximum(part[:, column], scores[:, window])
    return result


def _belongs(index: Index, window: int, start: float, end: float | None) -> bool:
    segment, row = index.at(window)
    first, last = segment.spans[row]
    stop = last if end is None else end
    shared = min(last, stop) - max(first, start)
    return bool(shared >= 0.5 * min(last - first, stop - start))


def _each_segment(
    index: Index, kind: type, job: _Job, texts: int, workers: int
) -> Iterator[dict[str, Any]]:
    tasks = [
        {"segment": one.name, "first": first, "last": min(first + TEXTS, texts)}
        for one in index.segments
        for first in range(0, texts, TEXTS)
    ]
    if not tasks:
        return
    cpus = int(ray.cluster_resources().get("CPU", 1))
    size = min(workers or cpus, len(tasks))
    rows = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
        kind,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="numpy",
        compute=ActorPoolStrategy(size=size),
        num_cpus=1,
    )
    for row in rows.iter_rows():
        yield ray.cloudpickle.loads(row["result"])


class _Worker:
    """Holds the index and the queries' features."""

    def __init__(self, job: _Job) -> None:
        cli.quiet()
        self.job = job
        self.index = Index.open(job.index)
        if self.index.version.version != job.version:
            raise ValueError(f"{self.index.place} was changed while it was searched; search again")
        self.features: dict[int, Any] = {}
        self.file_of = self.index.files_allowed(job.filters)
        self.texts: list[str] = ray.get(job.texts)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """The results of one segment for some queries."""
        name, first, last = str(rows["segment"][0]), int(rows["first"][0]), int(rows["last"][0])
        if first not in self.features:
            self.features = {first: self.index.encoder.texts(self.texts[first:last])}
        result = {
            "segment": name,
            "first": first,
            "last": last,
            **self.of(_segment(self.index, name), self.features[first]),
        }
        return {"result": [ray.cloudpickle.dumps(result)]}

    def of(self, segment: Segment, text: Any) -> dict[str, Any]:
        raise NotImplementedError


class _Best(_Worker):
    """The windows that an answer would show."""

    def of(self, segment: Segment, text: Any) -> dict[str, Any]:
        start = _start(self.index, segment.name)
        allowed = start + np.flatnonzero(self.file_of[start : start + len(segment)] >= 0)
        scores = self.index.scores(text, allowed).numpy()
        kept = [shown(self.index, allowed, row, self.job.k, self.file_of) for row in scores]
        return {
            "windows": [allowed[places] - start for places in kept],
            "scores": [row[places] for row, places in zip(scores, kept, strict=True)],
        }


class _All(_Worker):
    """All scores."""

    def of(self, segment: Segment, text: Any) -> dict[str, Any]:
        start = _start(self.index, segment.name)
        return {"scores": self.index.scores(text, np.arange(start, start + len(segment))).numpy()}


def _segment(index: Index, name: str) -> Segment:
    return next(one for one in index.segments if one.name == name)


def _start(index: Index, name: str) -> int:
    return int(index.starts[[one.name for one in index.segments].index(name)])


def _nothing() -> tuple[np.ndarray, np.ndarray]:
    return np.empty(0, np.int64), np.empty(0, np.float32)
