"""Figures: data in, a matplotlib figure out. Nothing is read, shown or written here.

Colours are distinguishable for colour-blind readers, on light and dark backgrounds. Elements outside
a series are drawn in :data:`INK`, which :func:`svg` replaces by the colour of the page's text.
"""

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK = "#1b2126"
SERIES = ("#2f7fc1", "#d9602f", "#1a9e75", "#b565a7", "#dd9a1c", "#56b4e9", "#868d96")
"""Blue, vermilion, green, purple, amber, sky, grey; after Okabe and Ito, of middle lightness."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_INCH = 96
"""Pixels per inch in a page."""
_POINTS = 200
"""Most pairs drawn as points; boxes use all."""
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "path",
    "svg.hashsalt": "tcmgc",
}
"""matplotlib's settings for every figure."""


@dataclass(frozen=True)
class Panel:
    """Distributions, one below the other."""

    title: str
    label: str
    """Label of the axis."""
    values: Mapping[str, Float[np.ndarray, "pairs"]]
    """Values by the name of their row."""
    limits: tuple[float, float] | None = None
    """Limits of the axis; None: from the values of all panels in the row."""


@dataclass(frozen=True)
class Cloud:
    """Points in a plane, in groups."""

    title: str
    points: Float[np.ndarray, "points 2"]
    group: Int[np.ndarray, "points"]
    """The group of each point, from 0."""
    name: str
    """Groups are ``NAME-0``, ``NAME-1``, … to :func:`svg`."""


def distributions(rows: Sequence[Sequence[Panel]]) -> Figure:
    """A grid of panels with one box per row and one point per pair.

    Boxes reach from quartile to quartile with the median inside, whiskers over 90% of the pairs;
    of more than 200 pairs every n-th is drawn as a point. Panels side by side share their axis.
    """
    height = sum(0.75 + 0.36 * max(len(panel.values) for panel in row) for row in rows)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, height), layout=ConstrainedLayoutEngine(wspace=0.08))
        grid = figure.subplots(len(rows), max(map(len, rows)), squeeze=False, sharex="row")
        for axes, row in zip(grid, rows, strict=True):
            for ax, panel in zip(axes, row, strict=True):
                _boxes(ax, panel)
            for ax in axes[1:]:
                ax.tick_params(labelleft=list(row[0].values) != list(row[-1].values))
    return figure


def clouds(panels: Sequence[Cloud]) -> Figure:
    """Point clouds side by side; a group has the same colour and shape in each of them.

    Seven colours and seven shapes distinguish 49 groups.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.6), layout="constrained")
        for ax, panel in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            for group in np.unique(panel.group):
                points = panel.points[panel.group == group]
                drawn = ax.scatter(
                    points[:, 0],
                    points[:, 1],
                    s=20,
                    color=SERIES[group % len(SERIES)],
                    marker=MARKERS[(group // len(SERIES)) % len(MARKERS)],
                    linewidths=0,
                    alpha=0.85,
                )
                drawn.set_gid(f"{panel.name}-{group}")
            ax.set_title(panel.title)
            ax.set_aspect("equal", "datalim")
            ax.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
            for spine in ax.spines.values():
                spine.set_visible(True)
                spine.set_alpha(0.3)
    return figure


def svg(figure: Figure, described: str, titles: Mapping[str, str] | None = None) -> str:
    """The figure as an ``<svg>`` for a page: text in the page's colour, with the available width.

    Args:
        figure: one of this module's.
        described: description for screen readers.
        titles: tooltips of groups, by the group's name.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    for name, title in (titles or {}).items():
        text = text.replace(
            f'<g id="{name}">', f'<g id="{name}"><title>{html.escape(title)}</title>'
        )
    # Between two thirds of its own size, below which it scrolls, and one and a half times that.
    pixels = figure.get_figwidth() * _INCH
    limits = f"min-width:{pixels * 2 / 3:.0f}px;max-width:{pixels * 1.5:.0f}px"
    return text.replace(
        "<svg",
        f'<svg role="img" aria-label="{html.escape(described)}" class="plot" style="{limits}"',
        1,
    )


def _boxes(ax: Axes, panel: Panel) -> None:
    rng = np.random.default_rng(0)
    for row, (colour, values) in enumerate(zip(_cycle(panel), panel.values.values(), strict=True)):
        points = values[:: -(-len(values) // _POINTS)]
        height = row + rng.uniform(-0.3, 0.3, len(points))
        ax.scatter(points, height, s=9, color=colour, alpha=0.35, linewidths=0, zorder=1)
        ink = {"color": INK, "linewidth": 1.1}
        ax.boxplot(
            values,
            positions=[row],
            orientation="horizontal",
            widths=0.5,
            whis=(5, 95),
            showfliers=False,
            manage_ticks=False,
            boxprops=ink,
            whiskerprops=ink,
            capprops=ink,
            medianprops={"color": colour, "linewidth": 3.0},
            zorder=2,
        )
    ax.set_yticks(range(len(panel.values)), list(panel.values))
    ax.set_ylim(len(panel.values) - 0.5, -0.5)
    ax.set_title(panel.title, loc="left")
    ax.set_xlabel(panel.label)
    ax.locator_params(axis="x", nbins=6)
    ax.grid(axis="x", color=INK, alpha=0.12, linewidth=0.8)
    ax.set_axisbelow(True)
    if panel.limits:
        ax.set_xlim(panel.limits)


def _cycle(panel: Panel) -> list[str]:
    return [SERIES[index % len(SERIES)] for index in range(len(panel.values))]
