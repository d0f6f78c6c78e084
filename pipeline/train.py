"""Train a recipe, evaluate its best checkpoint on the test split, record both in MLflow."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray
import ray.train
from ray.train.torch import TorchTrainer

from pipeline import cli, cluster, evaluate, loop, prepare, tracking
from tcmgc import backbone, checkpoint, model, order
from tcmgc.config import Config, fingerprint, to_dict
from tcmgc.datasets import Corpus
from tcmgc.metrics import format_table


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where the run is kept."""

    name: str | None = None
    """Name of the run and its folder; None: the recipe's data set and a fingerprint of the config."""
    folder: str = "runs"
    """Folder or URI that holds all runs."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    config: cli.Fields
    run: Run = field(default_factory=Run)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    arguments = cli.parse(Arguments, argv, "python pipeline/train.py", str(__doc__))
    config = arguments.config
    name = arguments.run.name or f"{config.data.dataset}-{fingerprint(config)}"
    folder = cli.resolve(arguments.run.folder)
    if finished := _result(folder, name):
        print(f"run {name} is finished already; --run.name starts another")
        _show(finished)
        return 0
    corpus = check(config)
    cluster.connect()
    cluster.placement(config)
    prepare.fill(config, [*corpus["train"].clips, *corpus["val"].clips], "training and validation")
    corpus, unreadable = prepare.usable(config, corpus)
    run_id = tracking.start(config, name, f"{folder}/{name}")
    try:
        with tracking.system_metrics(run_id):
            result = fit(config, shared(corpus), name, folder, [tracking.MlflowCallback(run_id)])
            outcome = _finish(config, corpus, result, run_id, unreadable)
    except BaseException as error:
        tracking.end(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    outcome |= {"run": f"{folder}/{name}", "mlflow": tracking.uri(), "mlflow_run": run_id}
    _write(folder, name, outcome)
    tracking.end(run_id, "FINISHED")
    _show(outcome)
    return 0


def shared(corpus: Corpus) -> list[Any]:
    """Training and validation split in Ray's object store, for :func:`fit`.

    The reference stands in a list: Ray would replace a bare one by what it refers to. The test
    split is not among what workers get.
    """
    return [ray.put({name: corpus[name] for name in ("train", "val")})]


def fit(
    config: Config, corpus: list[Any], name: str, folder: str, callbacks: list[Any]
) -> ray.train.Result:
    """Train with Ray Train; goes on where a run of this name and folder stopped.

    Args:
        config: The experiment.
        corpus: What :func:`shared` gives.
        name: The run's folder below ``folder``.
        folder: Folder or URI of all runs.
        callbacks: Run in Ray Train's controller.

    Raises:
        ValueError: what the workers found wrong with data or config.
    """
    train = config.train
    trainer = TorchTrainer(
        loop.train_worker,
        train_loop_config={
            "config": to_dict(config),
            "corpus": corpus,
        },
        scaling_config=cluster.placement(config).scaling(config),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=folder,
            failure_config=ray.train.FailureConfig(max_failures=train.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=train.keep_checkpoints, checkpoint_score_attribute=loop.SCORE
            ),
            callbacks=callbacks,
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        return trainer.fit()
    except ray.train.WorkerGroupError as error:
        for cause in error.worker_failures.values():
            if isinstance(cause, ValueError | FloatingPointError):
                raise ValueError(str(cause)) from error
        raise


def best(result: ray.train.Result) -> ray.train.Checkpoint:
    """The checkpoint with the highest validation score."""
    return max(result.best_checkpoints, key=lambda pair: pair[1][loop.SCORE])[0]


def _finish(
    config: Config,
    corpus: Corpus,
    result: ray.train.Result,
    run_id: str,
    unreadable: dict[str, str],
) -> dict[str, Any]:
    with result.checkpoint.as_directory() as last:
        history = checkpoint.read_training(last)["history"]
    tracking.complete(run_id, history)
    chosen = best(result)
    metrics = evaluate.evaluate(config, chosen.path, corpus["test"], "test")
    tags = {"checkpoint": chosen.path, "unreadable": str(len(unreadable))}
    tracking.finish(run_id, {f"test/{key}": value for key, value in metrics.items()}, tags)
    return {"metrics": metrics, "checkpoint": chosen.path}


def _place(folder: str, name: str) -> Path:
    return Path(folder) / name / "result.json"


def _write(folder: str, name: str, outcome: dict[str, Any]) -> None:
    _place(folder, name).write_text(json.dumps(outcome, indent=2) + "\n")


def _result(folder: str, name: str) -> dict[str, Any] | None:
    place = _place(folder, name)
    return json.loads(place.read_text()) if place.is_file() else None


def _show(outcome: dict[str, Any]) -> None:
    print()
    print(format_table(outcome["metrics"]))
    print(f"\nrun:         {outcome['run']}")
    print(f"checkpoint:  {outcome['checkpoint']}")
    print(f"MLflow:      {outcome['mlflow']} (make ui), run {outcome['mlflow_run']}")


if __name__ == "__main__":
    cli.run(main)
