import json
import shlex
import shutil
from pathlib import Path

import pytest
import ray

from pipeline import cli, report, tracking, train, tune
from pipeline.cluster import placement as cluster
from pipeline.sweeps import plan, progress, trials
from tcmgc import config, recipes
from tune_spaces import SPACES, Space, Variant


def arguments(*words, recipe="demo"):
    return cli.parse(tune.Arguments, [recipe, *words], "tune", "about")


def sweep(name="residual", *words, recipe="demo"):
    return tune.plan(SPACES[name], arguments(*words, recipe=recipe))


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("heads", ["--epochs", "0"], "needs at least one"),
        ("heads", ["--seeds", "0"], "--seeds must be at least 1"),
        ("heads", ["--samples", "3"], "a table of 4 variants"),
        ("joint", ["--seeds", "2"], "is sampled"),
        ("heads", ["--towers", "runs/x"], "--towers goes with --frozen"),
        ("heads", ["--pairs", "64"], "--pairs goes with --frozen"),
    ],
)
def test_what_does_not_go_together_is_said(name, words, message):
    with pytest.raises(ValueError, match=message):
        sweep(name, *words)


def test_frozen_refuses_spaces_that_move_towers_or_data():
    moving = Space(
        name="mine",
        title="Mine",
        source="none",
        variants=(Variant(label="a", changes={"data.max_frames": 4}),),
    )
    with pytest.raises(ValueError, match=r"mine changes data\.max_frames, and --frozen"):
        tune.plan(moving, arguments("--frozen", "True"))


def test_the_commands_errors_come_before_ray_starts(home):
    with pytest.raises(ValueError, match="name a space; known are"):
        tune.main([])
    with pytest.raises(ValueError, match="a field of TcMgcHead"):
        tune.main(["keep_rate", "msrvtt_9k_xpool"])


def test_the_name_changes_with_what_decides_the_result():
    base = sweep().name
    assert sweep("residual", "--cluster.decode-workers", "1").name == base
    others = {
        sweep("heads").name,
        sweep("residual", "--seeds", "2").name,
        sweep("residual", "--epochs", "2").name,
        sweep("residual", "--loss.alpha", "0.1").name,
        sweep("residual", "--train.seed", "1").name,
        sweep("residual", "--frozen", "True").name,
        sweep(recipe="msrvtt_9k").name,
    }
    assert len(others | {base}) == 8


def test_a_trials_config_has_the_variants_changes_its_seed_and_the_budget():
    planned = sweep("residual", "--seeds", "2", "--epochs", "3", "--train.seed", "5")
    made = planned.config({"variant": "without", "seed": 6})
    expected = config.replace(
        recipes.recipe("demo"),
        {
            "head.attention.residual": False,
            "train.seed": 6,
            "train.epochs": 3,
            "train.keep_checkpoints": 1,
        },
    )
    assert made == expected
    assert planned.varied == ("head.attention.residual", "train.seed")
    assert planned.total == 4


def test_a_sample_starts_from_the_recipe_and_leaves_out_what_frozen_towers_do_not_use():
    planned = sweep("joint", "--frozen", "True", "--samples", "7")
    first = planned.config(plan.starting_point(planned))
    demo = recipes.recipe("demo")
    assert (first.head, first.loss, first.temporal) == (demo.head, demo.loss, demo.temporal)
    assert first.towers.freeze == "all"
    assert "optim.lr_clip" not in planned.axes
    assert "optim.lr_clip" in sweep("joint").axes
    assert planned.total == 7


def pretend(monkeypatch, resources, role=None):
    """A cluster of one node."""
    labels = {"node-role": role} if role else {}
    node = {"Alive": True, "Resources": resources, "Labels": labels}
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    monkeypatch.setattr(ray, "nodes", lambda: [node])


@pytest.mark.parametrize(
    ("resources", "words", "asked", "expected"),
    [
        ({"CPU": 2.0}, [], 0, (2, 1.0)),
        ({"CPU": 2.0}, ["--train.workers", "2"], 0, (1, 1.0)),
        ({"CPU": 2.0}, [], 2, (2, 1.0)),
        ({"CPU": 2.0}, [], 9, (2, 1.0)),
        ({"CPU": 16.0}, [], 0, (8, 2.0)),
        ({"CPU": 16.0}, ["--train.workers", "4", "--train.pieces", "4"], 0, (2, 2.0)),
        ({"CPU": 2.0}, ["--train.workers", "4", "--train.pieces", "4"], 0, (1, 0.5)),
        ({"CPU": 32.0, "GPU": 4.0}, [], 0, (4, 4.0)),
        ({"CPU": 32.0, "GPU": 4.0}, ["--train.workers", "2"], 0, (2, 4.0)),
        ({"CPU": 32.0, "GPU": 4.0}, ["--train.workers", "2"], 1, (1, 4.0)),
    ],
)
def test_no_more_trials_at_a_time_than_have_room(monkeypatch, resources, words, asked, expected):
    pretend(monkeypatch, resources)
    chosen = arguments(*words).config
    at_once, cpus = tune.room(chosen, asked)
    assert (at_once, cpus) == expected
    assert at_once * cpus * chosen.train.workers <= resources["CPU"]


def row(label, seed, score, status="finished"):
    return progress.Row(label, seed, score, 3, status, {}, "id")


def test_the_table_puts_the_best_mean_first_and_keeps_failures():
    rows = [row("a", 0, 10.0), row("a", 1, 14.0), row("b", 0, 13.0), row("c", 0, None, "failed")]
    rows += [row("b", 1, 12.5, "stopped early")]
    lines = progress.table(rows, "val/SumR").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["b", "a", "c"]
    assert lines[1].split()[1:4] == ["12.75", "0.35", "2"]
    assert "stopped early" in lines[1]
    assert "failed" in lines[3]
    assert progress.best_label(rows) == "b"
    assert progress.best_label([row("c", 0, None, "failed")]) is None


def test_workers_get_training_and_validation_alone(cluster):
    corpus = {"train": "t", "val": "v", "test": "never"}
    assert ray.get(train.shared(corpus)[0]) == {"train": "t", "val": "v"}


@pytest.fixture(scope="module")
def without_test_videos(corpus, tmp_path_factory):
    """A corpus whose test videos are gone: whoever looks at them fails."""
    root = tmp_path_factory.mktemp("corpora") / "demo"
    shutil.copytree(corpus, root)
    for line in (root / "MSRVTT_JSFUSION_test.csv").read_text().splitlines()[1:]:
        (root / "videos/all" / f"{line.split(',')[2]}.mp4").unlink()
    return root


def words_for(root, tower):
    """A sweep of seconds."""
    return [
        *("--data.root", str(root), "--data.val-videos", "12", "--data.max-frames", "4"),
        *("--towers.name", tower, "--train.batch-size", "16", "--temporal.layers", "0"),
    ]


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    place = tmp_path_factory.mktemp("towers") / "tiny.json"
    vision = {"image_size": 64, "layers": 1, "width": 32, "head_width": 32, "patch_size": 32}
    text = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    place.write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    return str(place)


def children(planned):
    parent = tracking.run_of(str(planned.place)).info.run_id
    where = f"tags.`mlflow.parentRunId` = '{parent}'"
    return parent, tracking.find_runs(where)


def check_search(planned, text):
    """What any sweep leaves behind."""
    parent, runs = children(planned)
    assert len(runs) == planned.total
    for run in runs:
        assert run.info.status == "FINISHED"
        assert {"space", "variant", "seed", "kind"} <= set(run.data.tags)
        assert run.data.tags["status"] == "finished"
        # As a training's: the same fields by the same names.
        assert run.data.params.keys() == config.flatten(planned.chosen({"variant": "with"})).keys()
        assert next(iter(run.data.metrics)) == "best/SumR"
        assert run.data.metrics["isa_parameters"] > 0
        assert not [name for name in run.data.metrics if name.startswith("test/")]
        points = tracking.client().get_metric_history(run.info.run_id, "val/SumR")
        first, *epochs = points
        assert first.step == 0  # the weights that training starts from: no epoch, and no candidate
        assert len(epochs) == planned.epochs
        best = max(point.value for point in epochs)
        assert run.data.metrics["best/SumR"] == pytest.approx(best)
    best = max(runs, key=lambda run: run.data.metrics["best/SumR"])
    assert best.data.tags["variant"] in text
    reported = {file.path for file in tracking.client().list_artifacts(parent, "report")}
    assert {"report/residual.html", "report/residual.csv"} <= reported
    sweep = tracking.client().get_run(parent)
    assert sweep.info.run_name.startswith("residual, 1 seed, demo")
    assert "best:" in sweep.data.tags["mlflow.note.content"]
    place = tracking.client().download_artifacts(parent, "best_config.json")
    again = cli.parse(train.Arguments, ["--config", place], "train", "about").config
    assert again == planned.chosen({"variant": best.data.tags["variant"], "seed": 0})
    assert again.towers.freeze == "none"
    return best.data.metrics["best/SumR"]


@pytest.mark.filterwarnings("default")
def test_a_screening_on_frozen_towers_and_again(cluster, without_test_videos, tower, capsys):
    words = [*words_for(without_test_videos, tower), "--epochs", "2"]
    planned = sweep("residual", *words, "--frozen", "True")
    assert tune.main(["residual", "demo", *words, "--frozen"]) == 0
    said = capsys.readouterr().out
    assert "SCREENING" in said
    assert "[2 of 2]" in said
    best = check_search(planned, said)
    for name, main in (("train", None), ("report", report.main)):
        line = next(line for line in said.splitlines() if line.startswith(f"{name}:"))
        _, script, *typed = shlex.split(line.partition(":")[2])
        assert script.endswith(f"pipeline/{name}.py")
        if main is None:
            assert cli.parse(train.Arguments, typed, "train", "about").config
        else:
            assert main([*typed, "--folder", "reports-of-a-screening"]) == 0

    assert tune.main(["residual", "demo", *words, "--frozen"]) == 0
    assert "finished already" in capsys.readouterr().out

    # Whatever Tune and the driver knew is lost: no trial is trained again.
    Path(planned.place, "search.json").unlink()
    shutil.rmtree(Path(planned.place, "tune"))
    features = Path(planned.place, "features.safetensors")
    features.unlink()
    features.write_bytes(b"whoever reads this fails")
    assert tune.main(["residual", "demo", *words, "--frozen"]) == 0
    assert check_search(planned, capsys.readouterr().out) == best


def test_a_failed_trial_says_why_once_more_without_training(home, monkeypatch, tmp_path):
    planned = tune.plan(SPACES["residual"], arguments("--run.folder", str(tmp_path)))
    settings = {"variant": "with", "seed": 0}

    class Context:
        def get_trial_id(self):
            return "abc"

    monkeypatch.setattr(ray.tune, "get_context", Context)
    calls = []

    def work(chosen, name, run_id):
        calls.append(name)
        raise FloatingPointError("the loss is nan")

    parent = tracking.start(recipes.recipe("demo"), "parent", str(planned.place), {}, {})
    with pytest.raises(FloatingPointError):
        trials._record(settings, planned, parent, work)
    with pytest.raises(RuntimeError, match=r"the loss is nan \(delete .*result.json to try"):
        trials._record(settings, planned, parent, work)
    assert calls == ["with-seed0"]
    _, runs = children(planned)
    assert [run.info.status for run in runs] == ["FAILED"]
    assert runs[0].data.tags["status"] == "failed: the loss is nan"


class FakeTrial:
    """What callbacks see of a trial."""

    trial_id, config, status = "abc", {"variant": "with", "seed": 0}, "RUNNING"

    def __init__(self, last_result):
        self.last_result = last_result


@pytest.mark.parametrize(
    ("how", "state", "status"),
    [("complete", "FINISHED", "stopped early"), ("error", "FAILED", "failed: see Ray's log")],
)
def test_who_does_not_end_by_itself_is_marked(home, tmp_path, capsys, how, state, status):
    planned = tune.plan(SPACES["residual"], arguments("--run.folder", str(tmp_path)))
    parent = tracking.start(recipes.recipe("demo"), "parent", str(planned.place), {}, {})
    trials.start(planned, FakeTrial.config, "abc", parent)
    unfinished = row("with", 0, 120.0)
    assert not tune.ended(
        planned, progress.Row(**{**vars(unfinished), "settings": FakeTrial.config})
    )
    told = progress.Progress(planned)
    for epoch, score in ((1, 120.0), (2, 110.0)):
        result = {"epoch": epoch, "val/SumR": score, "time_total_s": 3.0}
        told.on_trial_result(0, [], FakeTrial(result), result)
    getattr(told, f"on_trial_{how}")(0, [], FakeTrial(result))
    said = capsys.readouterr().out
    assert "with, seed 0: epoch 1 of 1: val/SumR 120.0" in said
    assert "[1 of 2] with, seed 0" in said
    _, (run,) = children(planned)
    assert run.info.status == state
    assert run.data.tags["status"] == status
    if how == "complete":
        assert run.data.metrics["best/SumR"] == 120.0
        assert run.data.metrics["best/epoch"] == 1
    ended = {**vars(unfinished), "settings": FakeTrial.config}
    if how == "error":
        ended["status"] = "failed"
    assert tune.ended(planned, progress.Row(**ended))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_search_that_trains(cluster, without_test_videos, tower, capsys):
    words = words_for(without_test_videos, tower)
    planned = sweep("residual", *words)
    assert tune.main(["residual", "demo", *words]) == 0
    check_search(planned, capsys.readouterr().out)


def test_elastic_workers_on_labelled_nodes_need_gpus(monkeypatch):
    words = ["--train.min-workers", "1", "--train.workers", "2", "--cluster.train-node", "train"]
    chosen = arguments(*words).config
    pretend(monkeypatch, {"CPU": 8.0}, role="train")
    with pytest.raises(ValueError, match=r"needs workers on GPUs; leave cluster.train_node empty"):
        cluster.placement(chosen)
    pretend(monkeypatch, {"CPU": 8.0, "GPU": 2.0}, role="train")
    assert cluster.placement(chosen).gpu


def kept_trial(planned, variant, status="finished"):
    """A trial whose result is in its folder, as far as the driver knows it."""
    settings = {"variant": variant, "seed": 0}
    folder = planned.trial_folder(settings, variant)
    epochs = [
        {"step": 1, "time": 1.0, "epoch": 1, "val/SumR": 5.0},
        {"step": 2, "time": 2.0, "epoch": 2, "val/SumR": 4.0},
    ]
    trials.keep(planned, planned.config(settings), folder, epochs, status)
    return settings, folder


def test_what_mlflow_lost_of_a_sweep_is_sent_again(home, tmp_path):
    planned = tune.plan(SPACES["residual"], arguments("--run.folder", str(tmp_path)))
    first, place = kept_trial(planned, "with")
    second, other = kept_trial(planned, "without", trials.STOPPED)
    parent = tracking.start(recipes.demo(), "parent", planned.place, {}, {})
    # One trial has no run at all, one has a run that was never closed, and one run is of a trial
    # that a killed driver began and nobody knows any more.
    open_run = trials.start(planned, second, "without", parent)
    lost = tracking.start(
        recipes.demo(), "lost", f"{planned.trials}/lost", {"mlflow.parentRunId": parent}, {}
    )
    ended = [(first, "with"), (second, "without")]
    trials.settle(planned, ended, parent)
    runs = {run.data.tags["folder"]: run for run in tracking.children(parent)}
    assert runs[place].info.status == "FINISHED"
    assert runs[place].data.metrics["best/SumR"] == 5.0
    assert runs[place].data.metrics["best/epoch"] == 1
    history = tracking.client().get_metric_history(runs[place].info.run_id, "val/SumR")
    assert [(metric.step, metric.value) for metric in history] == [(1, 5.0), (2, 4.0)]
    assert runs[other].info.run_id == open_run
    assert runs[other].data.tags["status"] == "stopped early"
    assert runs[other].info.status != "RUNNING"
    gone = tracking.client().get_run(lost)
    assert gone.info.status == "KILLED"
    assert gone.data.tags["status"] == "lost: its sweep was killed"
    before = {run.info.run_id: run.info.end_time for run in tracking.children(parent)}
    trials.settle(planned, ended, parent)
    assert {run.info.run_id: run.info.end_time for run in tracking.children(parent)} == before


def test_a_trial_has_ended_when_its_result_is_in_its_folder(home, tmp_path):
    planned = tune.plan(SPACES["residual"], arguments("--run.folder", str(tmp_path)))
    settings, _ = kept_trial(planned, "with")
    ended = progress.Row("with", 0, 1.0, 1, "finished", settings, "with")
    broken_off = progress.Row(
        "without", 0, 1.0, 1, "stopped early", {"variant": "without", "seed": 0}, "x"
    )
    assert tune.ended(planned, ended)
    assert not tune.ended(planned, broken_off)
    with pytest.raises(KeyboardInterrupt):
        tune._conclude(planned, [ended, broken_off], candidates=12)


def test_a_file_uri_is_its_path(home, tmp_path):
    planned = tune.plan(SPACES["residual"], arguments("--run.folder", f"file://{tmp_path}/a%20b"))
    assert planned.place.startswith(f"{tmp_path}/a b/residual-")


def test_the_name_changes_exactly_with_what_decides_a_runs_result(home):
    base = recipes.demo()
    space = SPACES["keep_rate"]
    first = tune.plan(space, tune.Arguments(config=base)).name
    changes = {
        "train.precision": "bf16",
        "train.pieces": 4,
        "train.chunk_size": 4,
        "train.separate_captions": False,
        "train.batch_size": 16,
        "data.augment": True,
        "towers.freeze": "all",
        "data.cache": "/elsewhere",
        "data.decode_timeout": 7.0,
        "train.workers": 2,
        "train.max_failures": 9,
        "train.checkpoint_steps": 5,
        "cluster.decode_workers": 3,
    }
    for path, value in changes.items():
        other = config.replace(base, {path: value})
        matters = config.fingerprint(other) != config.fingerprint(base)
        named = tune.plan(space, tune.Arguments(config=other)).name
        assert (named != first) == matters, path


def test_the_epochs_that_are_given_are_a_trials_epochs(home):
    space = SPACES["keep_rate"]
    words = ["--train.epochs", "9"]
    chosen = arguments(*words)
    assert tune.plan(space, chosen, given=cli.given(words)).epochs == 9
    assert tune.plan(space, chosen).epochs == space.budget(chosen.config)
