import csv
import math
import re

import pytest

from pipeline import report, tracking
from pipeline.sweeps import results
from tcmgc import recipes
from tune_spaces import SPACES

BASE = {"t2v/R1": 40.0, "t2v/R5": 70.0, "t2v/R10": 80.0, "t2v/RSum": 190.0}


def record(space, scores, *, frozen="no", status="finished", finished=True):
    """A sweep as `pipeline/tune.py` leaves it: scores by variant, one a seed."""
    name = space.name
    count = sum(len(values) for values in scores.values())
    tags = {"kind": "sweep", "space": name, "frozen": frozen, "data": "demo"}
    params = {"trials": count, "epochs": 2, "seeds": 2}
    base = recipes.recipe("demo")
    parent = tracking.start(base, name, f"{name}-{count}-{frozen}", tags, params)
    for label, values in scores.items():
        for seed, score in enumerate(values):
            tags = {"mlflow.parentRunId": parent, "variant": label, "space": name, "kind": "trial"}
            run_id = tracking.start(
                base, label, f"{name}/{label}/{seed}/{frozen}", tags, {"seed": seed}
            )
            shown = {f"best/{key}": value for key, value in BASE.items()}
            shown |= {f"best/v2t/{key[4:]}": value for key, value in BASE.items()}
            shown |= {"best/SumR": score, "isa_parameters": 61.0}
            tracking.finish(run_id, shown, {"status": status})
            tracking.end(run_id, "FINISHED")
    if finished:
        tracking.end(parent, "FINISHED")
    return parent


@pytest.fixture(scope="module")
def swept(home):
    record(SPACES["heads"], {"1 head": [300, 304], "2 heads": [301, 302], "8 heads": [200, 201]})
    record(SPACES["keep_rate"], {f"r=0.{n}": [300.0 + n] for n in range(1, 10)})
    record(SPACES["grains"], {one.label: [300.0, 301.0] for one in SPACES["grains"].variants})
    record(SPACES["scale"], {"lambda=1": [300.0]}, finished=False)
    record(SPACES["residual"], {"with": [1.0], "without": [2.0]})
    record(SPACES["residual"], {"with": [4.0], "without": [3.0]}, frozen="yes, a screening")


def test_means_spreads_and_the_papers_numbers(swept):
    found = results.collect(SPACES["heads"])
    rows = {row.label: row for row in found.rows}
    assert list(rows) == ["1 head", "2 heads", "8 heads"]
    assert rows["1 head"].measured["SumR"].mean == 302
    assert rows["1 head"].measured["SumR"].spread == pytest.approx(math.sqrt(8))
    assert rows["8 heads"].paper["SumR"] == 401.0
    assert found.best is rows["1 head"]


def test_a_difference_within_the_seeds_spread_is_said_to_be(swept):
    found = results.collect(SPACES["heads"])
    first, near, far = found.rows
    assert report.verdict(first, found) == "best"
    assert report.verdict(near, found) == "-0.5, within the seeds' spread"
    assert report.verdict(far, found) == "-101.5, beyond the seeds' spread"
    alone = results.collect(SPACES["keep_rate"])
    assert report.verdict(alone.rows[0], alone) == "-8.0, one seed: spread unknown"


def test_markdown_is_the_papers_table_with_both_sources_named(swept):
    text = report.markdown(results.collect(SPACES["heads"]))
    assert "validation split of demo" in text
    assert "MSR-VTT 1k-A test split" in text
    header = "| variant | SumR | to the best | seeds | T2V R@1 | T2V R@5 | T2V R@10 | T2V RSum | V2T R@1 "
    assert header in text
    line = next(line for line in text.splitlines() if line.startswith("| 1 head "))
    assert "| 302.0 ± 2.8 · 410.1 |" in line
    assert "| 40.0 ± 0.0 · 47.4 |" in line


def test_the_command_writes_all_files(swept, home, capsys):
    assert report.main(["keep_rate", "heads"]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.startswith("/")]
    names = [place.rsplit("/", 1)[1] for place in said]
    assert names[:4] == ["keep_rate.csv", "heads.csv", "report.md", "report.html"]
    assert names[4:] == ["keep_rate-1.svg", "keep_rate-2.svg", "heads-1.svg"]
    shown = next(line for line in lines if line.startswith("1 head "))
    assert shown.split() == ["1", "head", "302.0", "±", "2.8", "410.1", "best", "2"]
    for space in ("keep_rate", "heads"):
        run_id = results.collect(SPACES[space]).run_id
        logged = tracking.client().list_artifacts(run_id, report.ARTIFACTS)
        assert {f"report/{name}" for name in names} == {file.path for file in logged}
    with open(said[0]) as file:
        table = list(csv.DictReader(file))
    assert table[0]["variant"] == "r=0.1"
    assert table[0]["SumR ours (demo validation) mean"] == "301.0"
    assert table[0]["SumR paper (MSR-VTT 1k-A test)"] == "410.1"
    assert table[0]["isa_parameters ours (demo validation) mean"] == "61.0"
    assert table[1]["SumR paper (MSR-VTT 1k-A test)"] == ""
    page = (home / "reports/report.html").read_text()
    assert page.count("<svg") == 3  # keep rate, parameters, heads
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert "<script" not in page


def test_the_panels_of_figures_7_and_8(swept):
    page = report.html([results.collect(SPACES["grains"])])
    assert page.count("<svg") == 1
    assert "Exp15 lsa +SDR" in page


def test_an_unfinished_search_and_a_screening_are_said_to_be(swept):
    assert "1 of 1 trials so far" in report.about(results.collect(SPACES["scale"]))
    plain = results.collect(SPACES["residual"])
    screened = results.collect(SPACES["residual"], frozen=True)
    assert "SCREENING" not in report.about(plain)
    assert "SCREENING on frozen towers" in report.about(screened)
    assert (plain.best.label, screened.best.label) == ("without", "with")


def test_what_was_not_searched(swept):
    with pytest.raises(
        ValueError, match=r"no sweep of space alpha; `.*python pipeline/tune.py alpha` makes one"
    ):
        results.collect(SPACES["alpha"])
    with pytest.raises(ValueError, match=r"no space 'head'; known are .*heads"):
        report.main(["head"])
    with pytest.raises(ValueError, match="name one or more spaces"):
        report.main([])
    other = tracking.run_of("heads-6-no").info.run_id
    with pytest.raises(ValueError, match="is not a sweep of scale, but of heads"):
        report.main(["scale", "--run", other])
