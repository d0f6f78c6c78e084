"""Runs that are stopped or lose a worker end with the weights of the run that was left alone.

The rest of the faults (nodes, drivers, disks, servers) is in ``benchmarks/faults.py``.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from pipeline import cli, tracking, train
from pipeline.inputs import prepare
from pipeline.run_state import checkpoints, database, notices
from tcmgc import config, model, recipes
from tcmgc.config import Config
from tcmgc.training import checkpoint


class Runs:
    """Training alone: no test split, no MLflow."""

    def __init__(self, base: Config, folder: Path) -> None:
        self.config, self.folder = base, folder
        found = prepare.corpus(base)
        prepare.fill(base, [*found["train"].clips, *found["val"].clips], "all")
        self.corpus = train.shared(found)

    def fit(self, name: str, **changes: Any) -> tuple[list[dict[str, float]], dict[str, Any]]:
        """History and weights at the end."""
        changes = {f"train.{field}": value for field, value in changes.items()}
        chosen = config.replace(self.config, changes)
        result = train.fit(chosen, self.corpus, name, str(self.folder), [])
        last = Path(result.checkpoint.path)
        history = checkpoint.read_training(last)["history"]
        return history, load_file(last / checkpoint.WEIGHTS)


@pytest.fixture(scope="module")
def runs(cluster: None, quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    words = ["demo", *quick, "--train.checkpoint-steps", "3", "--cluster.cpus-per-worker", "0.5"]
    words += ["--train.epochs", "6"]  # long enough to be stopped half way
    arguments = cli.parse(train.Arguments, words, "test", "")
    return Runs(arguments.config, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> tuple[list[dict[str, float]], dict[str, Any]]:
    return runs.fit("undisturbed")


@contextmanager
def harm(runs: Runs, name: str, do: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as the run has a checkpoint."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if list((runs.folder / name).glob("checkpoint_*")):
                do()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def assert_same(found: Any, wanted: Any) -> None:
    history, weights = found
    assert [row["step"] for row in history] == [row["step"] for row in wanted[0]]
    for row, reference in zip(history, wanted[0], strict=True):
        assert row.keys() == reference.keys()
        for key in ("train/loss", "val/SumR"):
            if key in row:
                assert row[key] == pytest.approx(reference[key], abs=1e-6), (key, row["step"])
    for name, value in wanted[1].items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6)


def test_sigterm_makes_a_checkpoint_first_and_the_run_goes_on_from_it(runs: Runs, undisturbed: Any):
    stop = harm(runs, "stopped", lambda: os.kill(os.getpid(), signal.SIGTERM))
    with stop, pytest.raises(notices.Stopped, match="SIGTERM: stopped at step") as stopped:
        runs.fit("stopped")
    step = int(str(stopped.value).split("step ")[1].split(",")[0])
    assert 3 <= step < 60
    assert checkpoints.settle(str(runs.folder / "stopped"), "val/SumR") == step
    assert_same(runs.fit("stopped"), undisturbed)


@pytest.mark.slow
def test_a_killed_worker_of_two_costs_no_precision(runs: Runs):
    undisturbed = runs.fit("two", workers=2)

    def kill() -> None:
        for process in psutil.Process().children(recursive=True):
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::RayTrainWorker"):
                process.kill()
                return

    with harm(runs, "killed", kill):
        found = runs.fit("killed", workers=2)
    assert_same(found, undisturbed)


def test_the_clock_asks_for_checkpoints_and_news(monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(notices.time, "monotonic", lambda: now[0])
    watch = notices.Watch(board=None, minutes=2.0)
    monkeypatch.setattr(notices, "_LOOK", 1e9)
    assert watch.wishes() == notices.NOTHING
    now[0] += 119
    assert not watch.wishes() & notices.SAVE
    now[0] += 2
    assert watch.wishes() & notices.SAVE
    assert watch.wishes() & notices.TELL
    watch.note_saved()
    assert not watch.wishes() & (notices.SAVE | notices.TELL)
    now[0] += 16
    assert watch.wishes() & notices.TELL
    watch.note_told()
    assert not watch.wishes() & notices.TELL


def test_rows_wait_while_mlflow_is_away(monkeypatch: pytest.MonkeyPatch):
    kept: list[tuple[str, int]] = []
    tags: dict[str, str] = {}
    away = threading.Event()
    away.set()

    class Server:
        def get_metric_history(self, run_id: str, key: str) -> list[Any]:
            if away.is_set():
                raise ConnectionError("refused")
            return []

        def log_batch(self, run_id: str, metrics: list[Any]) -> None:
            kept.extend((metric.key, metric.step) for metric in metrics)

        def set_tag(self, run_id: str, key: str, value: str) -> None:
            tags[key] = value

    monkeypatch.setattr(tracking, "client", lambda uri, patience: Server())
    recorder = tracking.Recorder("run", "http://127.0.0.1:1")
    rows = [{"step": step, "time": 1.0, "train/loss": 0.5} for step in range(1, 6)]
    recorder.put(rows[:3])
    recorder.put(rows[2:])  # a restart sends some again
    time.sleep(0.3)
    assert kept == []
    away.clear()
    recorder.close(timeout=30)
    assert kept == [("train/loss", step) for step in range(1, 6)]
    assert "mlflow_away" in tags


def test_rows_of_a_run_that_mlflow_has_lost_are_given_up(monkeypatch: pytest.MonkeyPatch):
    class Server:
        def get_metric_history(self, run_id: str, key: str) -> list[Any]:
            raise database.RefusedError("MLflow at here: Run with id=run not found")

    monkeypatch.setattr(tracking, "client", lambda uri, patience: Server())
    recorder = tracking.Recorder("run", "http://127.0.0.1:1")
    recorder.put([{"step": 1, "time": 1.0, "train/loss": 0.5}])
    with pytest.raises(database.RefusedError, match="Run with id=run not found"):
        recorder.close(timeout=30)


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_leaves_word_and_a_second_one_ends(which: signal.Signals, capfd: Any):
    left: list[str] = []

    class Board:
        def leave(self, word: str) -> None:
            left.append(word)

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    with notices.on_stop_signals(Board()) as came:  # type: ignore[arg-type]
        os.kill(os.getpid(), which)
        assert came == left == [which.name]
        assert {one: signal.getsignal(one) for one in before} == before
    assert "stopping after this step" in capfd.readouterr().err
    assert {one: signal.getsignal(one) for one in before} == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_an_error_and_leaves_the_checkpoint_before_alone(
    small_disk: Path, tower: str
):
    settings = config.replace(
        recipes.demo(), {"towers.name": tower, "temporal.layers": 0, "data.max_frames": 4}
    )
    retriever = model.build(settings)
    (small_disk / "checkpoint_1").mkdir()
    (small_disk / "checkpoint_1" / "training.json").write_text("{}")
    with (
        pytest.raises(OSError, match="No space left"),
        checkpoints.aside(str(small_disk)) as place,
    ):
        checkpoint.save(place, settings, retriever, None, {"step": 2})
    assert [path.name for path in small_disk.iterdir()] == ["checkpoint_1"]
