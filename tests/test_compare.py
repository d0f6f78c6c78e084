"""Comparisons: the plan, the table from known numbers, and a small one on the whole line."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import compare, tracking
from pipeline.run_state import run_folder
from pipeline.sweeps import comparison_page
from pipeline.sweeps import comparison_table as table
from pipeline.sweeps.comparison import CONTROL, Comparison
from pipeline.sweeps.results import Measured
from tcmgc import recipes
from tcmgc.config import from_dict
from tcmgc.retrieval.metrics import chance
from tune_spaces.published import METHODS as PUBLISHED


def planned(*words: str) -> Comparison:
    return compare.plan(compare.read(["demo", *words]))


def test_a_trial_for_every_method_and_seed_and_for_the_control() -> None:
    plan = planned("--methods", "xclip,drl", "--seeds", "2")
    assert plan.methods == ["xclip", "drl"]
    assert plan.total == 6
    assert planned("--methods", "all").methods == list(recipes.METHODS)
    assert set(planned("--methods", "paper").methods) == set(PUBLISHED.values())
    config = plan.chosen({"variant": "drl", "seed": 7})
    assert config.train.seed == 7
    assert config.head == plan.of("drl").head
    control = plan.chosen({"variant": CONTROL, "seed": 7})
    assert control.head == plan.of("clip4clip_meanp").head
    assert plan.shuffles({"variant": CONTROL})
    assert not plan.shuffles({"variant": "drl"})


def test_fair_means_the_recipes_settings_for_all() -> None:
    plan = planned("--methods", "all")
    base = from_dict(plan.base)
    for name in plan.methods:
        config = plan.of(name)
        assert (config.train, config.optim, config.data) == (base.train, base.optim, base.data)
    assert base.optim.lr_new < recipes.recipe("demo").optim.lr_new
    assert from_dict(planned("--optim.lr-new", "0.1").base).optim.lr_new == 0.1
    own = compare.plan(compare.read(["msrvtt_9k", "--fair", "False"]))
    assert own.of("xclip").train.batch_size == 300


def test_the_name_says_what_decides_the_result() -> None:
    names = {
        planned(*words).name
        for words in (
            ("--methods", "xclip,drl"),
            ("--methods", "xclip"),
            ("--methods", "xclip,drl", "--seeds", "2"),
            ("--methods", "xclip,drl", "--train.epochs", "2"),
            ("--methods", "xclip,drl", "--control", "drl"),
        )
    }
    assert len(names) == 5
    assert planned("--methods", "xclip,drl", "--max-concurrent", "1").name in names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "xclap"], "there is no method 'xclap'; near it: .*xclip"),
        (["--methods", "drl,drl"], "each method once"),
        (["--methods", ""], "each method once"),
        (["--control", "nothing"], "no method 'nothing'"),
        (["--seeds", "0"], "--seeds must be at least 1"),
    ],
)
def test_refused(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned(*words)


def _metrics(first: float) -> dict[str, float]:
    found = chance(200) | {"t2v/R1": first}
    found["t2v/RSum"] = sum(found[f"t2v/R{k}"] for k in (1, 5, 10))
    return found | {"SumR": found["t2v/RSum"] + found["v2t/RSum"]}


def _lines(
    seeds: Sequence[Sequence[float]], data: str = "demo", tower: str = ""
) -> list[table.Line]:
    names = ["clip4clip_meanp", "tcmgc_released", "drl"][: len(seeds)]
    tests = {n: [_metrics(one) for one in s] for n, s in zip(names, seeds, strict=True)}
    costs = {"drl": {"encoding_ms": 2.0, "similarity_ms": 0.25, "step_ms": 3.0, "parameters": 2e6}}
    return [
        *table.lines_of_methods([*names, "xpool"], tests, costs, data, tower),
        table.line("chance", [chance(200)], "expected of 200 videos"),
    ]


def test_means_spreads_and_what_the_spread_can_explain() -> None:
    lines = _lines([(10, 12, 14), (13, 15, 17), (30, 31, 32)])
    assert [line.label for line in lines][-1] == "chance"  # xpool has no result, and no row
    rows = {
        one.label: dict(zip(table.titles(lines), table.cells(one, lines), strict=True))
        for one in lines
    }
    assert rows["drl"]["T2V R@1"] == "31.0 ± 1.0"
    assert rows["drl"]["to the best SumR"] == "best"
    assert rows["clip4clip_meanp"]["to the best SumR"] == "-19.0, beyond the seeds' spread"
    assert rows["chance"]["to the best SumR"] == "expected of 200 videos"
    assert rows["chance"]["T2V R@1"] == "0.5"
    assert rows["drl"]["encode, ms a video"] == "2"
    near = _lines([(10, 12, 14), (11, 13, 15)])
    assert table.verdict(near[0], near) == "-1.0, within the seeds' spread"
    assert math.hypot(2, 2) > 1.0
    single = _lines([(10,), (11,)])
    assert table.verdict(single[0], single) == "-1.0, one seed: spread unknown"


def test_the_papers_rows_stand_beside_real_data_alone() -> None:
    lines = _lines([(40,), (47,)], "msrvtt_9k", "ViT-B/32")
    rows = {
        one.label: dict(zip(table.titles(lines), table.cells(one, lines), strict=True))
        for one in lines
    }
    assert rows["tcmgc_released"]["paper SumR"] == "410.1"
    assert rows["clip4clip_meanp"]["paper T2V R@1"] == "43.1"
    assert rows["chance"]["paper SumR"] == ""
    assert "paper SumR" not in table.titles(_lines([(40,)]))
    text = table.markdown("title", ["about"], lines, "msrvtt_9k", [])
    assert "| MDMMT, no CLIP | no CLIP | CVPR'21 | quoted | 38.9 " in text
    assert "cited numbers, not measured here" in text
    page = comparison_page.html("title", {}, ["about"], lines, "msrvtt_9k", [])
    assert "Table 1b" in page
    assert "MDMMT" in page


def test_numbers_for_other_programs(tmp_path: Path) -> None:
    lines = _lines([(10, 12), (13, 15), (30, 31)])
    table.write_csv(tmp_path / "table.csv", lines)
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    drl = next(row for row in rows if row["method"] == "drl")
    assert float(drl["t2v/R1 mean"]) == 30.5
    assert float(drl["t2v/R1 standard deviation"]) == pytest.approx(0.5**0.5)
    assert float(drl["parameters"]) == 2e6
    assert rows[-1]["note"] == "expected of 200 videos"


def test_the_picture_has_a_point_for_every_method_with_costs() -> None:
    lines = _lines([(10, 12), (13, 15), (30, 31)])
    drawn = comparison_page.picture(lines)
    assert "SumR" in drawn
    assert Measured((1.0,)).mean == 1.0
    assert [curve.name for curve in comparison_page._points([lines[2]], ("step_ms",))] == ["drl"]


@pytest.mark.filterwarnings("default")
def test_a_small_comparison(
    cluster: None, home: Path, quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["demo", *quick, "--train.epochs", "1", "--methods", "xpool", "--seeds", "1"]
    assert compare.main(words) == 0
    shown = capsys.readouterr().out
    for row in ("xpool", "zero-shot, mean of frames", CONTROL, "chance"):
        assert f"\n{row}" in shown
    folder = next((home / "runs/comparisons").glob("compare-demo-*"))
    kept = json.loads((folder / "trials/xpool-seed0/result.json").read_text())
    rows = list(csv.DictReader((home / "reports/compare-demo.csv").open()))
    assert float(rows[0]["SumR mean"]) == pytest.approx(kept["test"]["SumR"])
    assert "What it cannot show" in (home / "reports/compare-demo.md").read_text()
    parent = tracking.run_of(str(folder))
    assert parent is not None
    assert parent.data.tags["kind"] == "comparison"
    children = {run.data.tags["variant"]: run for run in tracking.children(parent.info.run_id)}
    assert children.keys() == {"xpool", CONTROL}
    metrics = children["xpool"].data.metrics
    assert metrics["test/SumR"] == pytest.approx(kept["test"]["SumR"])

    # The same command again trains nothing, measures nothing and shows the same.
    times = {path: path.stat().st_mtime for path in (folder / "trials").glob("*/result.json")}
    run_folder.write(str(folder / "trials/xpool-seed0"), run_folder.RESULT, kept | {"mark": 1})
    assert compare.main(words) == 0
    assert "costs of" not in (again := capsys.readouterr().out)
    assert f"{rows[0]['method']}" in again
    assert json.loads((folder / "trials/xpool-seed0/result.json").read_text())["mark"] == 1
    control = folder / f"trials/{CONTROL.replace(' ', '-')}-seed0/result.json"
    assert control.stat().st_mtime == times[control]
