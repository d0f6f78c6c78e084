"""What MLflow shows: experiments, views, names, descriptions, data sets, the order of metrics."""

import json
import math
import re
import uuid

import pytest

from pipeline import cli, evaluate, tracking
from pipeline.inputs import prepare
from pipeline.interface import describe, views
from tcmgc import config, recipes
from tcmgc.retrieval.metrics import chance


def start(home, *, settings=None, **tags):
    settings = settings or recipes.recipe("demo")
    folder = f"{home}/runs/{uuid.uuid4().hex}"
    return tracking.start(settings, describe.run_name(settings), folder, tags), folder


def test_an_experiment_a_data_set(home):
    demo, other = tracking.experiment("demo"), tracking.experiment("msvd")
    assert demo != other
    assert tracking.experiment("demo") == demo
    assert {demo, other} <= set(tracking.experiments())
    run_id, _ = start(home)
    assert tracking.client().get_run(run_id).info.experiment_id == demo
    assert f"/experiments/{demo}/runs?viewStateShareKey=table&" in tracking.table(run_id)


def test_an_experiment_has_the_views_that_addresses_name(home):
    found = tracking.client().get_experiment(tracking.experiment("demo")).tags
    for key in (views.TABLE, views.CHARTS):
        saved = json.loads(found[f"mlflow.sharedViewState.{key}"])
        # What MLflow's pages ask of a saved view, and what they do not take.
        assert isinstance(saved["name"], str)
        assert isinstance(saved["createdAt"], int)
        assert len(found[f"mlflow.sharedViewState.{key}"]) < 20_000
        state = json.loads(saved["state"])
        assert state["orderByKey"] == "metrics.`best/SumR`"
        assert state["orderByAsc"] is False
        assert "metrics.`best/t2v/R1`" in state["selectedColumns"]
        charts = state["compareRunCharts"]
        assert [chart["metricKey"] for chart in charts[:3]] == [
            *("train/loss", "val/SumR", "val/t2v/R1")
        ]
        assert charts[-1]["selectedMetrics"] == ["best/t2v/R1", "best/SumR"]
        assert {chart["metricSectionId"] for chart in charts} == {
            section["uuid"] for section in state["compareRunSections"]
        }


def test_a_sweeps_view_is_of_its_trials():
    ((key, value),) = views.sweep("abc", ("loss.alpha",)).items()
    assert key == "mlflow.sharedViewState.abc"
    state = json.loads(json.loads(value)["state"])
    assert state["searchFilter"] == "tags.`mlflow.parentRunId` = 'abc'"
    assert state["selectedColumns"][0] == "params.`loss.alpha`"
    assert state["compareRunCharts"][-1]["selectedParams"] == ["loss.alpha"]


def test_a_run_says_who_and_what_in_mlflows_own_tags(home):
    run_id, _ = start(home)
    run = tracking.client().get_run(run_id)
    assert run.info.run_name == "TC-MGC, demo, seed 0"
    tags = run.data.tags
    assert tags["mlflow.user"]
    assert tags["mlflow.source.type"] == "LOCAL"
    assert re.fullmatch(r"[0-9a-f]{40}|not a git checkout", tags["mlflow.source.git.commit"])
    assert (tags["method"], tags["recipe"]) == ("TC-MGC", "demo")


def test_sumr_is_the_first_of_all_metrics_and_follows_the_best_epoch(home):
    run_id, _ = start(home)
    tracking.finish(run_id, {"system/cpu": 1.0}, {})
    rows = [
        {"step": n, "time": 1.0 + n, "epoch": n, "val/SumR": score, "val/t2v/R1": score / 10}
        for n, score in enumerate([100.0, 140.0, 120.0], 1)
    ]
    tracking.complete(run_id, rows[:1])
    tracking.complete(run_id, rows)  # as after a restart
    data = tracking.client().get_run(run_id).data.metrics
    assert list(data)[:3] == ["best/SumR", "best/t2v/R1", "best/v2t/R1"]
    assert (data["best/SumR"], data["best/t2v/R1"], data["best/epoch"]) == (140.0, 14.0, 2.0)
    assert math.isnan(data["best/v2t/R1"])
    history = tracking.client().get_metric_history(run_id, "val/SumR")
    assert [(point.step, point.value) for point in history] == [(1, 100), (2, 140), (3, 120)]


def test_the_splits_are_the_runs_data_sets(home, corpus):
    settings = config.replace(
        recipes.recipe("demo"), {"data.root": str(corpus), "data.val_videos": 16}
    )
    run_id, _ = start(home, settings=settings)
    tracking.inputs(run_id, settings, prepare.splits(settings))
    found = tracking.client().get_run(run_id).inputs.dataset_inputs
    named = {
        one.dataset.name: (one.tags[0].value, json.loads(one.dataset.profile)) for one in found
    }
    assert named == {
        "demo train": ("training", {"videos": 32, "captions": 160}),
        "demo val": ("validation", {"videos": 16, "captions": 80}),
        "demo test": ("testing", {"videos": 16, "captions": 16}),
    }


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "demo"),
        ({"train.epochs": 1}, "demo with train.epochs 1"),
        ({"data.root": "/elsewhere", "train.workers": 2}, "demo"),
    ],
)
def test_a_recipe_is_known_again_from_a_config(fields, said):
    assert describe.recipe(config.replace(recipes.recipe("demo"), fields)) == said


@pytest.mark.parametrize("name", list(recipes.RECIPES))
def test_every_recipe_is_known_again(name):
    assert describe.origin(recipes.recipe(name))[1] == {}


def test_a_description_has_result_chance_and_what_to_type():
    metrics = {**chance(200), "SumR": 397.0, "t2v/candidates": 200}
    text = describe.training(
        recipes.recipe("demo"),
        "/runs/a b",
        validation=metrics,
        test=metrics,
        checkpoint="/runs/a b/c",
    )
    assert text.startswith("**TC-MGC on demo; test SumR 397.0, R@1 0.5; validation SumR 397.0")
    assert "| chance, test of 200 videos | 16.0 | 0.5 " in text
    assert cli.command("evaluate.py", "--checkpoint", "/runs/a b/c") in text
    assert cli.command("train.py", "--resume", "/runs/a b") in text


def test_a_sweep_has_a_name_that_one_can_read():
    demo = recipes.recipe("demo")
    assert describe.sweep_name("temporal", demo, 2, 0, frozen=False) == "temporal, 2 seeds, demo"
    assert describe.sweep_name("joint", demo, 1, 50, frozen=True) == (
        "joint, 50 samples, demo, frozen towers"
    )


def test_an_evaluation_is_logged_below_its_training(home):
    run_id, folder = start(home)
    checkpoint = f"{folder}/checkpoint_1"
    said = evaluate.record(
        recipes.recipe("demo"), checkpoint, "val", {"SumR": 300.0, "t2v/candidates": 9}
    )
    (found,) = tracking.find_runs(f"tags.evaluated = '{checkpoint}'")
    assert found.info.run_id in said
    assert found.data.tags["mlflow.parentRunId"] == run_id
    assert found.data.metrics == {"val/SumR": 300.0, "val/t2v/candidates": 9.0}
    assert found.info.status == "FINISHED"
    assert tracking.find(checkpoint) == run_id  # and not the evaluation


def test_an_evaluation_without_mlflow_still_says_its_numbers(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    said = evaluate.record(recipes.recipe("demo"), "/runs/a/checkpoint_1", "val", {"SumR": 300.0})
    assert said.startswith("not logged at nonsense://nowhere: ")
    assert "\n" not in said


def test_the_best_epoch_is_none_of_step_0():
    history = [{"step": 0, "val/SumR": 90.0}, {"step": 8, "epoch": 1, "val/SumR": 80.0}]
    assert describe.best_epoch(history) == history[1]
    assert describe.best_epoch(history[:1]) == {}
