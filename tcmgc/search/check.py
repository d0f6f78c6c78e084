"""Check an index's files for damage, and measure what a search in two stages misses."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tcmgc.search import calibration
from tcmgc.search.index import Index
from tcmgc.search.place import digest
from tcmgc.search.query import CANDIDATES, Filters, Run

TOP = 10


@dataclass(frozen=True)
class Recall:
    """How much of the exact result the candidates contain."""

    candidates: int
    recall: float
    """Share of the exact best ten windows that are found, over all queries."""
    seconds: float
    """Median per query, after the text is encoded."""


def damage(index: Index) -> list[str]:
    """Damaged files of the index, each with a description of the damage."""
    found = list(index.problems)
    version = index.version
    others = [part for part in (version.files, version.codes) if part is not None]
    for part in (*version.segments, *others):
        try:
            path = index.place.local(part.name)
            if digest(path) != part.sha256:
                found.append(f"{path}: its content is not what was written")
        except OSError as error:
            if part not in version.segments:  # those are named already
                found.append(f"{index.place}/{part.name}: {error}")
    return found


def recall(
    index: Index, texts: Sequence[str] | None = None, counts: Sequence[int] = ()
) -> tuple[list[Recall], float]:
    """Recall@10 of windows in two stages, for several numbers of candidates; and seconds per exact query.

    Args:
        index: must have windows.
        texts: queries; None for the first 64 everyday queries.
        counts: numbers of candidates; if empty, the default number, a quarter and four times of it.
    """
    encoder = index.encoder
    text = encoder.texts(list(texts or calibration.queries(64)))
    allowed = np.flatnonzero(index.files_allowed(Filters()) >= 0)
    begun = time.perf_counter()
    exact = index.scores(text)[:, allowed].numpy()
    each = (time.perf_counter() - begun) / len(text)
    top = min(TOP, len(allowed))
    best = allowed[np.argsort(-exact, axis=1)[:, :top]]
    sizes = counts or sorted({CANDIDATES // 4, CANDIDATES, 4 * CANDIDATES})
    results = []
    run = Run(index, allowed, TOP)
    run.near(text[:1])  # warm-up: loads what is loaded only once
    for count in [size for size in sizes if size < len(allowed)]:
        run = replace(run, count=count)
        hits, seconds = 0, []
        for at in range(len(text)):
            begun = time.perf_counter()
            windows = run.near(text[at : at + 1])
            scores = index.scores(text[at : at + 1], windows)[0].numpy()
            found = windows[np.argsort(-scores)[:top]]
            seconds.append(time.perf_counter() - begun)
            hits += np.isin(best[at], found).sum()
        results.append(Recall(count, hits / best.size, float(np.median(seconds))))
    return results, each
