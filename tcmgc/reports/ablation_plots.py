"""Figures of sweeps: a score against the varied settings, with its spread over seeds."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from tcmgc.reports.plots import INK, MARKERS, SERIES, STYLE


@dataclass(frozen=True)
class Curve:
    """Points of one series, in the order of ``x``."""

    name: str
    x: Sequence[float | str]
    """Numbers, or names of positions along the axis."""
    mean: Sequence[float]
    spread: Sequence[float]
    """Half the height of each point's error bar; nan if there is none."""
    joined: bool = True
    notes: Sequence[str] = ()
    """Labels of the points."""


@dataclass(frozen=True)
class Chart:
    """One pair of axes."""

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    logarithmic: bool = False


def charts(panels: Sequence[Chart], *, shared: bool = False, columns: int = 2) -> Figure:
    """Charts side by side, ``columns`` in a row; ``shared`` gives all of them one vertical axis."""
    rows = math.ceil(len(panels) / columns)
    across = min(columns, len(panels))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * across, 3.4 * rows), layout="constrained")
        grid = figure.subplots(rows, across, squeeze=False, sharey=shared)
        for ax in grid.flat[len(panels) :]:
            ax.remove()
        for ax, panel in zip(grid.flat, panels, strict=False):
            _draw(ax, panel)
    return figure


def _draw(ax: Axes, panel: Chart) -> None:
    places = list(dict.fromkeys(x for curve in panel.curves for x in curve.x if isinstance(x, str)))
    for index, curve in enumerate(panel.curves):
        colour = SERIES[index % len(SERIES)]
        xs = [places.index(x) if isinstance(x, str) else x for x in curve.x]
        known = [0.0 if math.isnan(one) else one for one in curve.spread]
        ax.errorbar(
            xs,
            curve.mean,
            yerr=known if any(known) else None,
            color=colour,
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            linewidth=1.4 if curve.joined else 0,
            elinewidth=1.0,
            capsize=2.5,
            label=curve.name,
        )
        # Alternately above and below, so that labels of neighbours do not overlap.
        heights = itertools.cycle((5, -12, 17, -24))
        for x, y, note, height in zip(xs, curve.mean, curve.notes, heights, strict=False):
            ax.annotate(
                note,
                (x, y),
                xytext=(4, height),
                textcoords="offset points",
                fontsize=8,
                color=INK,
            )
    if panel.logarithmic:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    if places:
        ax.set_xticks(range(len(places)), places, rotation=60, ha="right")
    ax.set_title(panel.title, loc="left")
    ax.set_xlabel(panel.x)
    ax.set_ylabel(panel.y)
    ax.margins(x=0.08, y=0.12)
    ax.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
    ax.set_axisbelow(True)
    if len(panel.curves) > 1:
        ax.legend(frameon=False, fontsize=8.5)
