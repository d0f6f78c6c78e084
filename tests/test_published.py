"""The paper's tables as data: complete, and consistent with themselves and with the recipes."""

import re

import pytest

from tcmgc import recipes
from tune_spaces import published
from tune_spaces.published import EFFICIENCY, METHODS, MISPRINTS, TABLES, Published

ROWS = [(data, row) for data, rows in TABLES.items() for row in rows]


def _sums(figures: dict[str, float]) -> dict[str, float]:
    """What each sum's own parts add up to, where all of them are given."""
    found = {}
    for way in ("t2v", "v2t"):
        parts = [figures.get(f"{way}/R{k}") for k in (1, 5, 10)]
        if None not in parts:
            found[f"{way}/RSum"] = sum(part for part in parts if part is not None)
    if {"t2v/RSum", "v2t/RSum"} <= figures.keys():
        found["SumR"] = figures["t2v/RSum"] + figures["v2t/RSum"]
    return found


@pytest.mark.parametrize(("data", "row"), ROWS, ids=lambda x: x if isinstance(x, str) else x.name)
def test_sums_equal_their_parts(data: str, row: Published) -> None:
    for column, total in _sums(row.figures).items():
        wrong = MISPRINTS.get((data, row.tower, row.name, column))
        if wrong is None:
            assert row.figures[column] == pytest.approx(total, abs=0.051), column
        else:
            assert wrong == pytest.approx(total, abs=0.051)
            assert row.figures[column] != pytest.approx(total, abs=0.051), "no misprint any more"


def test_all_rows_are_there() -> None:
    count = {
        data: [sum(row.tower == tower for row in rows) for tower in ("", "ViT-B/32", "ViT-B/16")]
        for data, rows in TABLES.items()
    }
    assert count == {
        "msrvtt_7k": [5, 10, 10],
        "msrvtt_9k": [6, 10, 10],
        "didemo": [5, 7, 7],
        "vatex": [2, 7, 7],
    }
    for rows in TABLES.values():
        assert len({(row.tower, row.name) for row in rows}) == len(rows)
        assert [row.name for row in rows if row.tower and row.method is None] == []
        assert [row.name for row in rows if not row.tower and row.method] == []
    used = {row.name for _, row in ROWS} & METHODS.keys()
    assert used == METHODS.keys()
    assert set(METHODS.values()) <= recipes.METHODS.keys()


def test_every_clip_row_has_a_speed_and_all_its_figures() -> None:
    for _, row in ROWS:
        if row.tower:
            assert row.milliseconds is not None
            assert len(row.figures) == 13, row.name


def test_the_recipes_quote_the_tables() -> None:
    towers = {"": "ViT-B/32", "_b16": "ViT-B/16"}
    for data, rows in TABLES.items():
        for suffix, tower in towers.items():
            row = next(row for row in rows if row.name == "TC-MGC" and row.tower == tower)
            said = str(recipes.RECIPES[data + suffix].__doc__)
            assert published.SOURCES[data] in said
            found = re.search(r"T2V R@1 (\d+\.\d), SumR (\d+\.\d)", said)
            assert found is not None
            first, total = map(float, found.groups())
            assert (first, total) == (row.figures["t2v/R1"], row.figures["SumR"])


def test_table_14_is_about_rows_of_table_1b() -> None:
    rows = {row.name: row for row in TABLES["msrvtt_9k"] if row.tower == "ViT-B/32"}
    for one in EFFICIENCY:
        assert one.sum_r == rows[one.name].figures["SumR"]
