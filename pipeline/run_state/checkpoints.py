"""Checkpoints in a run's folder: written atomically, and recovered after a crash.

Ray Train keeps a list of the run's checkpoints in the folder. It writes that list in place, so a
controller that dies, or a full disk, can leave a truncated list; and a worker that dies right
after its report leaves a checkpoint that is not on it. :func:`settle` repairs both.
"""

import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
from pyarrow import fs

from pipeline.cluster import private
from pipeline.run_state import run_folder
from tcmgc import storage
from tcmgc.training.checkpoint import CONFIG, OPTIMISER, TOWER, TRAINING, WEIGHTS

LIST: str = private.of("ray.train.v2._internal.constants:CHECKPOINT_MANAGER_SNAPSHOT_FILENAME")
"""Ray Train's list of the run's checkpoints."""
_MANAGER = "ray.train.v2._internal.execution.checkpoint.checkpoint_manager:"
PREFIX, ASIDE = "checkpoint_", ".writing-"


@contextmanager
def aside(folder: str) -> Iterator[Path]:
    """A folder for writing a checkpoint: next to its destination if that is local, so moving is free.

    Raises:
        ValueError: the run's folder cannot be reached from this machine.
    """
    path = storage.without_scheme(folder)
    if not storage.is_uri(path) and not Path(path).is_dir():
        raise ValueError(
            f"{folder} is not there on {socket.gethostname()}, where a worker runs; with several nodes, "
            "--run.folder must be on a file system that all of them mount, or a URI such as s3://bucket/runs"
        )
    above = tempfile.gettempdir() if storage.is_uri(path) else path
    place = Path(above, f"{ASIDE}{uuid.uuid4().hex}")
    place.mkdir()  # with the umask's permissions; tempfile's are for one user only
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def try_save(save: Callable[[], None], patience: float, say: Callable[[str], None]) -> str | None:
    """Write a checkpoint; return the error if the disk does not accept it.

    A step's checkpoint may be skipped: training continues, and the previous one is kept. An
    epoch's is retried until ``patience`` seconds have passed.

    Raises:
        OSError: the disk did not accept it in that time.
    """
    until = time.monotonic() + patience
    while True:
        try:
            save()
            return None
        except OSError as error:
            if not patience:
                say(f"no checkpoint: {error}; the one before it is untouched, training goes on")
                return str(error)
            if time.monotonic() > until:
                raise
            say(f"no checkpoint yet: {error}; trying again for {until - time.monotonic():.0f} s")
            time.sleep(min(5.0, patience / 10))


def publish(folder: str, written: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
    """Move a temporary checkpoint to its destination atomically.

    In a local folder it is moved by one rename. On an object store, each file appears complete and
    ``training.json`` is last: a folder without it is not a checkpoint.
    """
    system, inner = storage.resolve(storage.join(folder, name))
    source = Path(written.path)
    if isinstance(system, fs.LocalFileSystem):
        os.rename(source, inner)
    else:
        system.create_dir(inner)  # Ray deletes old ones, for which Google's store needs a marker
        for file in sorted(source.iterdir(), key=lambda file: file.name == TRAINING):
            fs.copy_files(str(file), f"{inner}/{file.name}", destination_filesystem=system)
    return ray.train.Checkpoint(path=inner, filesystem=system)


@contextmanager
def local(folder: str) -> Iterator[str]:
    """Local path of the checkpoint: the folder itself, or a copy of a URI.

    Raises:
        ValueError: the URI is not a checkpoint.
    """
    path = storage.without_scheme(folder)
    if not storage.is_uri(path):
        yield path
        return
    system, inner = storage.resolve(folder)
    if system.get_file_info(f"{inner}/{TRAINING}").type != fs.FileType.File:
        raise ValueError(f"{storage.plain(folder)} is not a checkpoint: {TRAINING} missing")
    with tempfile.TemporaryDirectory() as copy:
        for file in (CONFIG, WEIGHTS, TRAINING, TOWER):
            if file != TOWER or run_folder.exists(folder, TOWER):
                fs.copy_files(f"{inner}/{file}", f"{copy}/{file}", source_filesystem=system)
        yield copy


def chosen(folder: str) -> str:
    """The checkpoint that a folder names: itself, or the best one of a run by its validation score.

    Raises:
        ValueError: a run without a checkpoint that has a score.
    """
    if run_folder.exists(folder, WEIGHTS):
        return folder
    scores = {}
    for name, files in storage.folders(folder).items():
        if name.startswith(PREFIX) and files >= {CONFIG, TRAINING, WEIGHTS}:
            training = run_folder.read(storage.join(folder, name), TRAINING) or {}
            if training.get("score") is not None:
                scores[name] = (training["score"], training["step"])
    if not scores:
        if not run_folder.exists(folder, CONFIG):
            return folder  # neither a run nor a checkpoint: reading it raises the error
        raise ValueError(
            f"run {storage.plain(folder)} has no checkpoint with a validation score yet: an epoch has to end first"
        )
    return storage.join(folder, max(scores, key=lambda name: scores[name]))


def latest(folder: str) -> str:
    """The run's checkpoint with the most steps.

    Raises:
        ValueError: there is none.
    """
    steps = {}
    for name, files in storage.folders(folder).items():
        if name.startswith(PREFIX) and TRAINING in files:
            training = run_folder.read(storage.join(folder, name), TRAINING)
            if training is not None:
                steps[name] = training["step"]
    if not steps:
        raise ValueError(f"run {storage.plain(folder)} has no checkpoint")
    return storage.join(folder, max(steps, key=lambda name: (steps[name], name)))


def settle(folder: str, score: str) -> int | None:
    """Make the folder's list of checkpoints consistent with its files, before any worker starts.

    Incomplete checkpoints are removed, complete ones missing from the list are added, and an
    unreadable list is rebuilt. Returns the step of the latest checkpoint.

    Args:
        folder: The run's.
        score: Name of the metric that checkpoints are chosen by.
    """
    whole: dict[str, dict[str, Any]] = {}
    for name, files in storage.folders(folder).items():
        place = storage.join(folder, name)
        if name.startswith(PREFIX) and files >= {CONFIG, OPTIMISER, TRAINING, WEIGHTS}:
            training = run_folder.read(place, TRAINING)
            if training is not None:
                whole[name] = training
                continue
        if name.startswith((PREFIX, ASIDE)):
            storage.remove_folder(place)
    listed = _listed(folder)
    if listed is None or listed != set(whole):
        _write_list(folder, whole, score)
    return max((training["step"] for training in whole.values()), default=None)


def _listed(folder: str) -> set[str] | None:
    """Names on the list; None if it cannot be read."""
    values = run_folder.read(folder, LIST)
    if values is None:
        return None
    try:
        state = private.of(_MANAGER + "_CheckpointManagerState").model_validate(values)
    except ValueError:
        return None
    return {result.checkpoint_dir_name for result in state.checkpoint_results}


def _write_list(folder: str, whole: dict[str, dict[str, Any]], score: str) -> None:
    if not whole:
        run_folder.remove(folder, LIST)
        return

    def value(training: dict[str, Any]) -> float:
        return -1.0 if training["score"] is None else training["score"]

    in_time = sorted(whole, key=lambda name: (whole[name]["step"], name))
    by_score = sorted(in_time, key=lambda name: value(whole[name]))
    make_result = private.of(_MANAGER + "_TrainingResultState")
    results = {
        name: make_result(
            checkpoint_dir_name=name,
            metrics={"history": [], score: value(training), "step": training["step"]},
        )
        for name, training in whole.items()
    }
    state = private.of(_MANAGER + "_CheckpointManagerState")(
        checkpoint_results=[results[name] for name in by_score],
        checkpoint_report_indices=[in_time.index(name) for name in by_score],
        latest_checkpoint_result=results[in_time[-1]],
        pending_training_results=[],
        pending_validation_specs=[],
        current_report_index=len(whole),
        validated_checkpoint_dir_names=[],
        timed_out_validation_checkpoint_dir_names=[],
        failed_validation_checkpoint_dir_names=[],
    )
    run_folder.write(folder, LIST, state.model_dump(mode="json"))
