"""The list of checkpoints that Ray Train keeps, and what a crash leaves of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import ray.train
from pyarrow import fs
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext
from safetensors.torch import load_file, save_file

from pipeline.run_state import checkpoints, run_folder
from tcmgc import config, model, recipes, storage
from tcmgc.training import checkpoint
from tcmgc.training.checkpoint import CONFIG, OPTIMISER, TOWER, TRAINING, WEIGHTS

SCORE = "val/SumR"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own reading


def make(run: Path, name: str, step: int, score: float | None) -> None:
    folder = run / name
    folder.mkdir(parents=True)
    for file in (CONFIG, OPTIMISER, WEIGHTS):
        (folder / file).write_text("{}")
    (folder / TRAINING).write_text(json.dumps({"step": step, "score": score, "history": []}))


def as_ray_sees(run: Path, keep: int = 2) -> CheckpointManager:
    config = ray.train.CheckpointConfig(num_to_keep=keep, checkpoint_score_attribute=SCORE)
    return CheckpointManager(config, StorageContext(str(run.parent), run.name))


def names(manager: CheckpointManager) -> list[str]:
    return [Path(result.checkpoint.path).name for result in manager.best_checkpoint_results]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints: of an epoch, of a better epoch, of a step after that."""
    run = tmp_path / "runs" / "a"
    make(run, "checkpoint_1", 10, 50.0)
    make(run, "checkpoint_2", 20, 70.0)
    make(run, "checkpoint_3", 25, None)
    return run


@pytest.mark.parametrize("torn", [None, "", '{"ray_version": "2.60', '{"checkpoint_results": []}'])
def test_a_list_that_is_torn_or_gone_is_made_anew(run: Path, torn: str | None):
    if torn is not None:
        (run / checkpoints.LIST).write_text(torn)
    assert checkpoints.settle(str(run), SCORE) == 25
    manager = as_ray_sees(run)
    assert Path(manager.latest_checkpoint_result.checkpoint.path).name == "checkpoint_3"
    assert names(manager)[-1] == "checkpoint_2"
    assert manager.latest_checkpoint_result.metrics["step"] == 25


def test_halves_are_removed_and_what_ray_did_not_know_is_added(run: Path):
    checkpoints.settle(str(run), SCORE)
    before = (run / checkpoints.LIST).read_text()
    assert checkpoints.settle(str(run), SCORE) == 25
    assert (run / checkpoints.LIST).read_text() == before
    make(run, "checkpoint_4", 30, 60.0)  # its worker died right after the report
    make(run, "checkpoint_5", 40, 60.0)
    (run / "checkpoint_5" / TRAINING).write_text('{"step": 40, "sc')
    make(run, "checkpoint_6", 40, 60.0)
    (run / "checkpoint_6" / OPTIMISER).unlink()
    make(run, f"{checkpoints.ASIDE}abc", 40, 60.0)
    assert checkpoints.settle(str(run), SCORE) == 30
    left = {path.name for path in run.iterdir() if path.is_dir()}
    assert left == {"checkpoint_1", "checkpoint_2", "checkpoint_3", "checkpoint_4"}
    latest = as_ray_sees(run).latest_checkpoint_result
    assert Path(latest.checkpoint.path).name == "checkpoint_4"


def test_a_list_of_checkpoints_that_are_gone(run: Path):
    checkpoints.settle(str(run), SCORE)
    for file in (run / "checkpoint_3").iterdir():
        file.unlink()
    (run / "checkpoint_3").rmdir()
    assert checkpoints.settle(str(run), SCORE) == 20
    assert set(names(as_ray_sees(run))) == {"checkpoint_1", "checkpoint_2"}


def test_a_run_in_a_bucket(run: Path, bucket: str):
    place = storage.join(bucket, "checkpoints", "a")
    system, inner = storage.resolve(place)
    for name in ("checkpoint_1", "checkpoint_2", "checkpoint_3"):
        written = ray.train.Checkpoint.from_directory(str(run / name))
        assert checkpoints.publish(place, written, name).path == f"{inner}/{name}"
    system.delete_file(f"{inner}/checkpoint_3/{TRAINING}")  # its worker died in between
    # As a copy of the bucket has it: without the folder's marker.
    for file in (CONFIG, OPTIMISER, WEIGHTS, TRAINING):
        fs.copy_files(
            str(run / "checkpoint_3" / file),
            f"{inner}/checkpoint_4/{file}",
            destination_filesystem=system,
        )
    assert checkpoints.settle(place, SCORE) == 25
    assert storage.folders(place).keys() == {"checkpoint_1", "checkpoint_2", "checkpoint_4"}
    config = ray.train.CheckpointConfig(num_to_keep=2, checkpoint_score_attribute=SCORE)
    manager = CheckpointManager(config, StorageContext(*run_folder.split(place)))
    assert Path(manager.latest_checkpoint_result.checkpoint.path).name == "checkpoint_4"
    assert names(manager)[-1] == "checkpoint_2"


def test_nothing_there_is_a_new_run(tmp_path: Path):
    (tmp_path / checkpoints.LIST).write_text("torn")
    assert checkpoints.settle(str(tmp_path), SCORE) is None
    assert not (tmp_path / checkpoints.LIST).exists()
    assert checkpoints.settle(str(tmp_path / "not-there"), SCORE) is None


def test_publishing_moves_a_whole_folder_into_place(tmp_path: Path):
    with checkpoints.aside(str(tmp_path)) as place:
        assert place.parent == tmp_path
        (place / TRAINING).write_text("{}")
        written = ray.train.Checkpoint.from_directory(str(place))
        published = checkpoints.publish(str(tmp_path), written, "checkpoint_1")
    assert published.path == str(tmp_path / "checkpoint_1")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_1"]


def test_a_run_folder_that_this_machine_does_not_see_is_refused(tmp_path: Path):
    with (
        pytest.raises(ValueError, match=r"--run.folder must be on a file system"),
        checkpoints.aside(str(tmp_path / "only-on-the-head")),
    ):
        pass


def test_a_full_disk_costs_a_steps_checkpoint_and_delays_an_epochs():
    tries: list[int] = []

    def save(until: int) -> Any:
        tries.append(1)
        if len(tries) < until:
            raise OSError(28, "No space left on device")

    said: list[str] = []
    trouble = checkpoints.try_save(lambda: save(2), 0.0, said.append)
    assert trouble is not None
    assert "No space" in trouble
    assert "untouched" in said[0]
    tries.clear()
    assert checkpoints.try_save(lambda: save(3), 1.0, said.append) is None
    assert len(tries) == 3
    with pytest.raises(OSError, match="No space"):
        checkpoints.try_save(lambda: save(10**6), 0.2, said.append)


@pytest.fixture
def saved(tower: str, tmp_path: Path) -> Path:
    """A checkpoint of a model that was never trained, in its place."""
    settings = config.replace(
        recipes.demo(), {"towers.name": tower, "temporal.layers": 0, "data.max_frames": 4}
    )
    training = {"step": 1, "score": 1.0, "history": []}
    with checkpoints.aside(str(tmp_path)) as place:
        checkpoint.save(place, settings, model.build(settings), None, training)
        return Path(shutil.copytree(place, tmp_path / "checkpoint_1"))


def test_files_have_the_rights_that_the_umask_gives(saved: Path, tmp_path: Path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "folder").mkdir()
    file, folder = ((tmp_path / name).stat().st_mode for name in ("plain", "folder"))
    assert {path.name: path.stat().st_mode for path in saved.iterdir()} == dict.fromkeys(
        (CONFIG, TOWER, TRAINING, WEIGHTS), file
    )
    assert saved.stat().st_mode == folder


def test_a_checkpoint_has_its_towers_file_with_it(saved: Path, tower: str):
    settings = json.loads((saved / CONFIG).read_text())
    assert settings["towers"]["name"] == tower
    settings["towers"]["name"] = "/gone/tiny.json"
    (saved / CONFIG).write_text(json.dumps(settings))
    found, _ = checkpoint.load(saved)
    assert found.towers.name == str(saved / TOWER)
    assert json.loads((saved / TOWER).read_text()) == json.loads(Path(tower).read_text())


def test_a_weight_that_is_not_finite_is_named(saved: Path):
    tensors = load_file(saved / WEIGHTS)
    tensors["visual.visual.proj"][0, 0] = float("nan")
    save_file(tensors, saved / WEIGHTS)
    with pytest.raises(
        ValueError, match=r"weight visual\.visual\.proj has values that are not finite"
    ):
        checkpoint.load(saved)


def test_training_that_cannot_be_read_is_named(saved: Path):
    (saved / TRAINING).write_text('{"step": 1')
    with pytest.raises(
        ValueError, match=r"training\.json cannot be read .*take another checkpoint"
    ):
        checkpoint.read_training(saved)
