from pathlib import Path

import numpy as np
import pytest

from pipeline import tracking, train
from pipeline.run_state import run_folder
from tcmgc import config, recipes
from tcmgc.retrieval.metrics import retrieval_metrics


def test_a_json_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = str(tmp_path / "new")
    assert run_folder.read(folder, "a.json") is None
    run_folder.write(folder, "a.json", {"b": 1})
    assert run_folder.read(folder, "a.json") == {"b": 1}

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        run_folder.write(folder, "a.json", {"b": 2})
    assert run_folder.read(folder, "a.json") == {"b": 1}
    assert [path.name for path in Path(folder).iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    "folder", ["/x/runs/name", "/x/w?t/%41/name", "s3://bucket/runs/name?region=eu"]
)
def test_split_is_join_backwards(folder: str):
    from tcmgc import storage

    runs, name = run_folder.split(folder)
    assert name == "name"
    assert storage.join(runs, name) == folder


def test_a_folder_keeps_to_its_config(tmp_path: Path):
    folder, base = str(tmp_path), recipes.demo()
    run_folder.enter(folder, base)
    # Where and how often is free to change; what decides the result is not.
    run_folder.enter(
        folder,
        config.replace(base, {"train.workers": 2, "train.checkpoint_minutes": 5.0}),
    )
    with pytest.raises(ValueError, match=r"train.epochs \d+ there, 7 now.*--run.name"):
        run_folder.enter(folder, config.replace(base, {"train.epochs": 7}))
    assert run_folder.config_of(folder) == base


@pytest.mark.parametrize("name", ["größe é", "数据", "a b.c", "x" * 200])
def test_names_in_any_script(name: str):
    assert run_folder.checked_name(name) == name


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "../x", "a/b", "a\\b", "a\nb", " a", "ö" * 101]
)
def test_names_that_no_folder_can_have(name: str):
    with pytest.raises(ValueError, match=r"--run.name .* cannot be a folder's name"):
        run_folder.checked_name(name)


def refused(folder: str, checkpoint: bool = False) -> None:
    """A run that enters its folder and is refused then."""
    with run_folder.forgotten_if_refused(folder):
        run_folder.enter(folder, recipes.demo())
        if checkpoint:
            (Path(folder) / "checkpoint_1").mkdir()
        raise ValueError("refused")


def test_a_refused_run_leaves_its_name_free(tmp_path: Path):
    folder = str(tmp_path / "a")
    with pytest.raises(ValueError, match="refused"):
        refused(folder)
    assert not Path(folder).exists()
    # One that has a checkpoint, or that was there before, stays.
    with pytest.raises(ValueError, match="refused"):
        refused(folder, checkpoint=True)
    (Path(folder) / "checkpoint_1").rmdir()
    with pytest.raises(ValueError, match="refused"):
        refused(folder)
    assert run_folder.config_of(folder) == recipes.demo()


def test_resume_wants_a_run_that_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TCMGC_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ValueError, match="needs a run"):
        train.main(["--resume"])
    with pytest.raises(ValueError, match="own config"):
        train.main(["msrvtt_9k", "--resume", "runs/a"])
    with pytest.raises(ValueError, match="neither a run's folder nor an id"):
        train.main(["--resume", "runs/not-there"])


def test_a_finished_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("TCMGC_HOME", str(tmp_path))
    monkeypatch.setattr(tracking, "has_lost", lambda folder: False)
    run_folder.enter(str(tmp_path / "runs/done"), recipes.demo())
    metrics = retrieval_metrics(np.eye(3, dtype=np.float32), np.arange(3))
    names = ("run", "checkpoint", "mlflow", "mlflow_run", "page")
    outcome = {"metrics": metrics, **dict.fromkeys(names, "somewhere")}
    run_folder.write(str(tmp_path / "runs/done"), run_folder.RESULT, outcome)
    assert train.main(["--resume", "runs/done"]) == 0
    assert "run done is finished already" in capsys.readouterr().out
    # Another number of workers is the same run; other settings are another.
    assert train.main(["--resume", "runs/done", "--train.workers", "2"]) == 0
    for words in (["--resume", "runs/done"], ["demo", "--run.name", "done"]):
        with pytest.raises(ValueError, match=r"other settings \(train.epochs 4 there, 5 now\)"):
            train.main([*words, "--train.epochs", "5"])
    with pytest.raises(ValueError, match=r"leave --run\.name out"):
        train.main(["--resume", "runs/done", "--run.name", "other"])
