"""What a trial of a sweep runs: training as ever, or training on frozen towers' features."""

import functools
import json
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
from pipeline.sweeps.plan import Sweep
from tcmgc import model
from tcmgc.config import Config
from tcmgc.training import checkpoint, frozen

Row = dict[str, float]


class Report(TuneReportCallback):
    """Tells Tune of every validation, and of nothing else."""

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Pass on the last row of rank 0's history where it ends an epoch."""
        history = metrics[0]["history"]
        if history and "epoch" in history[-1]:
            super().after_report(run_context, [validation(history[-1])], checkpoint)


def validation(row: Row) -> Row:
    """The part of a history row that says how good the model is."""
    return {key: value for key, value in row.items() if key == "epoch" or key.startswith("val/")}


def train_trial(settings: dict[str, Any], sweep: Sweep, corpus: list[Any], parent: str) -> None:
    """A trial that trains like `pipeline/train.py`: the same trainer, on the shared corpus."""

    def work(config: Config, name: str, run_id: str) -> list[Row]:
        cluster.tell_which()
        callbacks = [tracking.MlflowCallback(run_id), Report()]
        result = train.fit(config, corpus, name, sweep.trials, callbacks)
        with result.checkpoint.as_directory() as last:
            return checkpoint.read_training(last)["history"]

    _record(settings, sweep, parent, work)


def frozen_trial(settings: dict[str, Any], sweep: Sweep, features: str, parent: str) -> None:
    """A trial on features of towers that stand still."""
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
    return frozen.load(path)


def _record(
    settings: dict[str, Any],
    sweep: Sweep,
    parent: str,
    work: Callable[[Config, str, str], list[Row]],
) -> None:
    """Do the work once: a trial that is done already says its result again."""
    trial = ray.tune.get_context().get_trial_id()
    name = sweep.run(settings, trial)
    place = Path(sweep.trials) / name / "result.json"
    if place.is_file():
        outcome = json.loads(place.read_text())
        if "error" in outcome:
            raise RuntimeError(f"{outcome['error']} (delete {place} to try once more)")
        ray.tune.report(outcome)
        return
    config = sweep.config(settings)
    run_id = start(sweep, settings, trial, parent)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        history = work(config, name, run_id)
    except (ValueError, FloatingPointError) as error:
        # The same config fails again: the next attempt need not train to find out.
        place.write_text(json.dumps({"error": str(error)}))
        tracking.finish(run_id, {}, {"status": f"failed: {error}"})
        tracking.end(run_id, "FAILED")
        raise
    epochs = [row for row in history if "epoch" in row]
    tracking.complete(run_id, history)
    finish(run_id, sweep, config, epochs, "finished", "FINISHED")
    outcome = {**validation(best(epochs, sweep)), "epoch": config.train.epochs, "finished": True}
    place.write_text(json.dumps(outcome))
    ray.tune.report(outcome)


def start(sweep: Sweep, settings: dict[str, Any], trial: str, parent: str) -> str:
    """The trial's MLflow run, below the sweep's."""
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
    folder = f"{sweep.trials}/{sweep.run(settings, trial)}"
    return tracking.start(config, name, folder, tags, {**sweep.params(config), "seed": seed})


def finish(
    run_id: str, sweep: Sweep, config: Config, epochs: Sequence[Row], status: str, state: str
) -> None:
    """The best epoch's metrics under ``best/``, parameter counts, and how the trial ended."""
    summary: Row = {}
    if epochs:
        row = best(epochs, sweep)
        summary = {key.replace("val/", "best/"): value for key, value in validation(row).items()}
        summary["best/epoch"] = summary.pop("epoch")
    if (count := model.aggregation_parameters(config)) is not None:
        summary["isa_parameters"] = float(count)
    tracking.finish(run_id, summary, {"status": status})
    tracking.end(run_id, state)


def best(epochs: Sequence[Row], sweep: Sweep) -> Row:
    """The epoch that the checkpoint would be taken from."""
    return max(epochs, key=lambda row: row[sweep.space.metric])


def stopped_history(last: Row) -> list[Row]:
    """All of a stopped trial's history, from its last checkpoint; none where it wrote none."""
    path = str(last.get("checkpoint_path", ""))
    return checkpoint.read_training(path)["history"] if path and Path(path).is_dir() else []
