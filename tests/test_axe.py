"""axe-core finds nothing in any page, light and dark, on a desktop and on a phone."""

import re

import browser
import numpy as np
import pytest

from pipeline import report
from pipeline.sweeps.results import Measured, SpaceResult, VariantResult
from tcmgc.reports import plots
from tcmgc.reports.pages import cards, page
from tune_spaces import SPACES

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 3, 32, 32)).astype(np.uint8)


def inspection() -> str:
    """Every part that a checkpoint's page has, with captions and ids that are hard to show."""
    long, id = "a person walks and " * 40, "a_very_long_clip_id_" * 3
    results = [
        cards.Result(id, 3, 0.5, "hit", long, frames(6)),
        cards.Result("b", 1, 0.6, "miss", "猴子在树上", frames(2)),
        cards.Result("c", 4, 0.1, "other", "رجل يرتدي قبعة", frames(1)),
    ]
    rng = np.random.default_rng(0)
    sentence, *words = rng.dirichlet(np.full(13, 0.2), 9)
    spelt = [(f"word {n}", row) for n, row in enumerate(words)]
    weights = cards.Weights(
        long, id, frames(12), np.arange(12.0), sentence, spelt, True, read=120, padded=4
    )
    drawn = plots.svg(
        plots.distributions([[plots.Panel("a", "x", {"one": rng.normal(size=50)})]]), "boxes"
    )
    table = page.table(["a–b", "c"], {"first": ["1", "2"]}, "weights", "logit of")
    sections = [
        page.Section("Retrieved", "about", page.card(cards.retrieval(long, "note", results, 120))),
        page.Section("Attention", "about", page.card(cards.attention(weights))),
        page.Section("Numbers", "about", page.card(page.plot(drawn, "boxes") + table)),
        page.Section("Left out", "there is nothing to show"),
    ]
    return page.page("Inside run/checkpoint", {"checkpoint": "/a/" * 40, "data": "demo"}, sections)


def swept() -> str:
    """A sampled sweep's report and a table's."""

    def result(name: str, rows: list[VariantResult]) -> SpaceResult:
        return SpaceResult(
            SPACES[name], "demo", "abc", len(rows), "2", False, True, 100, tuple(rows)
        )

    def row(label: str, score: float, changes: dict, values: dict) -> VariantResult:
        measured = {column: Measured((score, score + 1)) for column in SPACES["joint"].columns}
        return VariantResult(label, measured, {"SumR": 410.1}, changes, values, 0)

    samples = [
        row(f"sample {n}", 300.0 + n, {}, {"loss.alpha": f"{n}", "head.grains": "[frame_word]"})
        for n in range(4)
    ]
    heads = [row(v.label, 300.0, dict(v.changes), {}) for v in SPACES["heads"].variants]
    return report.html([result("joint", samples), result("heads", heads)])


PAGES = {"inspection": inspection, "sweep": swept}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(name: str, width: int, dark: bool) -> None:
    found = browser.axe(PAGES[name](), width, dark=dark)
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


def test_axe_finds_what_is_wrong() -> None:
    faulty = re.sub("--ink: #1b2126", "--ink: #c8c8c8", inspection()).replace(' tabindex="0"', "")
    found = {one["id"] for one in browser.axe(faulty, 390, dark=False)}
    assert {"color-contrast", "scrollable-region-focusable"} <= found
