"""The whole line on a small corpus: train, record, evaluate, run again; once for all tests here."""

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import safetensors.torch

from pipeline import evaluate, tracking, train
from tcmgc import config
from tcmgc.config import flatten
from tcmgc.retrieval.metrics import reported
from tcmgc.search.build import build
from tcmgc.training import checkpoint

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Outcome:
    folder: Path
    result: dict
    printed: str
    words: list[str]


@pytest.fixture(scope="module")
def outcome(cluster, home, quick):
    words = ["demo", *quick, "--run.name", "line"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert train.main(words) == 0
    folder = home / "runs/line"
    return Outcome(
        folder, json.loads((folder / "result.json").read_text()), printed.getvalue(), words
    )


def test_it_ends_with_a_table_and_where_to_look(outcome):
    shown = outcome.printed[outcome.printed.index("R@1") :]
    for word in (
        "R@1",
        "MdR",
        "SumR",
        str(outcome.folder),
        outcome.result["checkpoint"],
        "mlflow.db",
    ):
        assert word in shown


def test_a_checkpoint_is_files_that_execute_nothing(outcome):
    folder = Path(outcome.result["checkpoint"])
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    settings, model = checkpoint.load(folder)
    assert flatten(settings)["train.epochs"] == 2
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    assert weights.keys() == model.state_dict().keys()


def test_mlflow_has_config_history_and_result(outcome):
    client, run_id = tracking.client(), outcome.result["mlflow_run"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    settings = flatten(checkpoint.read_config(outcome.result["checkpoint"]))
    # The checkpoint's tower is the JSON file that travels inside it.
    assert Path(settings.pop("towers.name")).name == "tower.json"
    told = dict(run.data.params)
    assert told.pop("towers.name").endswith("tiny.json")
    assert told == {path: str(value) for path, value in settings.items()}
    losses = client.get_metric_history(run_id, "train/loss")
    assert [metric.step for metric in losses] == list(range(1, 21))
    for name in (
        "info_nce_t2v",
        "info_nce_v2t",
        "sdr",
        "gradient_norm",
        "lr_clip",
        "lr_new",
        "samples_per_second",
        "data_wait",
    ):
        assert len(client.get_metric_history(run_id, f"train/{name}")) == 20, name
    assert [metric.step for metric in client.get_metric_history(run_id, "val/SumR")] == [0, 10, 20]
    assert {
        f"test/{key}": value for key, value in reported(outcome.result["metrics"]).items()
    }.items() <= run.data.metrics.items()
    assert run.data.tags["checkpoint"] == outcome.result["checkpoint"]
    assert {"mlflow.source.git.commit", "version.torch", "version.ray"} <= run.data.tags.keys()
    assert any(key.startswith("system/") for key in run.data.metrics)


def test_a_page_of_the_validation_split_is_among_the_artifacts(outcome):
    found = tracking.client().list_artifacts(outcome.result["mlflow_run"], "inspection")
    assert [Path(file.path).name for file in found] == ["validation.html"]


def test_its_model_is_in_mlflow_with_what_it_was_chosen_by(outcome):
    client = tracking.client()
    found = client.get_logged_model(outcome.result["model"].rpartition("/")[2])
    assert found.source_run_id == outcome.result["mlflow_run"]
    assert found.experiment_id == client.get_run(found.source_run_id).info.experiment_id
    assert found.name == "line"
    assert found.tags["mlflow.user"]
    measured = {metric.key: metric.value for metric in found.metrics}
    chosen = checkpoint.read_training(outcome.result["checkpoint"])
    assert measured["best/SumR"] == pytest.approx(chosen["score"])
    assert measured["test/SumR"] == pytest.approx(outcome.result["metrics"]["SumR"])
    place = Path(found.artifact_location.removeprefix("file://"))
    assert not list(place.rglob("*.pkl"))
    assert list(place.rglob("model.safetensors"))


ASK = """
import json, sys
import mlflow, pandas
address, videos, index = sys.argv[1:]
model = mlflow.pyfunc.load_model(address)
import tcmgc  # the model's own copy
texts = pandas.DataFrame({"text": ["a red ball", "snow"]})
answers = {}
for params in ({"videos": [videos], "top": 2}, {"index": index, "top": 2}):
    answers[next(iter(params))] = model.predict(texts, params=params).to_dict("records")
for params in ({}, {"index": index, "videos": [videos]}):
    try:
        model.predict(texts, params=params)
    except ValueError as error:
        answers[repr(sorted(params))] = str(error)
print(json.dumps([tcmgc.__file__, answers]))
"""


def test_its_model_answers_in_a_fresh_process(outcome, corpus, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for path in sorted((corpus / "videos").rglob("*.mp4"))[:3]:
        shutil.copy(path, videos)
    index = build(str(tmp_path / "index"), [str(videos)], outcome.result["checkpoint"])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["MLFLOW_TRACKING_URI"] = tracking.uri()
    done = subprocess.run(
        [sys.executable, "-c", ASK, outcome.result["model"], str(videos), index.place.folder],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    code, answers = json.loads(done.stdout.splitlines()[-1])
    assert not Path(code).is_relative_to(ROOT)
    expected = [
        (answer.query, match.rank, match.file.path, pytest.approx(match.moment.score, abs=1e-4))
        for answer in index.search(["a red ball", "snow"], 2)
        for match in answer.matches
    ]
    for place in ("videos", "index"):
        rows = [(r["query"], r["rank"], r["path"], r["score"]) for r in answers[place]]
        assert rows == expected
    assert "nothing to search in" in answers["[]"]
    assert "give one of them" in answers["['index', 'videos']"]


@pytest.mark.slow
def test_mlflow_serves_its_model(outcome, corpus, tmp_path):
    index = build(str(tmp_path / "index"), [str(corpus / "videos")], outcome.result["checkpoint"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = Path(sys.executable).parent
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking.uri(),
        "TCMGC_INDEX": str(tmp_path / "index"),
    }
    environment["PATH"] = f"{place}{os.pathsep}{environment['PATH']}"
    words = ["models", "serve", "-m", outcome.result["model"], "--env-manager", "local"]
    server = subprocess.Popen(
        [str(place / "mlflow"), *words, "--port", str(port)],
        env=environment,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/ping", timeout=5)
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < until
                time.sleep(0.5)
        asked = {"dataframe_split": {"columns": ["text"], "data": [["snow"]]}, "params": {"top": 3}}
        request = urllib.request.Request(
            f"{address}/invocations",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        rows = json.load(urllib.request.urlopen(request, timeout=60))["predictions"]
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    expected = [match.file.path for match in index.search("snow", 3)[0].matches]
    assert [row["path"] for row in rows] == expected


def test_a_finished_run_s_model_is_registered_by_one_flag(outcome, capsys):
    assert train.main([*outcome.words, "--run.register", "moments"]) == 0
    assert "model:       models:/moments/1" in capsys.readouterr().out
    assert train.main([*outcome.words, "--run.register", "moments"]) == 0
    assert "models:/moments/1" in capsys.readouterr().out
    (version,) = tracking.client().search_model_versions("name = 'moments'")
    assert version.run_id == outcome.result["mlflow_run"]


def test_the_best_checkpoint_by_validation_is_the_one_evaluated(outcome):
    kept = [
        path for path in outcome.folder.glob("checkpoint_*") if (path / "training.json").is_file()
    ]
    scores = {str(path): checkpoint.read_training(path)["score"] for path in kept}
    assert scores[outcome.result["checkpoint"]] == max(scores.values())


@pytest.mark.parametrize("workers", [1, 2])
def test_evaluate_gives_the_numbers_of_the_end_of_training(outcome, tmp_path, workers):
    file = tmp_path / "metrics.json"
    words = [
        "--checkpoint",
        outcome.result["checkpoint"],
        "--json",
        str(file),
        "--workers",
        str(workers),
    ]
    assert evaluate.main(words) == 0
    assert json.loads(file.read_text()) == pytest.approx(outcome.result["metrics"])


def test_a_checkpoints_placement_is_not_the_evaluations(outcome, tmp_path):
    folder = Path(shutil.copytree(outcome.result["checkpoint"], tmp_path / "far"))
    settings = config.load(folder / "config.json")
    elsewhere = {
        "train.gpus": "always",
        "cluster.train_node": "train",
        "cluster.decode_node": "decode",
        "cluster.cpus_per_worker": 7.0,
    }
    config.save(config.replace(settings, elsewhere), folder / "config.json")
    file = tmp_path / "metrics.json"
    assert evaluate.main(["--checkpoint", str(folder), "--json", str(file)]) == 0
    assert json.loads(file.read_text()) == pytest.approx(outcome.result["metrics"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far", "metrics.json"]
    with pytest.raises(ValueError, match="no node of this cluster has the label node-role=x"):
        evaluate.main(["--checkpoint", str(folder), "--cluster.train-node", "x"])


def test_a_finished_run_says_so(outcome, capsys):
    assert train.main(outcome.words) == 0
    shown = capsys.readouterr().out
    assert "run line is finished already" in shown
    assert "R@1" in shown
    assert "decoding" not in shown


def test_the_same_seed_gives_the_same_numbers_on_two_workers(outcome, home):
    words = [*outcome.words[:-1], "two", "--train.workers", "2"]
    assert train.main(words) == 0
    other = json.loads((home / "runs/two/result.json").read_text())
    runs = [
        checkpoint.read_training(result["checkpoint"])["history"]
        for result in (outcome.result, other)
    ]
    for history in runs:
        for row in history:
            for clock in ("time", "train/data_wait", "train/samples_per_second"):
                row.pop(clock, None)
    # The demo's batches are computed in two pieces, whoever computes them: not a bit differs.
    assert sum("train/loss" in row for row in runs[0]) == 20
    assert [row["step"] for row in runs[0] if "val/SumR" in row] == [0, 10, 20]
    assert runs[1] == runs[0]
    assert other["metrics"] == outcome.result["metrics"]


def test_a_checkpoint_of_another_shape(outcome, tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for file in Path(outcome.result["checkpoint"]).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = config.load(folder / "config.json")
    config.save(
        config.replace(settings, {"head.reorganise.keep_rate": 0.5}), folder / "config.json"
    )
    with pytest.raises(
        ValueError, match=r"weight head\..*of shape \(2, 2\) in the file and of shape \(13, 13\)"
    ):
        checkpoint.load(folder)


def test_an_unreadable_test_video_stops_evaluation_unless_allowed(
    outcome, home, corpus, tmp_path, capsys
):
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    (data / "videos/all/video63.mp4").write_bytes(b"not a video")
    words = ["--checkpoint", outcome.result["checkpoint"], "--root", str(data)]
    with pytest.raises(
        ValueError, match=r"1 of the test split's 16 videos.*video63.*--allow-unreadable 1"
    ):
        evaluate.main(words)
    assert evaluate.main([*words, "--allow-unreadable", "1"]) == 0
    assert "evaluated over 15 of 16 videos" in capsys.readouterr().out


def test_ray_job_submit_from_a_bare_checkout(outcome, quick, tmp_path):
    """A head on loopback and the job, with the project not installed but copied."""
    bare = tmp_path / "checkout"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], check=True, capture_output=True, text=True
    ).stdout
    for name in listed.splitlines():
        if name.startswith(("tcmgc/", "pipeline/", "tune_spaces/")) and (ROOT / name).is_file():
            (bare / name).parent.mkdir(parents=True, exist_ok=True)
            (bare / name).write_bytes((ROOT / name).read_bytes())
    short = tempfile.mkdtemp(prefix="ray")  # Ray's sockets have no room for a long path
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {
        "RAY_AUTH_MODE": "disabled",
        "TCMGC_HOME": str(tmp_path / "home"),
        "RAY_TMPDIR": short,
    }
    ports = [
        "--port=26379",
        "--dashboard-port=28265",
        "--dashboard-agent-listen-port=25365",
        "--ray-client-server-port=26001",
    ]
    head = [
        *ray,
        "start",
        "--head",
        "--dashboard-host=127.0.0.1",
        "--node-ip-address=127.0.0.1",
        "--num-cpus=2",
        *ports,
    ]
    head += [f"--temp-dir={short}", "--block"]
    submit = [
        *ray,
        "job",
        "submit",
        "--address",
        "http://127.0.0.1:28265",
        "--working-dir",
        str(bare),
        "--",
    ]
    command = [
        "env",
        f"TCMGC_HOME={tmp_path / 'home'}",
        sys.executable,
        "pipeline/train.py",
        "demo",
        *quick,
        "--train.epochs",
        "1",
    ]
    process = subprocess.Popen(
        head, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        _wait_for("http://127.0.0.1:28265/api/version")
        job = subprocess.run(
            [*submit, *command], env=environment, capture_output=True, text=True, check=False
        )
        assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
        assert "R@1" in job.stdout
        assert f"{tmp_path / 'home'}/runs" in job.stdout
    finally:
        # `ray start --block` takes its time over an orderly end; nothing here needs one.
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            one.kill()
        process.wait(30)
        shutil.rmtree(short, ignore_errors=True)


def _wait_for(address):
    import time
    import urllib.error
    import urllib.request

    for _ in range(240):
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return answer.read()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"nothing answers at {address}")
