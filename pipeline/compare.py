"""Compare methods: train and evaluate each on the same data, towers and seeds, and write one table.

Trials run with Ray Tune, in parallel if they fit. The same command continues a stopped comparison.
The table has the form of the paper's Table 1, with each method's costs, and in addition to the
trained methods: towers without training, chance, and training on shuffled captions.
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

from pipeline import cli, tracking, train, tune
from pipeline.cluster import placement as cluster
from pipeline.inputs import prepare
from pipeline.interface import terminal, views
from pipeline.run_state import lock, run_folder
from pipeline.sweeps import comparison_costs, progress, trials
from pipeline.sweeps import comparison_table as table
from pipeline.sweeps.comparison import CONTROL, Comparison, space
from pipeline.sweeps.comparison_table import Line
from pipeline.training import evaluation, zero_shot
from tcmgc import model, recipes, storage
from tcmgc.config import Config, from_dict, to_dict
from tcmgc.datasets import Corpus, Split
from tcmgc.retrieval.metrics import chance
from tune_spaces.published import METHODS as PUBLISHED

PROG = "python pipeline/compare.py"
ZERO_SHOT = "zero_shot.json"
"""File in the comparison's folder: metrics of its towers without training."""
ARTIFACTS = "comparison"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where comparisons are kept."""

    folder: str = "runs/comparisons"
    """Folder or URI of all comparisons; each has a subfolder named after what decides its result."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    config: cli.Fields
    methods: str = "all"
    """Methods to compare, separated by commas; `all` is every one, `paper` those of its tables."""
    seeds: int = 3
    """Seeds per method."""
    fair: bool = True
    """The recipe's batch, epochs, rates and optimiser for all methods; False: those of each method's authors."""
    control: str = "clip4clip_meanp"
    """Method that is also trained on shuffled captions, from which nothing can be learnt."""
    max_concurrent: int = 0
    """Trials at a time; 0: as many as fit on the cluster."""
    report: str = "reports"
    """Folder for the table as Markdown, CSV and HTML."""
    quiet: bool = False
    """Show nothing but the result and errors."""
    run: Place = field(default_factory=Place)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    arguments = read(argv)
    comparison = plan(arguments)
    begin = time.monotonic()
    with terminal.silent(arguments.quiet):
        rows, lines, page = _run(comparison, arguments)
    print()
    print(text(lines))
    for row in rows:
        if row.status == "failed":
            kept = run_folder.read(comparison.trial_folder(row.settings, ""), run_folder.RESULT)
            why = (kept or {}).get("error", "see Ray's log")
            print(f"failed: {row.label}, seed {row.seed}: {why}")
    for place in page["files"]:
        print(f"table:   {place}")
    print(f"MLflow:  {page['address']}")
    print(f"took     {terminal.duration(time.monotonic() - begin)}")
    return 1 if any(row.status == "failed" for row in rows) else 0


def read(argv: list[str] | None) -> Arguments:
    """The command line, on the recipe with its settings for comparisons where they are fair."""
    arguments = cli.parse(Arguments, argv, PROG, str(__doc__))
    return (
        cli.parse(Arguments, argv, PROG, str(__doc__), fair=True) if arguments.fair else arguments
    )


def plan(arguments: Arguments) -> Comparison:
    """The comparison requested on the command line.

    Raises:
        ValueError: no such method, or one that the recipe's towers do not support.
    """
    groups = {"all": list(recipes.METHODS), "paper": list(dict.fromkeys(PUBLISHED.values()))}
    names = [name.strip() for name in arguments.methods.split(",") if name.strip()]
    wanted = [name for one in names for name in groups.get(one, [one])]
    for name in [*wanted, arguments.control]:
        recipes.methods.find(name)
    if len(set(wanted)) < len(wanted) or not wanted:
        raise ValueError(f"--methods must name each method once; got {arguments.methods!r}")
    if arguments.seeds < 1 or arguments.max_concurrent < 0:
        raise ValueError("--seeds must be at least 1, --max-concurrent at least 0")
    config = arguments.config
    return Comparison(
        space=space(wanted, config.data.dataset),
        base=to_dict(config),
        seeds=arguments.seeds,
        samples=0,
        epochs=config.train.epochs,
        folder=cli.resolve(arguments.run.folder),
        fair=arguments.fair,
        control=arguments.control,
    )


def _run(
    comparison: Comparison, arguments: Arguments
) -> tuple[list[progress.Row], list[Line], dict[str, Any]]:
    config = from_dict(comparison.base)
    count = f"{len(comparison.methods)} methods and the control, {comparison.seeds} seeds"
    terminal.header("compare", count)
    terminal.header("results", storage.plain(comparison.place))
    terminal.header("MLflow", tracking.shown())
    lock.refuse_if_held(comparison.place)
    corpus = train.check(config)
    for name in comparison.methods:
        _refuse_unbuildable(name, comparison.of(name))
    tracking.check(config.data.dataset)
    cluster.connect(sweep=True)
    tune.room(config, arguments.max_concurrent)
    _fill(comparison, corpus)
    corpus, _ = prepare.usable(config, corpus)
    with lock.held(comparison.place):
        parent = _parent(comparison, config, corpus)
        try:
            rows = tune.run_trials(comparison, corpus, parent, arguments.max_concurrent, test=True)
            if len(rows) < comparison.total or not all(tune.ended(comparison, row) for row in rows):
                raise KeyboardInterrupt
            lines = _lines(comparison, config, corpus["test"])
            trials.settle(comparison, [(row.settings, row.trial) for row in rows], parent)
            files = _write(comparison, config, corpus, lines, Path(cli.resolve(arguments.report)))
            _record(parent, lines, files)
        except BaseException as error:
            tracking.end_failed(parent, error)
            raise
    return rows, lines, {"files": files, "address": tracking.page(parent)}


def _refuse_unbuildable(name: str, config: Config) -> None:
    try:
        model.build(config)
    except ValueError as error:
        raise ValueError(f"method {name}: {error}") from error


def _fill(comparison: Comparison, corpus: Corpus) -> None:
    """Decode the frames that any method needs; methods with the same sampling share the cache."""
    configs = [comparison.of(name) for name in comparison.methods]
    for config in {repr((one.data, one.towers.name)): one for one in configs}.values():
        evaluation.readable(config, corpus["test"], "test", 0)
        clips = [*corpus["train"].clips, *corpus["val"].clips]
        prepare.fill(config, clips, "training and validation")


def _parent(comparison: Comparison, config: Config, corpus: Corpus) -> str:
    tags = {"kind": "comparison", "data": config.data.dataset, "space": comparison.space.name}
    params = {
        "methods": ", ".join(comparison.methods),
        "seeds": comparison.seeds,
        "fair": comparison.fair,
    }
    title = f"comparison of {len(comparison.methods)} methods, {config.data.dataset}"
    run_id = tracking.start(config, title, comparison.place, tags, params)
    tracking.inputs(run_id, config, corpus)
    number = tracking.experiment(config.data.dataset)
    tracking.save_views(number, views.sweep(run_id, comparison.varied))
    return run_id


def _lines(comparison: Comparison, config: Config, test: Split) -> list[Line]:
    """All rows: trained methods, then baselines."""
    tests = {name: _tests(comparison, name) for name in [*comparison.methods, CONTROL]}
    costs = comparison_costs.measure(comparison, test)
    data = config.data.dataset
    lines = table.lines_of_methods(comparison.methods, tests, costs, data, _tower(config))
    weights = "random weights" if config.towers.pretrained is None else config.towers.pretrained
    untrained = _untrained(comparison, config, test)
    for label, prefix in (("mean of frames", ""), ("mean-max", "mean_max/")):
        own = {key: untrained[prefix + key] for key in table.METRICS}
        lines.append(table.line(f"zero-shot, {label}", [own], f"no training, {weights}"))
    if tests[CONTROL]:
        note = f"{comparison.control} with nothing to learn"
        lines.append(table.line(CONTROL, tests[CONTROL], note))
    lines.append(table.line("chance", [chance(len(test))], f"expected of {len(test)} videos"))
    return lines


def _tests(comparison: Comparison, name: str) -> list[dict[str, float]]:
    """Test metrics of a method's seeds, from its trials' folders."""
    first = comparison.base["train"]["seed"]
    found = []
    for seed in range(first, first + comparison.seeds):
        folder = comparison.trial_folder({"variant": name, "seed": seed}, "")
        kept = run_folder.read(folder, run_folder.RESULT) or {}
        if kept.get("test"):
            found.append(kept["test"])
    return found


def _untrained(comparison: Comparison, config: Config, test: Split) -> dict[str, float]:
    found = run_folder.read(comparison.place, ZERO_SHOT)
    if found is None:
        found = zero_shot.measure(zero_shot.untrained(config), test, "test")
        run_folder.write(comparison.place, ZERO_SHOT, found)
    return found


def _tower(config: Config) -> str:
    """The towers' name in the paper's tables; empty if they are not in it."""
    for size in ("32", "16"):
        if config.towers.name.startswith(f"ViT-B-{size}") and config.towers.pretrained == "openai":
            return f"ViT-B/{size}"
    return ""


def _write(
    comparison: Comparison, config: Config, corpus: Corpus, lines: list[Line], folder: Path
) -> list[Path]:
    """Write the files of the table."""
    # Imported late: matplotlib is not needed before.
    from pipeline.sweeps import comparison_page
    from tcmgc.reports.pages import page

    folder.mkdir(parents=True, exist_ok=True)
    data = config.data.dataset
    title = f"Methods compared on {data}"
    said, remarks = about(comparison, config, corpus), limits(data, len(corpus["test"]))
    places = [folder / f"compare-{data}.{kind}" for kind in ("md", "csv", "html")]
    places[0].write_text(table.markdown(title, said, lines, data, remarks))
    table.write_csv(places[1], lines)
    facts = {
        "data": data,
        "towers": f"{config.towers.name}, {config.towers.pretrained or 'random weights'}",
        "command": cli.command("compare.py", data, "--seeds", str(comparison.seeds)),
        "MLflow": tracking.shown(),
    }
    page.write(comparison_page.html(title, facts, said, lines, data, remarks), places[2])
    return places


def _record(parent: str, lines: list[Line], files: list[Path]) -> None:
    best = max(
        (line for line in lines if not line.note),
        key=lambda line: line.measured["SumR"].mean,
        default=None,
    )
    for place in files:
        tracking.attach(parent, place, ARTIFACTS)
    if best is not None:
        score = best.measured["SumR"].mean
        tracking.finish(parent, {"best/SumR": score}, {"variant": best.label})
    tracking.describe_run(parent, files[0].read_text())
    tracking.end(parent, "FINISHED")


def about(comparison: Comparison, config: Config, corpus: Corpus) -> list[str]:
    """Sentences that describe the numbers."""
    settings = (
        f"the recipe's own for all: {config.train.epochs} epochs, batch {config.train.batch_size}, "
        f"{config.optim.kind}, rates {config.optim.lr_clip:g} for the towers and {config.optim.lr_new:g} for the rest"
        if comparison.fair
        else "each authors' own, or the nearest where they published none for this data"
    )
    counted = ", ".join(f"{len(corpus[name])} {name}" for name in ("train", "val", "test"))
    return [
        f"Data: {config.data.dataset} ({counted} videos). Settings: {settings}.",
        "Every trial keeps the epoch with the best validation SumR, which is evaluated once on the test split. "
        "Cells are the mean ± standard deviation over seeds. A difference of SumR is called within the seeds' "
        "spread where it is at most the root of the sum of both rows' variances over seeds.",
    ]


def limits(data: str, videos: int) -> list[str]:
    """Sentences on what a corpus cannot show."""
    if data != "demo":
        return []
    return [
        "What this corpus can show: that every method trains, evaluates and goes on after an interruption by the "
        "same code, what each costs, and that it learns from the pairs (on shuffled captions it stays at chance). "
        "What it cannot show: which method is better on real videos. Scenes and captions are made up, the towers "
        "are two layers from random weights, methods have their small forms (fewer layers and heads, DRL with a ten-thousandth of "
        f"its decorrelation term), and with {videos} test videos one video is {100 / videos:.1f} points of R@1."
    ]


def text(lines: list[Line]) -> str:
    """The table for a terminal, with the most important columns."""
    shown = ["t2v/R1", "v2t/R1", "SumR"]
    rows = [["method", *(table.METRICS[key] for key in shown), *table.COSTS.values(), ""]]
    for one in lines:
        cells = dict(zip(table.titles(lines), table.cells(one, lines), strict=True))
        keys = [*(table.METRICS[key] for key in shown), *table.COSTS.values()]
        rows.append([one.label, *(cells[key] for key in keys), table.verdict(one, lines)])
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


if __name__ == "__main__":
    cli.run(main)
