"""The plots for a sweep's table."""

import math
from collections.abc import Sequence

from pipeline.sweeps.results import COLUMN_NAMES, SpaceResult, VariantResult
from tcmgc.reports.ablation_plots import Chart, Curve, charts
from tcmgc.reports.plots import svg


def pictures(found: SpaceResult) -> list[str]:
    """SVGs: score along the varied field, score against parameters, Figs. 7 and 8's panels."""
    drawn = []
    space = found.space
    if space.plot:
        drawn.append(_along(found))
    if "isa_parameters" in space.columns and found.rows[0].measured["isa_parameters"].values:
        drawn.append(_parameters(found))
    if "head.grains" in space.paths and "head.aggregate.scores" in space.paths and space.variants:
        drawn.append(_grains(found))
    return drawn


def _along(found: SpaceResult) -> str:
    field = found.space.plot
    rows = [row for row in found.rows if field in row.changes]
    logarithmic = field == "loss.scale" or field.endswith("heads")
    title = field.removeprefix("head.")
    panels = [
        Chart(
            f"ours: {found.data}, validation",
            title,
            _target(found),
            _curves(found, rows),
            logarithmic,
        )
    ]
    if paper := _paper_curves(found, rows):
        panels.append(Chart("paper: MSR-VTT 1k-A, test", title, _target(found), paper, logarithmic))
    return svg(charts(panels), f"{_target(found)} against {title}")


def _curves(found: SpaceResult, rows: Sequence[VariantResult]) -> list[Curve]:
    curves = []
    for name, members in _series(found, rows).items():
        scores = [row.measured[found.target] for row in members]
        curves.append(
            Curve(
                name,
                [float(row.changes[found.space.plot]) for row in members],
                [score.mean for score in scores],
                [score.spread for score in scores],
            )
        )
    return curves


def _paper_curves(found: SpaceResult, rows: Sequence[VariantResult]) -> list[Curve]:
    curves = []
    for name, members in _series(found, rows).items():
        told = [row for row in members if found.target in row.paper]
        if told:
            xs = [float(row.changes[found.space.plot]) for row in told]
            means = [float(row.paper[found.target]) for row in told]
            whole = len(told) == len(members)
            curves.append(Curve(name, xs, means, [math.nan] * len(told), joined=whole))
    return curves


def _series(found: SpaceResult, rows: Sequence[VariantResult]) -> dict[str, list[VariantResult]]:
    """Series of rows that differ only in the plotted field, in its order, named by their other values."""
    series: dict[str, list[VariantResult]] = {}
    for row in sorted(rows, key=lambda row: float(row.changes[found.space.plot])):
        others = [str(v) for path, v in row.changes.items() if path != found.space.plot]
        series.setdefault(", ".join(others), []).append(row)
    return series


def _parameters(found: SpaceResult) -> str:
    def points(rows: Sequence[VariantResult], ours: bool) -> Curve:
        if ours:
            xs = [row.measured["isa_parameters"].mean for row in rows]
            scores = [row.measured[found.target] for row in rows]
            means, spreads = [s.mean for s in scores], [s.spread for s in scores]
        else:
            xs = [float(row.paper["isa_parameters"]) for row in rows]
            means = [float(row.paper[found.target]) for row in rows]
            spreads = [math.nan] * len(rows)
        few = len(rows) <= 12
        notes = [row.label for row in rows] if few and found.space.variants else []
        return Curve("", xs, means, spreads, joined=False, notes=notes)

    label = "learnable numbers in ISA and Bi-ISA"
    panels = [
        Chart(
            f"ours: {found.data}, validation",
            label,
            _target(found),
            [points(found.rows, True)],
            logarithmic=True,
        )
    ]
    told = [row for row in found.rows if {"isa_parameters", found.target} <= set(row.paper)]
    if told:
        panels.append(
            Chart(
                "paper: MSR-VTT 1k-A, test",
                label,
                _target(found),
                [points(told, False)],
                logarithmic=True,
            )
        )
    return svg(charts(panels), f"{_target(found)} against parameters")


def _grains(found: SpaceResult) -> str:
    """One panel per aggregation, one position per experiment, with and without SDR."""
    panels = []
    for scores, title in (
        ("mean", "average (Fig. 7)"),
        ("softmax", "softmax (Fig. 8a)"),
        ("lsa", "linear softmax (Fig. 8b)"),
    ):
        rows = [
            row for row in found.rows if row.changes.get("head.aggregate.scores", scores) == scores
        ]
        curves = []
        for name, with_sdr in (("without SDR", False), ("with SDR", True)):
            members = [row for row in rows if ("loss.alpha" not in row.changes) == with_sdr]
            measured = [row.measured[found.target] for row in members]
            if members:
                places = [row.label.split()[0] for row in members]
                means, spreads = [m.mean for m in measured], [m.spread for m in measured]
                curves.append(Curve(name, places, means, spreads, joined=False))
        if curves:
            panels.append(Chart(title, "contrasts (Table 9)", _target(found), curves))
    text = f"{_target(found)} of every set of contrasts on {found.data}, validation"
    return svg(charts(panels, shared=True, columns=3), text)


def _target(found: SpaceResult) -> str:
    return COLUMN_NAMES[found.target]
