"""Figures: what is drawn is what was given, and no text lies on another."""

import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure

from tcmgc.reports import plots

NAMES = ("video–sentence", "video–word", "sentence–frame", "frame–word")


def panel(title: str, pairs: int, seed: int = 0, **options: tuple[float, float]) -> plots.Panel:
    values = np.random.default_rng(seed).normal(0.3, 0.1, (len(NAMES), pairs))
    return plots.Panel(title, "similarity", dict(zip(NAMES, values, strict=True)), **options)


def cloud(name: str, groups: int) -> plots.Cloud:
    points = np.random.default_rng(0).normal(size=(groups * 5, 2))
    return plots.Cloud(name, points, np.repeat(np.arange(groups), 5), name)


class Watching(RendererAgg):
    """Knows the texts that it drew."""

    def draw_text(self, *arguments: Any, **options: Any) -> None:
        self.__dict__.setdefault("texts", []).append(options["mtext"])
        super().draw_text(*arguments, **options)


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    renderer = Watching(*figure.bbox.size, figure.dpi)
    FigureCanvasAgg(figure)
    figure.draw(renderer)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in renderer.texts]
    return [(a, b) for (a, x), (b, y) in itertools.combinations(boxes, 2) if x.overlaps(y)]


@pytest.mark.parametrize("pairs", [1, 2, 500])
@pytest.mark.parametrize("columns", [1, 2])
def test_no_text_of_a_grid_overlaps(columns: int, pairs: int) -> None:
    row = [panel("compared, without SDR (α = 0.05)", pairs, seed) for seed in range(columns)]
    shares = [panel("checkpoint, with SDR (α = 0.5)", pairs, limits=(0.0, 1.0))] * columns
    assert overlaps(plots.distributions([row, shares])) == []


def test_overlap_would_be_seen() -> None:
    figure = plots.distributions([[panel("a title", 5)]])
    figure.text(0.5, 0.5, "one")
    figure.text(0.5, 0.5, "two")
    assert ("one", "two") in overlaps(figure)


def test_boxes_are_the_quartiles_and_points_the_values() -> None:
    given = panel("", 101)
    (ax,) = plots.distributions([[given]]).axes
    medians = [line.get_xdata()[0] for line in ax.lines if line.get_linewidth() == 3.0]
    assert medians == pytest.approx([np.median(values) for values in given.values.values()])
    points = [collection.get_offsets().data[:, 0] for collection in ax.collections]
    np.testing.assert_array_equal(points, list(given.values.values()))


def test_of_many_pairs_some_are_drawn_and_all_are_counted() -> None:
    given = panel("", 1001)
    (ax,) = plots.distributions([[given]]).axes
    assert {len(collection.get_offsets()) for collection in ax.collections} == {167}
    medians = [line.get_xdata()[0] for line in ax.lines if line.get_linewidth() == 3.0]
    assert medians == pytest.approx([np.median(values) for values in given.values.values()])


def test_groups_of_points_are_told_apart() -> None:
    left, right = plots.clouds([cloud("words", 49), cloud("frames", 49)]).axes
    looks = [
        [(str(c.get_facecolor()), c.get_paths()[0].vertices.tobytes()) for c in ax.collections]
        for ax in (left, right)
    ]
    assert len(set(looks[0])) == 49
    assert looks[0] == looks[1]
    assert overlaps(left.figure) == []


def test_an_svg_is_part_of_a_page() -> None:
    figure = plots.clouds([cloud("words", 3)])
    text = plots.svg(figure, 'a "cloud"', {"words-1": "<b> & co", "words-9": "not there"})
    assert text.startswith('<svg role="img" aria-label="a &quot;cloud&quot;" class="plot"')
    assert '<g id="words-1"><title>&lt;b&gt; &amp; co</title>' in text
    assert "not there" not in text
    assert "currentColor" in text
    assert plots.INK not in text


def test_the_same_data_give_the_same_bytes() -> None:
    one, other = (plots.svg(plots.distributions([[panel("title", 20)]]), "") for _ in range(2))
    assert one == other
