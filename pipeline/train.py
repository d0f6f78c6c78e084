"""Train a recipe, evaluate its best checkpoint on the test split, record both in MLflow."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray
import ray.train

from pipeline import cli, evaluate, terminal, tracking
from pipeline.cluster import placement as cluster
from pipeline.cluster.trainer import Trainer
from pipeline.inputs import prepare
from pipeline.recording import describe
from pipeline.run_state import checkpoints, lock, news, notices, run_folder
from pipeline.training import loop
from tcmgc import model, storage
from tcmgc.config import Config, fingerprint, to_dict
from tcmgc.datasets import Corpus
from tcmgc.retrieval.metrics import format_table
from tcmgc.towers import backbone
from tcmgc.training import checkpoint, order


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
    resume: str | None = None
    """Run to go on with, by its folder or its MLflow run id, with its own config."""
    dry_run: bool = False
    """Show the config, the data that is there, memory and steps, and write nothing."""
    quiet: bool = False
    """Show nothing but the result and errors."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    words = list(sys.argv[1:] if argv is None else argv)
    resumed = _resumed(words)
    base = run_folder.config_of(resumed) if resumed else None
    arguments = cli.parse(Arguments, words, "python pipeline/train.py", str(__doc__), base=base)
    config = arguments.config
    name = arguments.run.name or f"{config.data.dataset}-{fingerprint(config)}"
    folder = cli.resolve(arguments.run.folder)
    if resumed:
        folder, name = run_folder.split(resumed)
    place = storage.join(folder, name)
    if arguments.dry_run:
        from pipeline import rehearsal

        rehearsal.show(config, place)
        return 0
    if finished := run_folder.read(place, run_folder.RESULT):
        print(f"run {name} is finished already; --run.name starts another")
        _show(finished)
        return 0
    with terminal.silent(arguments.quiet), lock.held(place):
        run_folder.enter(place, config)
        title = arguments.run.name or describe.run_name(config)
        outcome = _train(config, name, folder, title)
    _show(outcome)
    return 0


def _resumed(words: Sequence[str]) -> str | None:
    """Folder of the run that ``--resume`` names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--resume")
    try:
        run = parser.parse_known_args(words)[0].resume
    except argparse.ArgumentError:
        raise ValueError("--resume needs a run: its folder or its MLflow run id") from None
    if run is None:
        return None
    if not words[0].startswith("-") or "--config" in words:
        raise ValueError(
            "--resume goes on with the run's own config; leave the recipe or --config out"
        )
    folder = cli.resolve(run)
    return folder if run_folder.exists(folder, run_folder.CONFIG) else tracking.folder_of(run)


def _train(config: Config, name: str, folder: str, title: str) -> dict[str, Any]:
    """Everything from the data to the test split's metrics, in a folder that is ours."""
    place = storage.join(folder, name)
    terminal.header("run", f"{describe.method(config)}, recipe {describe.recipe(config)}")
    terminal.header("results", place)
    terminal.header("MLflow", tracking.shown())
    corpus = check(config)
    cluster.connect()
    terminal.header("device", cluster.placement(config).words(config))
    clips = [*corpus["train"].clips, *corpus["val"].clips]
    lost = prepare.fill(config, clips, "training and validation")
    corpus, unreadable = prepare.usable(config, corpus)
    run_id = tracking.start(config, title, place)
    tracking.inputs(run_id, config, corpus)
    tracking.describe_run(run_id, describe.training(config, place))
    if lost:
        what = f"{lost} batches of videos lost their decoding process and were tried again"
        tracking.interrupted(run_id, what)
    try:
        with tracking.system_metrics(run_id):
            result = fit(config, shared(corpus), name, folder, [tracking.MlflowCallback(run_id)])
            outcome = _finish(config, corpus, result, place, run_id, unreadable)
    except notices.Stopped as stop:
        tracking.interrupted(run_id, str(stop))
        tracking.end(run_id, "KILLED")
        raise
    except BaseException as error:
        tracking.end(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    outcome |= {"run": place, "mlflow": tracking.shown(), "mlflow_run": run_id}
    outcome |= {"page": tracking.page(run_id), "table": tracking.table(run_id)}
    run_folder.write(place, run_folder.RESULT, outcome)
    tracking.end(run_id, "FINISHED")
    return outcome


def check(config: Config) -> Corpus:
    """The corpus, once everything is known to fit that can be known without Ray.

    Raises:
        ValueError: data, towers, words, batch or head that cannot be had or do not go together.
    """
    corpus = prepare.corpus(config)
    backbone.tokenizer(config.towers.name, config.data.max_words)
    if len(corpus["val"]) < config.train.workers:
        raise ValueError(
            f"train.workers is {config.train.workers}, but validation has {len(corpus['val'])} videos: "
            "every worker needs one; lower it, or set more aside with data.val_videos"
        )
    weights = list(model.build(config).parameters())
    trained = sum(p.numel() for p in weights if p.requires_grad)
    terminal.header(
        "model",
        f"{sum(p.numel() for p in weights) / 1e6:.2f} M weights, {trained / 1e6:.2f} M trained",
    )
    each = order.steps_per_epoch(len(list(corpus["train"].pairs())), config.train.batch_size)
    terminal.header(
        "steps",
        f"{each * config.train.epochs}: {config.train.epochs} epochs of {each}, "
        f"{config.train.batch_size} pairs a step",
    )
    return corpus


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
        Stopped: SIGTERM came; the last step's checkpoint is written.
    """
    train, place = config.train, storage.join(folder, name)
    checkpoints.settle(place, loop.SCORE)
    board = notices.Board()
    wire = news.Wire(board.key)
    trainer = Trainer(
        loop.train_worker,
        train_loop_config={
            "config": to_dict(config),
            "corpus": corpus,
            "folder": place,
            "board": board,
        },
        scaling_config=cluster.placement(config).scaling(config),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=folder,
            failure_config=ray.train.FailureConfig(max_failures=train.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=train.keep_checkpoints, checkpoint_score_attribute=loop.SCORE
            ),
            callbacks=[*callbacks, news.Report(board.key)],
            worker_runtime_env=cluster.WORKERS,
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        with notices.on_sigterm(board) as came, terminal.following(wire):
            result = trainer.fit()
        if came:
            raise notices.Stopped(came[0], result.return_value)
        return result
    except ray.train.WorkerGroupError as error:
        for cause in error.worker_failures.values():
            if isinstance(cause, ValueError | FloatingPointError):
                raise ValueError(str(cause)) from error
        raise
    finally:
        board.wipe()
        wire.wipe()


def best(result: ray.train.Result) -> ray.train.Checkpoint:
    """The checkpoint with the highest validation score."""
    return max(result.best_checkpoints, key=lambda pair: pair[1][loop.SCORE])[0]


def _finish(
    config: Config,
    corpus: Corpus,
    result: ray.train.Result,
    place: str,
    run_id: str,
    unreadable: dict[str, str],
) -> dict[str, Any]:
    with result.checkpoint.as_directory() as last:
        history = checkpoint.read_training(last)["history"]
    tracking.complete(run_id, history)
    # By its own name: Ray's leaves out the scheme of a URI.
    chosen = storage.join(place, Path(best(result).path).name)
    metrics = evaluate.evaluate(config, chosen, corpus["test"], "test")
    # Here and not above: a trial of a search draws no page, and starts sooner without matplotlib.
    from pipeline import inspect_run

    tags = {"checkpoint": chosen, "unreadable": str(len(unreadable))}
    with tempfile.TemporaryDirectory() as made:
        page, listed = Path(made) / "validation.html", Path(made) / "unreadable.tsv"
        listed.write_text("".join(f"{clip}\t{reason}\n" for clip, reason in unreadable.items()))
        with best(result).as_directory() as local:
            inspect_run.small_page(config, local, corpus["val"], page)
        tracking.attach(run_id, page, inspect_run.ARTIFACTS)
        results = {f"test/{key}": value for key, value in metrics.items()}
        tracking.finish(run_id, results, tags, [listed] if unreadable else [])
    validation = describe.best(describe.best_epoch(history))
    validation = {key.removeprefix("best/"): value for key, value in validation.items()}
    validation["candidates"] = len(corpus["val"])
    text = describe.training(config, place, validation=validation, test=metrics, checkpoint=chosen)
    tracking.describe_run(run_id, text)
    return {"metrics": metrics, "checkpoint": chosen}


def _show(outcome: dict[str, Any]) -> None:
    print()
    print(format_table(outcome["metrics"]))
    print(f"\nrun:         {outcome['run']}")
    print(f"checkpoint:  {outcome['checkpoint']}")
    print(f"MLflow:      {outcome['mlflow']} (make ui), run {outcome['mlflow_run']}")
    print(f"             {outcome['page']}")
    print("             with a page of retrievals and attention among its artifacts")
    if "table" in outcome:
        print(f"all runs:    {outcome['table']}")


if __name__ == "__main__":
    cli.run(main)
