"""Retrieval metrics, both directions, from one matrix of similarities (NumPy).

The rank of the right item is one more than the number of items with a strictly higher score; an
item with an equal score does not change the rank and counts as a tie. The pessimistic rank puts
every tied item first. A model that gives all pairs the same score thus has perfect ranks and only ties.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

Metrics = dict[str, float]
"""Metrics by name: ``t2v/R1``, ``v2t/MdR``, ``SumR``, …"""

RECALLS = (1, 5, 10)
_ORDER = ("SumR", "R1", "R5", "R10", "RSum", "MdR", "MnR")
_ROWS = 1024  # texts processed together: some MB for any matrix


@dataclass(frozen=True)
class Ranks:
    """From 1, one per query."""

    optimistic: Int[np.ndarray, "queries"]
    """Tied items after the right one."""
    pessimistic: Int[np.ndarray, "queries"]
    """Tied items before the right one."""


def retrieval_metrics(
    similarity: Float[np.ndarray, "texts videos"],
    owner: Int[np.ndarray, "texts"],
    of_videos: Float[np.ndarray, "texts videos"] | None = None,
) -> Metrics:
    """R@1, R@5, R@10 in percent, MdR, MnR, RSum of both directions, and SumR.

    For ``t2v`` (every text searches its video) and ``v2t`` (every video searches its texts):
    ``R1``, ``R5``, ``R10`` are the percentages of queries whose right item has at most this rank,
    ``MdR`` and ``MnR`` the median and mean rank, ``RSum`` = R1 + R5 + R10. ``ties`` is the share
    (0 to 1) of queries for which another item has the same score as the right one;
    ``R1_pessimistic`` and ``MnR_pessimistic`` count ties as lost. ``candidates`` is the number of
    ranked items, on which chance level depends. ``SumR`` is the sum of both ``RSum``.

    Args:
        similarity: Scores of texts and videos, at any scale. It is not copied.
        owner: The column of each text's video.
        of_videos: Scores for video-to-text if they differ, as with score normalisation;
            None for the same.

    Raises:
        ValueError: as :func:`text_to_video` and :func:`video_to_text`.
    """
    metrics = {
        **_summary("t2v", text_to_video(similarity, owner)),
        **_summary("v2t", video_to_text(similarity if of_videos is None else of_videos, owner)),
    }
    metrics["t2v/candidates"] = float(np.shape(similarity)[1])
    metrics["v2t/candidates"] = float(len(np.unique(owner)))
    metrics["SumR"] = metrics["t2v/RSum"] + metrics["v2t/RSum"]
    return metrics


def text_to_video(
    similarity: Float[np.ndarray, "texts videos"], owner: Int[np.ndarray, "texts"]
) -> Ranks:
    """The rank of every text's video among all videos.

    Raises:
        ValueError: a score that is not finite (named by row and column), no texts, or owners
            that do not fit the matrix.
    """
    higher, equal = np.empty(len(owner), np.int64), np.empty(len(owner), np.int64)
    for rows, scores, columns in _blocks(similarity, owner):
        right = scores[np.arange(len(scores)), columns][:, None]
        higher[rows] = (scores > right).sum(1)
        equal[rows] = (scores == right).sum(1) - 1
    return Ranks(higher + 1, higher + 1 + equal)


def video_to_text(
    similarity: Float[np.ndarray, "texts videos"], owner: Int[np.ndarray, "texts"]
) -> Ranks:
    """The rank of every video's best text among every other video's best text.

    With several captions per video, its captions form one item with the score of the best one:
    best[v, u] = max over texts c of u of similarity[c, v], and the rank of v is 1 + the number of
    u with best[v, u] > best[v, v]. Videos without a text are not queries.

    Raises:
        ValueError: as :func:`text_to_video`.
    """
    videos = np.shape(similarity)[1]
    best = np.full((videos, videos), -np.inf, similarity.dtype)  # by text's owner, then video
    for _, scores, columns in _blocks(similarity, owner):
        for column, row in zip(columns, scores, strict=True):
            np.maximum(best[column], row, out=best[column])
    queries = np.unique(owner)
    found, right = best[np.ix_(queries, queries)], best[queries, queries]
    higher = (found > right).sum(0)
    equal = (found == right).sum(0) - 1
    return Ranks(higher + 1, higher + 1 + equal)


def chance(candidates: int) -> Metrics:
    """Expected metrics of a random ranking, by the names of :func:`retrieval_metrics`.

    R@k = 100 min(k, n) / n with n candidates, MdR = MnR = (n + 1) / 2; the same in both directions,
    since a video's captions count as one item (:func:`video_to_text`).

    Args:
        candidates: number of videos that are ranked for each text.

    Raises:
        ValueError: fewer than one candidate.
    """
    if candidates < 1:
        raise ValueError(f"candidates must be at least 1; got {candidates}")
    one = {f"R{k}": 100 * min(k, candidates) / candidates for k in RECALLS}
    one |= {"MdR": (candidates + 1) / 2, "MnR": (candidates + 1) / 2, "RSum": sum(one.values())}
    both = {f"{way}/{name}": value for way in ("t2v", "v2t") for name, value in one.items()}
    return {**both, "SumR": 2 * one["RSum"]}


def reported(metrics: Mapping[str, Any]) -> Metrics:
    """Metrics to display: SumR and recalls first, ties only if there are any.

    A share of ties of 0 and a pessimistic rank that equals the optimistic one are omitted; all
    others follow in their order. Names may have prefixes (``val/t2v/R1``).
    """

    def tells(name: str) -> bool:
        if name.endswith("/ties"):
            return metrics[name] != 0
        plain = name.removesuffix("_pessimistic")
        return plain == name or metrics.get(plain) != metrics[name]

    def place(name: str) -> int:
        last = name.rpartition("/")[2]
        return _ORDER.index(last) if last in _ORDER else len(_ORDER)

    return {name: float(metrics[name]) for name in sorted(filter(tells, metrics), key=place)}


def format_table(metrics: Metrics) -> str:
    """The papers' table for a terminal, with a line on ties if there are any."""
    names = ("R1", "R5", "R10", "MdR", "MnR", "RSum")
    lines = [f"{'':14}" + "".join(f"{title:>8}" for title in ("R@1", "R@5", "R@10", *names[3:]))]
    for direction, label in (("t2v", "text-to-video"), ("v2t", "video-to-text")):
        values = "".join(f"{metrics[f'{direction}/{name}']:8.1f}" for name in names)
        lines.append(f"{label:14}{values}")
    lines.append(f"{'SumR':14}{metrics['SumR']:>48.1f}")
    for direction, label in (("t2v", "text-to-video"), ("v2t", "video-to-text")):
        if metrics[f"{direction}/ties"]:
            lines.append(
                f"{label}: the right item is tied in {metrics[f'{direction}/ties']:.1%} of queries; "
                f"R@1 is {metrics[f'{direction}/R1_pessimistic']:.1f} if they lose"
            )
    return "\n".join(lines)


def format_chance(metrics: Metrics) -> str:
    """Chance level for comparison: a random order of the same number of candidates, one line per direction.

    Empty for metrics without the number of candidates.
    """
    if not {"t2v/candidates", "v2t/candidates"} <= metrics.keys():
        return ""
    lines = []
    for direction, what in (("t2v", "videos"), ("v2t", "videos' texts")):
        count = metrics[f"{direction}/candidates"]
        recalls = ", ".join(f"R@{k} {100 * min(k / count, 1.0):.1f}" for k in RECALLS)
        lines.append(f"chance, {count:.0f} {what}: {recalls}, median rank {(count + 1) / 2:.1f}")
    return (
        lines[0] if lines[0].partition(":")[2] == lines[1].partition(":")[2] else "\n".join(lines)
    )


def _blocks(
    similarity: Float[np.ndarray, "texts videos"], owner: Int[np.ndarray, "texts"]
) -> Iterator[tuple[slice, Float[np.ndarray, "rows videos"], Int[np.ndarray, "rows"]]]:
    """Yield some rows at a time, checked."""
    texts, videos = similarity.shape
    if texts == 0:
        raise ValueError("the similarity has no row: there is no text to rank videos for")
    if owner.min() < 0 or owner.max() >= videos:
        raise ValueError(
            f"owner must lie between 0 and {videos - 1}, the similarity's last column; "
            f"got {owner.min()} to {owner.max()}"
        )
    for start in range(0, texts, _ROWS):
        rows = slice(start, start + _ROWS)
        scores = similarity[rows]
        finite = np.isfinite(scores)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise ValueError(
                f"the similarity of text {start + row} and video {column} is "
                f"{scores[row, column]}: no rank can be given; look for the overflow that made it"
            )
        yield rows, scores, owner[rows]


def _summary(direction: str, ranks: Ranks) -> Metrics:
    best, worst = ranks.optimistic, ranks.pessimistic
    values = {f"R{k}": 100 * float((best <= k).mean()) for k in RECALLS}
    values["MdR"], values["MnR"] = float(np.median(best)), float(best.mean())
    values["RSum"] = sum(values[f"R{k}"] for k in RECALLS)
    values["ties"] = float((worst > best).mean())
    values["R1_pessimistic"] = 100 * float((worst == 1).mean())
    values["MnR_pessimistic"] = float(worst.mean())
    return {f"{direction}/{name}": value for name, value in values.items()}
