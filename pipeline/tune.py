"""A sweep: a table or figure of the paper, or all fields at once, chosen by validation score."""

import dataclasses
import importlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import ray
from ray import tune

from pipeline import cli, tracking, train
from pipeline.cluster import placement as cluster
from pipeline.inputs import prepare
from pipeline.interface import describe, terminal, views
from pipeline.run_state import database, lock, run_folder
from pipeline.sweeps import features, progress, trials
from pipeline.sweeps.plan import Sweep, as_dict, encode, starting_point
from tcmgc import storage
from tcmgc.config import Config, from_dict, replace, to_dict
from tcmgc.datasets import Corpus
from tcmgc.retrieval.metrics import chance

PROG = "python pipeline/tune.py SPACE"
OUTCOME, BEST = "search.json", "best_config.json"
"""Files in the sweep's folder: its result, and a config to train with."""
_DEMO_PAIRS = 1024
"""Enough to distinguish settings on the demo corpus, and few enough for many trials."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where sweeps are kept."""

    folder: str = "runs/sweeps"
    """Folder or URI of all sweeps; each has a subfolder named after what decides its result."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line, after the space's name."""

    config: cli.Fields
    samples: int = 0
    """Trials of a sampled space; 0: the space's own number."""
    seeds: int = 1
    """Seeds per variant of a table."""
    epochs: int | None = None
    """Budget of a trial; None: the space's own."""
    max_concurrent: int = 0
    """Trials at a time; 0: as many as fit on the cluster."""
    frozen: bool = False
    """Screen on features of frozen towers: takes minutes, but is not the paper's setting."""
    pairs: int | None = None
    """With --frozen: training pairs per epoch, 0 for all; None: all, but 1,024 of the demo's."""
    towers: str | None = None
    """With --frozen: checkpoint whose towers compute the features; None: the recipe's own."""
    quiet: bool = False
    """Show nothing but the result and errors."""
    run: Place = field(default_factory=Place)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-h"], ["--help"]):
        cli.parse(Arguments, words, PROG, f"{__doc__}\n\nspaces:\n{_spaces()}")
    space, checker = pick(words.pop(0) if words and not words[0].startswith("-") else None)
    about = f"{__doc__}\n\n{space.name}: {space.title} ({space.source})"
    arguments = cli.parse(Arguments, words, PROG, about)
    sweep = plan(space, arguments, given=cli.given(words))
    checker(space, from_dict(sweep.base))
    return run(sweep, arguments.max_concurrent, quiet=arguments.quiet)


def _spaces() -> str:
    known = importlib.import_module("tune_spaces").SPACES
    return "\n".join(f"  {one.name:26}{one.source}" for one in known.values())


def pick(name: str | None) -> tuple[Any, Any]:
    """A space by name, and the function that checks it.

    Raises:
        ValueError: no such space; lists the existing ones.
    """
    # Spaces may import the pipeline, so the pipeline imports them only when needed.
    known = importlib.import_module("tune_spaces")
    if name not in known.SPACES:
        listed = _spaces()
        what = f"there is no space {name!r}" if name else "name a space"
        raise ValueError(f"{what}; known are\n{listed}")
    return known.SPACES[name], known.check


def plan(space: Any, arguments: Arguments, *, given: Collection[str] = ()) -> Sweep:
    """The sweep requested on the command line.

    Args:
        space: The fields that are varied.
        arguments: Of the command line.
        given: Fields given on it, by dotted path.

    Raises:
        ValueError: arguments that do not go together.
    """
    epochs = arguments.epochs
    if "train.epochs" in given:
        if epochs not in (None, arguments.config.train.epochs):
            raise ValueError(
                f"--epochs {epochs} and --train.epochs {arguments.config.train.epochs} both set a trial's epochs; "
                "give one of them"
            )
        epochs = arguments.config.train.epochs
    if epochs is None:
        epochs = space.budget(arguments.config)
    if epochs < 1:
        raise ValueError(
            f"--epochs is {epochs}: validation comes after each epoch, so a trial needs at least one"
        )
    if arguments.seeds < 1 or arguments.samples < 0 or arguments.max_concurrent < 0:
        raise ValueError("--seeds must be at least 1, --samples and --max-concurrent at least 0")
    if space.axes and arguments.seeds > 1:
        raise ValueError(
            f"space {space.name} is sampled: its trials share one seed; --samples sets their number"
        )
    if space.variants and arguments.samples:
        raise ValueError(
            f"space {space.name} is a table of {len(space.variants)} variants; --seeds repeats them"
        )
    base = replace(arguments.config, {"train.epochs": epochs})
    if arguments.frozen:
        _refuse_moving_towers(space)
    elif arguments.towers or arguments.pairs:
        name = "towers" if arguments.towers else "pairs"
        raise ValueError(
            f"--{name} goes with --frozen; a trial that trains does as the recipe says"
        )
    if arguments.pairs and not base.train.batch_size <= arguments.pairs:
        raise ValueError(
            f"--pairs {arguments.pairs}: an epoch needs a batch of {base.train.batch_size} pairs or more "
            "(train.batch_size), or 0 for all"
        )
    usual = _DEMO_PAIRS if base.data.dataset == "demo" else 0
    pairs = usual if arguments.pairs is None else arguments.pairs
    return Sweep(
        space=space,
        base=to_dict(base),
        seeds=arguments.seeds,
        samples=(arguments.samples or space.samples) if space.axes else 0,
        epochs=epochs,
        frozen=arguments.frozen,
        pairs=pairs if arguments.frozen else 0,
        towers=arguments.towers and cli.resolve(arguments.towers),
        folder=cli.resolve(arguments.run.folder),
    )


def _refuse_moving_towers(space: Any) -> None:
    moving = [
        path for path in [*space.paths, *space.fixed] if path.startswith(("towers.", "data."))
    ]
    if moving:
        raise ValueError(
            f"space {space.name} changes {', '.join(moving)}, and --frozen computes the towers' features once; "
            "leave --frozen out"
        )


def run(sweep: Sweep, max_concurrent: int, *, quiet: bool = False) -> int:
    """Run the sweep, or the remaining part of it."""
    with terminal.silent(quiet):
        outcome = _read(sweep)
        if outcome is None:
            outcome = _run(sweep, max_concurrent)
        else:
            print("finished already; --run.folder starts another")
    try:
        if not outcome.get("recorded", True) or tracking.has_lost(sweep.place):
            with terminal.silent(quiet), lock.held(sweep.place):
                outcome = _record(sweep, outcome)
    finally:
        _show(sweep, outcome)
    return 0


def _run(sweep: Sweep, max_concurrent: int) -> dict[str, Any]:
    begin = time.monotonic()
    config = from_dict(sweep.base)
    space = sweep.space
    terminal.header("sweep", f"{space.name}: {space.title} ({space.source})")
    terminal.header("run", f"{describe.method(config)}, recipe {describe.recipe(config)}")
    terminal.header("results", storage.plain(sweep.place))
    terminal.header("MLflow", tracking.shown())
    terminal.header("trials", f"{sweep.total} of {sweep.epochs} epochs")
    cli.refuse_folder("--run.folder", sweep.folder)
    lock.refuse_if_held(sweep.place)
    if sweep.towers:
        features.check_towers(sweep.towers, config)
    corpus = train.check(config, ("train", "val"))
    tracking.check(config.data.dataset)
    cluster.connect(sweep=True)
    room(config, max_concurrent, frozen=sweep.frozen)
    prepare.fill(config, [*corpus["train"].clips, *corpus["val"].clips], "training and validation")
    corpus, _ = prepare.usable(config, corpus)
    with lock.held(sweep.place):
        parent = _parent(sweep, config, corpus)
        try:
            rows = run_trials(sweep, corpus, parent, max_concurrent)
            outcome = _conclude(sweep, rows, len(corpus["val"]))
        except BaseException as error:
            tracking.end_failed(parent, error)
            raise
    print(f"\ntook {terminal.duration(time.monotonic() - begin)}")
    return outcome


def _parent(sweep: Sweep, config: Config, corpus: Corpus) -> str:
    tags = {"kind": "sweep", "space": sweep.space.name, "metric": sweep.space.metric}
    tags |= {"frozen": "yes, a screening" if sweep.frozen else "no", "data": config.data.dataset}
    tags |= {"candidates": str(len(corpus["val"]))}
    params = {"trials": sweep.total, "epochs": sweep.epochs, "seeds": sweep.seeds}
    title = describe.sweep_name(
        sweep.space.name, config, sweep.seeds, sweep.samples, frozen=sweep.frozen
    )
    run_id = tracking.start(config, title, sweep.place, tags, params)
    tracking.inputs(run_id, config, {name: corpus[name] for name in ("train", "val")})
    tracking.save_views(tracking.experiment(config.data.dataset), views.sweep(run_id, sweep.varied))
    tracking.describe_run(run_id, _about(sweep))
    tracking.client().log_dict(run_id, as_dict(sweep), OUTCOME)
    return run_id


def _about(sweep: Sweep, found: str | None = None) -> str:
    return describe.sweep(
        from_dict(sweep.base),
        sweep.space.title,
        sweep.space.source,
        sweep.total,
        sweep.epochs,
        frozen=sweep.frozen,
        found=found,
        report=_report_command(sweep),
    )


def _report_command(sweep: Sweep) -> str:
    frozen = ["--frozen"] if sweep.frozen else []
    return cli.command("report.py", sweep.space.name, *frozen)


def _attach_report(sweep: Sweep, parent: str) -> None:
    """Log the sweep's report, including its page and figures, as artifacts of its run."""
    # Imported late: matplotlib is not needed before.
    from pipeline import report
    from pipeline.sweeps import results

    found = results.collect(sweep.space, run_id=parent)
    with tempfile.TemporaryDirectory() as made:
        report.log(found, report.write([found], Path(made)))


def room(config: Config, asked: int, *, frozen: bool = False) -> tuple[int, float]:
    """Number of concurrent trials, and the CPUs of each of their workers.

    A trial's driver takes no CPU, so trials cannot block each other: only their workers are
    counted here. By default, a trial on CPUs gets two or more for each worker, but two
    trials run if they fit: while one starts, the other trains.

    Raises:
        ValueError: not one trial fits.
    """
    cpus = ray.cluster_resources().get("CPU", 1.0)
    if frozen:
        return min(asked or int(cpus), int(cpus)), 1.0
    place, workers = cluster.require(config), config.train.workers
    if place.gpu:
        fits = int(ray.cluster_resources().get("GPU", 0)) // workers
        return min(asked or fits, fits), place.cpus
    each = config.cluster.cpus_per_worker
    fits = max(1, int(cpus // (workers * (each or 1))))
    usual = max(min(2, fits), int(cpus // (workers * (each or 2))))
    at_once = min(asked or usual, fits)
    share = cpus / (at_once * workers)
    return at_once, each or (share if share < 1 else float(int(share)))


def run_trials(
    sweep: Sweep, corpus: Corpus, parent: str, asked: int, *, test: bool = False
) -> list[progress.Row]:
    """Run all trials of a sweep, or the remaining ones; return each one's result.

    Args:
        sweep: The sweep.
        corpus: Training and validation videos; also test videos if they are evaluated.
        parent: MLflow's id of the sweep.
        asked: Trials at a time; 0: as many as fit.
        test: Evaluate each trial's best checkpoint on the test split.
    """
    config = from_dict(sweep.base)
    at_once, cpus = room(config, asked, frozen=sweep.frozen)
    if asked > at_once:
        print(f"--max-concurrent {asked}: the cluster has room for {at_once}")
    if sweep.frozen:
        print(
            "SCREENING on frozen towers: their features are computed once, and only temporal encoder and head are "
            f"trained, on {sweep.pairs or 'all'} pairs an epoch; the paper trains the towers too, on all"
        )
        path = features.make(sweep, config, corpus)
        trainable: Any = tune.with_parameters(
            trials.frozen_trial,
            sweep=sweep,
            features=path,
            parent=parent,
            variables=database.environment(),
        )
        needs = {"CPU": 1.0}
    else:
        base = replace(config, {"cluster.cpus_per_worker": cpus})
        sweep = dataclasses.replace(sweep, base=to_dict(base))
        trainable = tune.with_parameters(
            trials.train_trial,
            sweep=sweep,
            corpus=train.shared(corpus),
            parent=parent,
            variables=database.environment(),
            test=[ray.put(corpus["test"])] if test else [],
        )
        needs = {"memory": 1.0}  # the driver only waits: its workers use the CPUs
    trainable = tune.with_resources(trainable, tune.PlacementGroupFactory([needs]))
    results = _tuner(sweep, trainable, at_once).fit()
    return [_row(sweep, result) for result in results]


def _tuner(sweep: Sweep, trainable: Any, at_once: int) -> tune.Tuner:
    # A killed driver loses what it has not written to disk.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    system, place = storage.resolve(sweep.place)
    path = f"{place}/tune"
    if tune.Tuner.can_restore(path, storage_filesystem=system):
        print("going on with what there is")
        return tune.Tuner.restore(
            path,
            trainable=trainable,
            resume_unfinished=True,
            resume_errored=True,
            storage_filesystem=system,
        )
    space = sweep.space
    seed = sweep.base["train"]["seed"]
    grid: dict[str, Any] = {}
    searcher = None
    if sweep.axes:
        from ray.tune.search import ConcurrencyLimiter
        from ray.tune.search.optuna import OptunaSearch

        searcher = ConcurrencyLimiter(
            OptunaSearch(
                {path: _distribution(axis) for path, axis in sweep.axes.items()},
                metric=space.metric,
                mode="max",
                seed=seed,
                points_to_evaluate=[starting_point(sweep)],
            ),
            max_concurrent=at_once,
        )
    else:
        grid = {
            "seed": tune.grid_search([seed + n for n in range(sweep.seeds)]),
            "variant": tune.grid_search([variant.label for variant in space.variants]),
        }
    asha = tune.schedulers.AsyncHyperBandScheduler(
        time_attr="epoch", max_t=sweep.epochs + 1, grace_period=1, reduction_factor=2
    )
    return tune.Tuner(
        trainable,
        param_space=grid,
        tune_config=tune.TuneConfig(
            metric=space.metric,
            mode="max",
            search_alg=searcher,
            scheduler=asha if space.scheduler == "asha" else None,
            num_samples=sweep.samples or 1,
            max_concurrent_trials=None if searcher else at_once,
            # A driver that waits for its trainer cannot be interrupted: a stopped one is killed.
            reuse_actors=sweep.frozen or space.scheduler == "grid",
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=place,
            storage_filesystem=system,
            failure_config=tune.FailureConfig(max_failures=2),
            callbacks=[progress.Progress(sweep)],
            verbose=0,
        ),
    )


def _distribution(axis: Any) -> Any:
    from optuna import distributions

    if hasattr(axis, "values"):
        return distributions.CategoricalDistribution([encode(value) for value in axis.values])
    return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)


def _row(sweep: Sweep, result: Any) -> progress.Row:
    metrics = result.metrics or {}
    frame = result.metrics_dataframe
    scores = [] if frame is None or sweep.space.metric not in frame else frame[sweep.space.metric]
    return progress.outcome(
        sweep,
        result.config,
        metrics.get("trial_id") or Path(result.path).name,
        metrics,
        scores=[float(score) for score in scores if score == score],
        failed=result.error is not None,
    )


def _conclude(sweep: Sweep, rows: list[progress.Row], candidates: int) -> dict[str, Any]:
    """Write the result and the best config.

    Raises:
        KeyboardInterrupt: trials remain.
        ValueError: no trial has a score.
    """
    if len(rows) < sweep.total or not all(ended(sweep, row) for row in rows):
        raise KeyboardInterrupt
    best = progress.best_label(rows)
    if best is None:
        raise ValueError(
            f"all {len(rows)} trials failed; their errors are in {storage.plain(sweep.trials)}/*/{run_folder.RESULT}"
        )
    first = next(row for row in rows if row.label == best and row.score is not None)
    run_folder.write(sweep.place, BEST, to_dict(sweep.chosen(first.settings)))
    outcome = {"rows": [asdict(row) for row in rows], "best": best, "recorded": False}
    outcome |= {"mlflow_run": None, "page": None, "candidates": candidates}
    run_folder.write(sweep.place, OUTCOME, outcome)
    return outcome


def _record(sweep: Sweep, outcome: dict[str, Any]) -> dict[str, Any]:
    """Send a finished sweep's result, and anything of its trials that MLflow lacks.

    Raises:
        ValueError: MLflow does not accept it; the result is in the sweep's folder, and the same
            command retries.
    """
    rows = [progress.Row(**row) for row in outcome["rows"]]
    best = outcome["best"]
    score = max(row.score for row in rows if row.label == best and row.score is not None)
    try:
        known = tracking.run_of(sweep.place)
        parent = known.info.run_id if known else _parent_anew(sweep)
        trials.settle(sweep, [(row.settings, row.trial) for row in rows], parent)
        name = "best/" + sweep.space.metric.removeprefix("val/")
        scored = [run for run in tracking.children(parent) if name in _known(run)]
        first = _known(max(scored, key=lambda run: _known(run)[name])) if scored else {}
        found = {key: first[key] for key in tracking.FIRST if key in first}
        tracking.finish(parent, found | {name: score}, {"variant": best})
        tracking.client().log_dict(parent, run_folder.read(sweep.place, BEST), BEST)
        tracking.describe_run(parent, _about(sweep, progress.finding(sweep, rows)))
        tracking.end(parent, "FINISHED")
        _attach_report(sweep, parent)
        outcome = outcome | {"mlflow_run": parent, "page": tracking.page(parent), "recorded": True}
        outcome |= {"table": tracking.table(parent, parent)}
    except ValueError as error:
        raise ValueError(
            f"the sweep is finished and its result is in {storage.plain(sweep.place)}/{OUTCOME}, but MLflow does not "
            f"have it: {error}; the same command sends it again"
        ) from error
    run_folder.write(sweep.place, OUTCOME, outcome)
    return outcome


def _known(run: Any) -> dict[str, float]:
    """A run's metrics without those that were never measured."""
    return {key: value for key, value in run.data.metrics.items() if not math.isnan(value)}


def _parent_anew(sweep: Sweep) -> str:
    config = from_dict(sweep.base)
    return _parent(sweep, config, prepare.usable(config, prepare.splits(config))[0])


def ended(sweep: Sweep, row: progress.Row) -> bool:
    """Whether a trial finished: one interrupted by Ctrl-C has no result in its folder."""
    folder = sweep.trial_folder(row.settings, row.trial)
    return row.status == "failed" or run_folder.exists(folder, run_folder.RESULT)


def _read(sweep: Sweep) -> dict[str, Any] | None:
    """The finished sweep's outcome; one with failed trials is not finished."""
    found = run_folder.read(sweep.place, OUTCOME)
    return None if found and any(row["status"] == "failed" for row in found["rows"]) else found


def _show(sweep: Sweep, outcome: dict[str, Any]) -> None:
    rows = [progress.Row(**row) for row in outcome["rows"]]
    print()
    print(progress.table(rows, sweep.space.metric))
    if candidates := outcome.get("candidates"):
        by_chance = chance(candidates)[sweep.space.metric.removeprefix("val/")]
        print(f"chance: {by_chance:.1f}, {candidates} candidates")
    print("\nvalidation scores; the test split was not touched")
    print(progress.finding(sweep, rows))
    config = storage.join(sweep.place, BEST)
    print(f"\ntrain:   {cli.command('train.py', '--config', config)}")
    print(f"report:  {_report_command(sweep)}")
    print(f"MLflow:  {tracking.look()}")
    if outcome["page"]:
        print(f"         run {outcome['mlflow_run']}")
        print(f"         {outcome['page']}")
    if "table" in outcome:
        print(f"trials:  {outcome['table']}")


if __name__ == "__main__":
    cli.run(main)
