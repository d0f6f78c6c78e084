"""MLflow's database: addresses, waiting, what is said when it cannot be reached, results kept beside it."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from pipeline import tracking, train
from pipeline.run_state import checkpoints, database, run_folder
from tcmgc import recipes


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, without MLflow's variables."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TCMGC_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", r"'nonsense', a folder of files.*`mlflow migrate-filestore`"),
        ("file:///tmp/mlruns", "a folder of files"),
        ("htp://127.0.0.1:5000", r"no store for; expected http://HOST:PORT"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:////dev/null/mlflow.db", "cannot be made"),
        ("http://127.0.0.1:1", r"does not answer \(Connection refused\); start its server"),
    ],
)
def test_an_address_that_is_none_is_one_sentence(
    address: str, message: str, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "AT_THE_START", 1.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(ValueError, match=message) as caught:
        database.check()
    assert "\n" not in str(caught.value)
    assert list(alone.iterdir()) == []


def test_a_check_makes_no_database(alone: Path) -> None:
    database.check()
    assert not database.is_there()
    assert tracking.experiments() == []
    assert tracking.find(str(alone / "runs/a/checkpoint_1")) is None
    assert list(alone.iterdir()) == []


def test_a_relative_address_is_one_database_everywhere(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///sub/mlflow.db?timeout=9")
    assert database.uri() == f"sqlite:///{alone}/sub/mlflow.db?timeout=9"
    elsewhere = alone / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert database.uri() == f"sqlite:///{alone}/sub/mlflow.db?timeout=9"
    assert database.environment()["MLFLOW_TRACKING_URI"] == database.uri()


def test_another_process_gets_what_the_driver_reaches_mlflow_with(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_RUN_ID", "of another program")
    given = database.environment()
    assert given["MLFLOW_TRACKING_USERNAME"] == "me"
    assert "MLFLOW_RUN_ID" not in given
    monkeypatch.setattr(os, "environ", {"MLFLOW_TRACKING_URI": "sqlite:////other.db"})
    database.adopt(given)
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{alone}/mlflow.db"


@pytest.mark.parametrize("name", ["%41 b", "what?", "größe", "a'b", "a#b"])
def test_a_database_in_a_folder_of_any_name(
    name: str, tmp_path: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / name
    home.mkdir()
    monkeypatch.setenv("TCMGC_HOME", str(home))
    run_id = tracking.start(recipes.demo(), "a", str(home / "runs/a"))
    (home / "note").write_text("x")
    tracking.attach(run_id, home / "note", "notes")
    assert tracking.run_of(str(home / "runs/a")).info.run_id == run_id
    assert (home / "mlflow.db").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert list(home.glob("mlartifacts/**/note"))


def test_a_locked_database_is_waited_for(alone: Path) -> None:
    run_id = tracking.start(recipes.demo(), "a", str(alone / "runs/a"))
    other = sqlite3.connect(alone / "mlflow.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    threading.Timer(1.5, lambda: other.execute("ROLLBACK")).start()
    begin = time.monotonic()
    tracking.finish(run_id, {"test/SumR": 1.0}, {})
    assert time.monotonic() - begin > 1
    assert tracking.run_of(str(alone / "runs/a")).data.metrics["test/SumR"] == 1.0


def failing(error: Exception, times: int) -> Any:
    left = [error] * times

    def call() -> str:
        if left:
            raise left.pop()
        return "done"

    return call


LOCKED = MlflowException("(sqlite3.OperationalError) database is locked", error_code=8)
LOCKED.error_code = "TEMPORARILY_UNAVAILABLE"


def test_what_may_still_change_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert database._ask(failing(LOCKED, 3), "sqlite:////a", 60) == "done"
    assert database._ask(failing(ConnectionError("refused"), 3), "http://a", 60) == "done"
    with pytest.raises(database.UnreachableError, match="is locked by another process"):
        database._ask(failing(LOCKED, 9), "sqlite:////a", 0)
    lost = MlflowException("Run with id=x not found")
    lost.error_code = "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(database.RefusedError, match="Run with id=x not found"):
        database._ask(failing(lost, 1), "sqlite:////a", 60)
    with pytest.raises(KeyError):  # a fault of ours is no fault of MLflow's
        database._ask(failing(KeyError("x"), 1), "sqlite:////a", 60)


@pytest.mark.slow
def test_four_runs_make_the_database_at_once(alone: Path) -> None:
    code = (
        "from pipeline import tracking; from tcmgc import recipes; import sys;"
        "tracking.start(recipes.demo(), sys.argv[1], '/runs/' + sys.argv[1])"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(4)
    ]
    said = [process.communicate(timeout=280)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 4, said
    assert len(tracking.find_runs("attributes.status = 'RUNNING'")) == 4
    assert sorted(path.name for path in alone.iterdir()) == ["mlartifacts", "mlflow.db"]


@pytest.fixture
def finished(alone: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """A run's folder after its last epoch, and its result that MLflow does not have yet."""
    place = str(alone / "runs/a")
    history = [{"step": 1, "time": 1.0, "train/loss": 2.0}]
    last = Path(place, "checkpoint_1")
    run_folder.enter(place, recipes.demo())
    run_folder.write(str(last), "training.json", {"step": 1, "score": 1.0, "history": history})
    outcome = {"metrics": {"SumR": 9.0}, "checkpoint": str(last), "run": place, "recorded": False}
    outcome |= {"mlflow_run": None, "page": None}
    run_folder.write(place, run_folder.RESULT, outcome)
    return place, outcome


def test_a_result_that_mlflow_does_not_take_stays_beside_the_run(
    finished: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, outcome = finished

    def away(*arguments: Any) -> None:
        raise database.UnreachableError("MLflow's database x is locked by another process")

    monkeypatch.setattr(tracking, "run_of", away)
    with pytest.raises(
        ValueError, match=r"its result is in .*/runs/a/result\.json, but MLflow.*locked"
    ):
        train._record(recipes.demo(), "a", place, outcome)
    kept = run_folder.read(place, run_folder.RESULT)
    assert kept is not None
    assert kept["metrics"] == {"SumR": 9.0}
    assert kept["recorded"] is False


def test_the_latest_checkpoint_is_the_one_with_the_most_steps(finished: Any) -> None:
    place, _ = finished
    run_folder.write(f"{place}/checkpoint_0", "training.json", {"step": 7, "score": None})
    run_folder.write(f"{place}/evaluation-1", "training.json", {"step": 9, "score": None})
    assert checkpoints.latest(place) == f"{place}/checkpoint_0"
    with pytest.raises(ValueError, match="has no checkpoint"):
        checkpoints.latest(f"{place}/checkpoint_0")
