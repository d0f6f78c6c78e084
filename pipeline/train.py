"""Train a recipe, evaluate its best checkpoint on the test split, record both in MLflow."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import ray
import ray.train

from pipeline import cli, tracking
from pipeline.cluster import placement as cluster
from pipeline.cluster.trainer import Trainer
from pipeline.inputs import prepare
from pipeline.interface import describe, terminal
from pipeline.run_state import checkpoints, lock, news, notices, run_folder
from pipeline.training import evaluation, loop, profiling
from tcmgc import model, storage
from tcmgc.config import Cluster, Config, fingerprint, flatten, replace, to_dict
from tcmgc.datasets import Corpus
from tcmgc.retrieval.metrics import format_chance, format_table
from tcmgc.towers import backbone, freezing
from tcmgc.training import checkpoint, order


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where the run is kept."""

    name: str | None = None
    """Name of the run and its folder; None: the recipe's data set and a fingerprint of the config."""
    folder: str = "runs"
    """Folder or URI that holds all runs."""
    log_model: bool = True
    """Log the best checkpoint as an MLflow model."""
    register: str | None = None
    """Name to register that model under."""


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
    folder = cli.resolve(arguments.run.folder)
    if arguments.run.register and not arguments.run.log_model:
        raise ValueError("--run.register names the logged model; leave --run.log-model False out")
    if resumed:
        _refuse_a_place(arguments.run)
        folder, name = run_folder.split(resumed)
    else:
        given = arguments.run.name or f"{config.data.dataset}-{fingerprint(config)}"
        name = run_folder.checked_name(given)
    place = storage.join(folder, name)
    if arguments.dry_run:
        from pipeline.interface import rehearsal

        rehearsal.show(config, place)
        return 0
    title = arguments.run.name or describe.run_name(config)
    with terminal.silent(arguments.quiet):
        outcome = _outcome(config, base, title, name, folder)
    try:
        if not outcome.get("recorded", True) or tracking.has_lost(place):
            with terminal.silent(arguments.quiet), lock.held(place):
                outcome = _record(config, title, place, outcome)
        outcome = _log_model(config, place, outcome, arguments.run)
    finally:
        _show(outcome)
    return 0


def _outcome(
    config: Config, base: Config | None, title: str, name: str, folder: str
) -> dict[str, Any]:
    """The result of a run: what is there of a finished one, or what training gives."""
    place = storage.join(folder, name)
    outcome = run_folder.read(place, run_folder.RESULT) if run_folder.agree(place, config) else None
    if outcome:
        print(f"run {name} is finished already; --run.name starts another")
        return outcome
    cli.refuse_folder("--run.folder", folder)
    lock.refuse_if_held(place)
    terminal.header("run", f"{describe.method(config)}, recipe {describe.recipe(config)}")
    terminal.header("results", storage.plain(place))
    terminal.header("MLflow", tracking.shown())
    config, corpus, lost = _prepare(config, base)
    with run_folder.forgotten_if_refused(place), lock.held(place):
        run_folder.enter(place, config)
        return _train(config, corpus, title, name, folder, lost)


def _refuse_a_place(run: Run) -> None:
    """Raise where a command that resumes a run names another place for it."""
    usual = Run()
    given = [f"--run.{name}" for name in ("name", "folder") if vars(run)[name] != vars(usual)[name]]
    if given:
        raise ValueError(
            f"--resume goes on in the run's own folder; leave {' and '.join(given)} out"
        )


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


def _prepare(config: Config, base: Config | None) -> tuple[Config, Corpus, int]:
    """Everything that can be refused, and everything decoded, before the run has a folder.

    Gives the config as it is placed here, the corpus of videos that can be read, and how many
    batches of videos were decoded anew because their process was lost.

    Args:
        config: Of the run.
        base: As the run was started, where it is resumed.
    """
    corpus = check(config)
    tracking.check(config.data.dataset)
    cluster.connect()
    try:
        found = cluster.require(config)
    except ValueError as error:
        if base is None or (placed := _placed_anew(config, base)) == config:
            raise
        print(f"the run's own placement does not fit here, and is left out: {error}")
        config = placed
        found = cluster.require(config)
    terminal.header("device", found.words(config))
    clips = [*corpus["train"].clips, *corpus["val"].clips]
    lost = prepare.fill(config, clips, "training and validation")
    return config, prepare.usable(config, corpus)[0], lost


def _placed_anew(config: Config, base: Config) -> Config:
    """The config with the usual placement, but for what this command itself asks for."""
    usual = {f"cluster.{name}": value for name, value in vars(Cluster()).items()}
    usual |= {"train.gpus": "auto", "train.min_workers": 0}
    mine, theirs = flatten(config), flatten(base)
    return replace(config, {path: usual[path] for path in usual if mine[path] == theirs[path]})


def _train(
    config: Config, corpus: Corpus, title: str, name: str, folder: str, lost: int
) -> dict[str, Any]:
    """Train and evaluate in a folder that is ours; the result is written there."""
    place = storage.join(folder, name)
    run_id = tracking.start(config, title, place)
    tracking.inputs(run_id, config, corpus)
    tracking.describe_run(run_id, describe.training(config, storage.plain(place)))
    if lost:
        what = f"{lost} batches of videos lost their decoding process and were tried again"
        tracking.interrupted(run_id, what)
    try:
        with tracking.system_metrics(run_id):
            result = fit(config, shared(corpus), name, folder, [tracking.MlflowCallback(run_id)])
            # By its own name: Ray's leaves out the scheme of a URI.
            chosen = storage.join(place, Path(best(result).path).name)
            holes = len(corpus["test"].missing) if config.data.allow_unfit else 0
            metrics = evaluation.evaluate(
                config, chosen, corpus["test"], "test", allow_unreadable=holes
            )
    except BaseException as error:
        if isinstance(error, notices.Stopped):
            tracking.interrupted(run_id, str(error))
        tracking.end_failed(run_id, error)
        raise
    # Before anything more is sent to MLflow: that it cannot be reached must not cost the result.
    outcome = {"metrics": metrics, "checkpoint": chosen, "run": place, "recorded": False}
    outcome |= {"mlflow": tracking.shown(), "mlflow_run": run_id, "page": None, "model": None}
    run_folder.write(place, run_folder.RESULT, outcome)
    return outcome


def _record(config: Config, title: str, place: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """Send a finished run's history, metrics and pages to MLflow, and note that in its result.

    A run that MLflow has lost is made anew.

    Raises:
        ValueError: MLflow does not take it; the result is beside the run, and the same command
            tries again.
    """
    try:
        known = tracking.run_of(place)
        run_id = known.info.run_id if known else tracking.start(config, title, place)
        if run_id != outcome["mlflow_run"]:
            outcome = {k: v for k, v in outcome.items() if k != "registered"} | {"model": None}
        with checkpoints.local(checkpoints.latest(place)) as last:
            history = checkpoint.read_training(last)["history"]
        tracking.complete(run_id, history)
        corpus, unreadable = prepare.usable(config, prepare.splits(config))
        # Here and not above: a trial of a sweep draws no page, and starts sooner without matplotlib.
        from pipeline import inspect_run

        chosen = outcome["checkpoint"]
        tags = {"checkpoint": chosen, "unreadable": str(len(unreadable))}
        with tempfile.TemporaryDirectory() as made:
            page, listed = Path(made) / "validation.html", Path(made) / "unreadable.tsv"
            listed.write_text("".join(f"{clip}\t{reason}\n" for clip, reason in unreadable.items()))
            with checkpoints.local(chosen) as local:
                inspect_run.small_page(config, local, corpus["val"], page, shown=chosen)
            tracking.attach(run_id, page, inspect_run.ARTIFACTS)
            for file in profiling.fetch(place, Path(made)):
                tracking.attach(run_id, file, profiling.FOLDER)
            results = {f"test/{key}": value for key, value in outcome["metrics"].items()}
            tracking.finish(run_id, results, tags, [listed] if unreadable else [])
        found = describe.best(describe.best_epoch(history))
        text = describe.training(
            config,
            storage.plain(place),
            validation={key.removeprefix("best/"): value for key, value in found.items()},
            test=outcome["metrics"],
            checkpoint=storage.plain(chosen),
        )
        tracking.describe_run(run_id, text)
        tracking.end(run_id, "FINISHED")
        outcome = outcome | {"mlflow": tracking.shown(), "mlflow_run": run_id, "recorded": True}
        outcome |= {"page": tracking.page(run_id), "table": tracking.table(run_id)}
    except ValueError as error:
        raise ValueError(
            f"the run is finished and its result is in {storage.plain(place)}/{run_folder.RESULT}, but MLflow does not "
            f"have it: {error}; the same command sends it again"
        ) from error
    run_folder.write(place, run_folder.RESULT, outcome)
    return outcome


def _log_model(config: Config, place: str, outcome: dict[str, Any], run: Run) -> dict[str, Any]:
    """The best checkpoint as an MLflow model, once; and its name in the registry, where one is asked for."""
    waits = "model" in outcome and outcome["model"] is None
    if not run.log_model or not (waits or run.register):
        return outcome
    try:
        return _logged(config, place, outcome, run.register)
    except ValueError as error:
        raise ValueError(
            f"the run is finished and its result is in {storage.plain(place)}/{run_folder.RESULT}, but its model is not "
            f"in MLflow: {error}; the same command tries again"
        ) from error


def _logged(
    config: Config, place: str, outcome: dict[str, Any], name: str | None
) -> dict[str, Any]:
    # Here and not above: it loads pandas and MLflow's flavours, which training does not need.
    from pipeline.serving import logged_model

    if outcome.get("model") is None:
        tags = {"method": describe.method(config), "recipe": describe.recipe(config)}
        tags |= {"checkpoint": storage.plain(outcome["checkpoint"])}
        measured = {f"test/{key}": value for key, value in outcome["metrics"].items()}
        measured |= tracking.best_of(outcome["mlflow_run"])
        with checkpoints.local(outcome["checkpoint"]) as local:
            model_uri = logged_model.log(outcome["mlflow_run"], local, tags, measured)
        outcome = outcome | {"model": model_uri}
        run_folder.write(place, run_folder.RESULT, outcome)
    if name and not str(outcome.get("registered", "")).startswith(f"models:/{name}/"):
        outcome = outcome | {"registered": logged_model.register(outcome["model"], name)}
        run_folder.write(place, run_folder.RESULT, outcome)
    return outcome


def check(config: Config, splits: Sequence[str] | None = None) -> Corpus:
    """The corpus, once everything is known to fit that can be known without Ray.

    Args:
        config: The experiment.
        splits: Those whose data have to be fit; None: all.

    Raises:
        ValueError: data, towers, words, batch or head that cannot be had or do not go together.
    """
    cli.refuse_folder("--data.cache", config.data.cache)
    freezing.check(
        config.towers.pretrained, config.towers.freeze, learns_tokens=config.tokens.learns
    )
    corpus = prepare.corpus(config)
    backbone.tokenizer(config.towers.name, config.data.max_words)
    prepare.look(config, corpus, splits)
    each = order.steps_per_epoch(len(list(corpus["train"].pairs())), config.train.batch_size)
    prepare.say_same_video(config, corpus["train"])
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
        Stopped: SIGTERM or Ctrl-C came; the last step's checkpoint is written.
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
        with notices.on_stop_signals(board) as came, terminal.following(wire):
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


def _show(outcome: dict[str, Any]) -> None:
    print()
    print(format_table(outcome["metrics"]), format_chance(outcome["metrics"]), sep="\n")
    print(f"\nrun:         {outcome['run']}")
    print(f"checkpoint:  {outcome['checkpoint']}")
    print(f"MLflow:      {tracking.look()}")
    print(f"             run {outcome['mlflow_run']}")
    if outcome["page"]:
        print(f"             {outcome['page']}")
        print("             with a page of retrievals and attention among its artifacts")
    if outcome.get("model"):
        print(f"model:       {outcome.get('registered') or outcome['model']}")
    if "table" in outcome:
        print(f"all runs:    {outcome['table']}")


if __name__ == "__main__":
    cli.run(main)
