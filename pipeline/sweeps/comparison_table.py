"""A comparison's table: rows of measured methods and controls, as Markdown, CSV and cells of a page."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.sweeps.results import Measured
from tcmgc.retrieval.metrics import Metrics
from tune_spaces.published import METHODS, SOURCES, TABLES, Published

_NAMES = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MdR": "MdR", "MnR": "MnR", "RSum": "RSum"}
METRICS = {
    **{
        f"{way}/{name}": f"{way.upper()} {shown}"
        for way in ("t2v", "v2t")
        for name, shown in _NAMES.items()
    },
    "SumR": "SumR",
}
"""Columns of the paper's Tables 1 to 3, by the metric's name."""
COSTS = {"encoding_ms": "encode, ms a video", "similarity_ms": "similarity, ms a video"}
"""Additional columns: the paper states only the second one, on its own GPU."""


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    label: str
    measured: dict[str, Measured]
    """Values by metric, of the test split."""
    costs: dict[str, float] = field(default_factory=dict)
    paper: Published | None = None
    """The paper's row for this method, on the same data and towers."""
    note: str = ""
    """Description of a row that is not a trained method."""

    @property
    def seeds(self) -> int:
        """Number of measured trials."""
        return len(self.measured["SumR"].values)


def lines_of_methods(
    methods: Sequence[str],
    tests: Mapping[str, Sequence[Metrics]],
    costs: Mapping[str, dict[str, float]],
    data: str,
    tower: str,
) -> list[Line]:
    """One row per method that has a result, in the given order.

    Args:
        methods: Their names.
        tests: By method, test metrics of each seed.
        costs: By method.
        data: Name of the data set.
        tower: ``ViT-B/32``, ``ViT-B/16``, or empty if the paper has no such rows.
    """
    theirs = {METHODS.get(row.name): row for row in rows_of_paper(data, tower)} if tower else {}
    return [
        Line(
            method,
            {key: Measured(tuple(one[key] for one in tests[method])) for key in METRICS},
            costs.get(method, {}),
            theirs.get(method),
        )
        for method in methods
        if tests.get(method)
    ]


def line(label: str, metrics: Iterable[Metrics], note: str) -> Line:
    """A row that is not a trained method."""
    given = list(metrics)
    return Line(
        label, {key: Measured(tuple(one[key] for one in given)) for key in METRICS}, note=note
    )


def rows_of_paper(data: str, tower: str = "") -> list[Published]:
    """The paper's rows about a data set; with a tower, only those with it."""
    return [row for row in TABLES.get(data, ()) if not tower or row.tower == tower]


def verdict(one: Line, lines: Sequence[Line]) -> str:
    """The distance of a method's SumR from the best, and whether the seeds' spread could explain it."""
    trained = [line for line in lines if not line.note]
    if one.note or not trained:
        return one.note
    best = max(trained, key=lambda line: line.measured["SumR"].mean)
    if one is best:
        return "best"
    a, b = one.measured["SumR"], best.measured["SumR"]
    bound = math.hypot(a.spread, b.spread)
    gap = a.mean - b.mean
    if math.isnan(bound):
        return f"{gap:+.1f}, one seed: spread unknown"
    inside = "within" if abs(gap) <= bound else "beyond"
    return f"{gap:+.1f}, {inside} the seeds' spread"


def titles(lines: Sequence[Line]) -> list[str]:
    """Titles of the columns after the first."""
    paper = ["paper T2V R@1", "paper SumR"] if any(line.paper for line in lines) else []
    return ["to the best SumR", "seeds", *METRICS.values(), *paper, *COSTS.values()]


def cells(one: Line, lines: Sequence[Line]) -> list[str]:
    """A row below :func:`titles`."""
    found = [verdict(one, lines), str(one.seeds)]
    found += [_measured(one.measured[key]) for key in METRICS]
    if any(line.paper for line in lines):
        told = one.paper.figures if one.paper else {}
        found += [f"{told[key]:.1f}" if key in told else "" for key in ("t2v/R1", "SumR")]
    return found + [f"{one.costs[key]:.3g}" if key in one.costs else "" for key in COSTS]


def _measured(one: Measured) -> str:
    if math.isnan(one.mean):
        return ""
    return f"{one.mean:.1f}" + ("" if math.isnan(one.spread) else f" ± {one.spread:.1f}")


COST_COLUMNS: dict[str, tuple[str, float, str]] = {
    "parameters": ("parameters, M", 1e6, ".2f"),
    "trained": ("trained, M", 1e6, ".2f"),
    "counted_parameters": ("by the papers' counter, M", 1e6, ".2f"),
    "multiply_adds_video": ("multiply-adds: a video, G", 1e9, ".3g"),
    "multiply_adds_text": ("a caption, G", 1e9, ".3g"),
    "multiply_adds_pair": ("a pair, M", 1e6, ".3g"),
    "counted_multiply_adds": ("all by the papers' counter, G", 1e9, ".4g"),
    "step_ms": ("training step, ms", 1, ".0f"),
    "step_mb": ("its memory, MB", 1, ".0f"),
    "encoding_ms": ("encode, ms a video", 1, ".3g"),
    "similarity_ms": ("similarity, ms a video", 1, ".3g"),
}
"""Table 14's columns and more: title, divisor, format."""


def cost_cells(costs: Mapping[str, float]) -> list[str]:
    """A row below the titles of :data:`COST_COLUMNS`."""
    return [
        format(costs[key] / divisor, form) if key in costs else ""
        for key, (_, divisor, form) in COST_COLUMNS.items()
    ]


def paper_cells(row: Published) -> list[str]:
    """The paper's row: tower, venue, metrics, milliseconds."""
    name = row.tower or "no CLIP"
    trained = "trained again" if row.retrained else "quoted"
    metrics = [f"{row.figures[key]:.1f}" if key in row.figures else "–" for key in METRICS]
    speed = "–" if row.milliseconds is None else f"{row.milliseconds:.1f}"
    return [name, row.venue or "–", trained, *metrics, speed]


PAPER_TITLES = ["tower", "venue", "by the paper's authors", *METRICS.values(), "ms a video"]


def markdown(
    title: str, about: Sequence[str], lines: Sequence[Line], data: str, remarks: Sequence[str]
) -> str:
    """The whole comparison as Markdown."""
    parts = [f"# {title}", *about]
    parts.append(_table("method", titles(lines), {one.label: cells(one, lines) for one in lines}))
    parts.append("## Costs")
    heads = [head for head, _, _ in COST_COLUMNS.values()]
    priced = {one.label: cost_cells(one.costs) for one in lines if one.costs}
    parts.append(_table("method", heads, priced))
    if rows := rows_of_paper(data):
        parts.append(f"## The paper's {SOURCES[data]}: cited numbers, not measured here")
        named = {f"{row.name}, {row.tower or 'no CLIP'}": paper_cells(row) for row in rows}
        parts.append(_table("system", PAPER_TITLES, named))
    return "\n\n".join([*parts, *remarks]) + "\n"


def _table(first: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [f"| {first} | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(row) + " |" for name, row in rows.items()]
    return "\n".join(lines)


def write_csv(place: Path, lines: Sequence[Line]) -> None:
    """One number per cell: mean and standard deviation of every metric, costs, the paper's row."""
    heads: list[Any] = ["method", "note", "seeds"]
    for key in METRICS:
        heads += [f"{key} mean", f"{key} standard deviation", f"{key} paper"]
    heads += list(COST_COLUMNS)
    rows = [heads]
    for one in lines:
        row: list[Any] = [one.label, one.note, one.seeds]
        for key in METRICS:
            found = one.measured[key]
            row += ["" if math.isnan(value) else value for value in (found.mean, found.spread)]
            row.append("" if one.paper is None else one.paper.figures.get(key, ""))
        rows.append(row + [one.costs.get(key, "") for key in COST_COLUMNS])
    with place.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
