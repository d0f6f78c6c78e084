"""A sweep's trials: normal training, or training on frozen towers' features."""

import contextlib
import functools
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray.tune
import torch
from ray.train import Checkpoint
from ray.tune.integration.ray_train import TuneReportCallback

from pipeline import cli, tracking, train
from pipeline.cluster import placement as cluster
from pipeline.interface import describe
from pipeline.run_state import checkpoints, database, run_folder
from pipeline.sweeps.plan import Sweep
from pipeline.training import evaluation
from tcmgc import datasets, model, storage
from tcmgc.config import Config
from tcmgc.training import checkpoint, frozen

Row = dict[str, float]
FINISHED, STOPPED = "finished", "stopped early"
"""Possible final states of a trial with a score."""
log = logging.getLogger(__name__)


class Report(TuneReportCallback):
    """Reports validations, and nothing else, to Tune."""

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Pass on the last row of rank 0's history if it ends an epoch."""
        history = metrics[0]["history"]
        if history and "epoch" in history[-1]:
            super().after_report(run_context, [validation(history[-1])], checkpoint)


def validation(row: Row) -> Row:
    """The validation metrics of a history row."""
    return {key: value for key, value in row.items() if key == "epoch" or key.startswith("val/")}


def train_trial(
    settings: dict[str, Any],
    sweep: Sweep,
    corpus: list[Any],
    parent: str,
    variables: dict[str, str],
    test: Sequence[Any] = (),
) -> None:
    """A trial that trains like `pipeline/train.py`: the same trainer, on the shared corpus.

    Args:
        settings: The trial's settings from Tune.
        sweep: The sweep.
        corpus: Result of :func:`pipeline.train.shared`.
        parent: MLflow's id of the sweep.
        variables: The driver's variables for MLflow.
        test: A reference to the split on which the best checkpoint is evaluated at the end; or none.
    """
    database.adopt(variables)

    def work(config: Config, name: str, run_id: str) -> list[Row]:
        cluster.tell_which()
        callbacks = [tracking.MlflowCallback(run_id), Report()]
        shown = corpus
        if sweep.shuffles(settings):
            found = ray.get(corpus[0])
            mixed = datasets.shuffled(found["train"], config.train.seed)
            shown = train.shared({**found, "train": mixed})
        result = train.fit(config, shown, name, sweep.trials, callbacks)
        with result.checkpoint.as_directory() as last:
            return checkpoint.read_training(last)["history"]

    def examine(config: Config, folder: str) -> Row:
        return evaluation.evaluate(config, checkpoints.chosen(folder), ray.get(test[0]), "test")

    _record(settings, sweep, parent, work, examine if test else None)


def frozen_trial(
    settings: dict[str, Any], sweep: Sweep, features: str, parent: str, variables: dict[str, str]
) -> None:
    """A trial on features of frozen towers; arguments as in :func:`train_trial`."""
    database.adopt(variables)
    cli.quiet()
    gpu = bool(ray.get_gpu_ids())
    torch.set_num_threads(1)

    def work(config: Config, name: str, run_id: str) -> list[Row]:
        device = "cuda" if gpu else "cpu"
        run = frozen.FrozenTrainer(config, _features(features), device, pairs=sweep.pairs)

        def scores() -> Row:
            return {f"val/{key}": value for key, value in run.evaluate().items()}

        history = [{"step": 0, "time": time.time(), **scores()}]
        tracking.complete(run_id, history)
        for epoch in range(1, config.train.epochs + 1):
            terms = {f"train/{key}": value for key, value in run.epoch().items()}
            row = {"step": run.done, "time": time.time(), "epoch": epoch, **terms, **scores()}
            history.append(row)
            tracking.complete(run_id, [row])
            ray.tune.report(validation(row))
        return history

    _record(settings, sweep, parent, work)


@functools.lru_cache(maxsize=1)
def _features(path: str) -> frozen.Features:
    if not storage.is_uri(path):
        return frozen.load(Path(path))
    with tempfile.TemporaryDirectory() as made:
        return frozen.load(storage.download(path, Path(made) / "features.safetensors"))


def _record(
    settings: dict[str, Any],
    sweep: Sweep,
    parent: str,
    work: Callable[[Config, str, str], list[Row]],
    examine: Callable[[Config, str], Row] | None = None,
) -> None:
    """Do the work once: a finished trial only reports its result again.

    The result is first stored in the trial's folder. If MLflow does not accept it, the driver
    sends it at the end of the sweep (:func:`settle`).
    """
    trial = ray.tune.get_context().get_trial_id()
    folder = sweep.trial_folder(settings, trial)
    kept = run_folder.read(folder, run_folder.RESULT)
    if kept is not None:
        if "error" in kept:
            place = storage.join(folder, run_folder.RESULT)
            raise RuntimeError(f"{kept['error']} (delete {place} to try once more)")
        for row in [kept["outcome"]] if kept["status"] == FINISHED else kept["epochs"]:
            ray.tune.report(validation(row) | ({"finished": True} if "finished" in row else {}))
        return
    config = sweep.config(settings)
    run_id = start(sweep, settings, trial, parent)
    try:
        history = work(config, sweep.run(settings, trial), run_id)
        test = {} if examine is None else examine(config, folder)
    except database.UnreachableError:
        raise  # another attempt may reach MLflow
    except (ValueError, FloatingPointError) as error:
        # The same config would fail again: the next attempt need not train.
        run_folder.write(folder, run_folder.RESULT, {"error": str(error)})
        with contextlib.suppress(database.UnreachableError, database.RefusedError):
            tracking.finish(run_id, {}, {"status": f"failed: {error}"})
            tracking.end(run_id, "FAILED")
        raise
    epochs = [row for row in history if "epoch" in row]
    outcome = keep(sweep, config, folder, epochs, FINISHED, test)
    try:
        tracking.complete(run_id, history)
        tracking.finish(run_id, tested(test), {})
        finish(run_id, sweep, config, epochs, FINISHED, "FINISHED")
    except (database.UnreachableError, database.RefusedError) as error:
        log.warning("%s; the trial's result is in %s", error, storage.plain(folder))
    ray.tune.report(outcome)


def keep(
    sweep: Sweep,
    config: Config,
    folder: str,
    epochs: Sequence[Row],
    status: str,
    test: Row | None = None,
) -> dict[str, Any]:
    """Write a trial's result into its folder; return the final report for Tune."""
    outcome: dict[str, Any] = {}
    if epochs:
        outcome = {**validation(best(epochs, sweep)), "epoch": epochs[-1]["epoch"]}
    if status == FINISHED:
        outcome |= {"epoch": config.train.epochs, "finished": True}
    kept = {"status": status, "outcome": outcome, "epochs": list(epochs), "test": test or {}}
    run_folder.write(folder, run_folder.RESULT, kept)
    return outcome


def tested(metrics: Row) -> Row:
    """Metrics of the test split by their names in a run's record."""
    return {f"test/{key}": value for key, value in metrics.items()}


def settle(sweep: Sweep, trials: Sequence[tuple[dict[str, Any], str]], parent: str) -> None:
    """Complete MLflow's record of a sweep's trials from their folders.

    A trial whose run was lost, or could not be closed, is sent again; runs of trials that a killed
    sweep started and Tune no longer knows are closed.

    Args:
        sweep: The sweep.
        trials: Settings and id of every trial that has ended.
        parent: MLflow's id of the sweep.
    """
    known = set()
    for settings, trial in trials:
        folder = sweep.trial_folder(settings, trial)
        known.add(folder)
        kept = run_folder.read(folder, run_folder.RESULT)
        run = tracking.run_of(folder)
        if kept is None or (run is not None and run.info.status != "RUNNING"):
            continue
        run_id = start(sweep, settings, trial, parent)
        if "error" in kept:
            tracking.finish(run_id, {}, {"status": f"failed: {kept['error']}"})
            tracking.end(run_id, "FAILED")
            continue
        tracking.complete(run_id, history(folder) or kept["epochs"])
        tracking.finish(run_id, tested(kept.get("test", {})), {})
        state = "FINISHED" if kept["status"] == FINISHED else "KILLED"
        finish(run_id, sweep, sweep.config(settings), kept["epochs"], kept["status"], state)
    for run in tracking.children(parent):
        if run.info.status == "RUNNING" and run.data.tags["folder"] not in known:
            tracking.finish(run.info.run_id, {}, {"status": "lost: its sweep was killed"})
            tracking.end(run.info.run_id, "KILLED")


def history(folder: str) -> list[Row]:
    """A trial's complete history, from its last checkpoint; empty if it wrote none."""
    try:
        latest = checkpoints.latest(folder)
    except ValueError:
        return []
    return (run_folder.read(latest, checkpoint.TRAINING) or {}).get("history", [])


def start(sweep: Sweep, settings: dict[str, Any], trial: str, parent: str) -> str:
    """Start the trial's MLflow run, a child of the sweep's run."""
    config = sweep.config(settings)
    label, seed = sweep.label(settings, trial), sweep.seed(settings)
    tags = {
        "kind": "trial",
        "space": sweep.space.name,
        "variant": label,
        "seed": str(seed),
        "mlflow.parentRunId": parent,
    }
    name = f"{label}, seed {seed}" if sweep.seeds > 1 else label
    folder = sweep.trial_folder(settings, trial)
    return tracking.start(config, name, folder, tags)


def finish(
    run_id: str, sweep: Sweep, config: Config, epochs: Sequence[Row], status: str, state: str
) -> None:
    """Log the best epoch's metrics under ``best/``, parameter counts, and the trial's final state."""
    summary: Row = {}
    if epochs:
        summary = describe.best(best(epochs, sweep))
    if (count := model.aggregation_parameters(config)) is not None:
        summary["isa_parameters"] = float(count)
    tracking.finish(run_id, summary, {"status": status})
    tracking.end(run_id, state)


def best(epochs: Sequence[Row], sweep: Sweep) -> Row:
    """The epoch of the checkpoint that would be chosen."""
    return max(epochs, key=lambda row: row[sweep.space.metric])
