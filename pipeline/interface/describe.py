"""A run in words: its method and recipe, its name, and the description that MLflow shows."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline import cli
from tcmgc import recipes
from tcmgc.config import Config, flatten
from tcmgc.retrieval.metrics import Metrics, chance

SCORE = "val/SumR"
"""What a run is judged by."""
_WHERE = ("cluster.", "data.root", "data.cache", "train.workers", "train.min_workers", "train.gpus")
"""Fields that say where a run takes place, not what it is."""
_SHOWN = 6
"""Changed fields that a description names."""


def method(config: Config) -> str:
    """The method's name, as tables show it."""
    return recipes.methods.title(config)


def origin(config: Config) -> tuple[str, dict[str, Any]]:
    """The recipe that differs least from the config, and the fields that differ, with their values."""
    mine = _fields(config)
    best: tuple[str, dict[str, Any]] | None = None
    for name, theirs in _recipes().items():
        changed = {path: value for path, value in mine.items() if theirs.get(path) != value}
        changed |= dict.fromkeys(theirs.keys() - mine.keys())
        if best is None or len(changed) < len(best[1]):
            best = (name, {path: value for path, value in changed.items() if path in mine})
    assert best is not None
    return best


@functools.cache
def _recipes() -> dict[str, dict[str, Any]]:
    """The fields of every recipe, and of its small form, by its name."""
    names = [spelled for name in recipes.RECIPES for spelled in (name, f"{name}:smoke")]
    return {name: _fields(recipes.recipe(name)) for name in names}


def recipe(config: Config) -> str:
    """The recipe in a few words: ``demo``, or ``demo with train.epochs 1``."""
    name, changed = origin(config)
    if not changed:
        return name
    listed = [f"{path} {value}" for path, value in list(changed.items())[:_SHOWN]]
    more = len(changed) - len(listed)
    return f"{name} with {', '.join(listed)}" + (f" and {more} more" if more else "")


def run_name(config: Config) -> str:
    """What MLflow's lists show for a training that has no name of its own."""
    return f"{method(config)}, {config.data.dataset}, seed {config.train.seed}"


def sweep_name(space: str, config: Config, seeds: int, samples: int, *, frozen: bool) -> str:
    """What MLflow's lists show for a sweep."""
    size = f"{samples} samples" if samples else f"{seeds} seed{'s' if seeds > 1 else ''}"
    return f"{space}, {size}, {config.data.dataset}" + (", frozen towers" if frozen else "")


def training(
    config: Config,
    folder: str,
    *,
    validation: Metrics | None = None,
    test: Metrics | None = None,
    checkpoint: str | None = None,
) -> str:
    """The description of a training, as Markdown; what is not known yet is left out."""
    scores = [
        f"{name} SumR {metrics['SumR']:.1f}, R@1 {metrics['t2v/R1']:.1f}"
        for name, metrics in (("test", test), ("validation", validation))
        if metrics
    ]
    lines = [
        f"**{'; '.join([f'{method(config)} on {config.data.dataset}', *scores])}**",
        "",
        f"Recipe {recipe(config)}; towers {config.towers.name}.",
        "",
    ]
    if validation or test:
        lines += [*_table({"validation, best epoch": validation, "test": test}), ""]
    lines += ["```"]
    if checkpoint:
        lines += [
            cli.command("evaluate.py", "--checkpoint", checkpoint),
            cli.command("inspect_run.py", "--checkpoint", checkpoint),
        ]
    lines += [cli.command("train.py", "--resume", folder), "```"]
    return "\n".join(lines)


def sweep(
    config: Config,
    title: str,
    source: str,
    trials: int,
    epochs: int,
    *,
    frozen: bool,
    found: str | None = None,
    report: str | None = None,
) -> str:
    """The description of a sweep, as Markdown."""
    lines = [
        f"**{title}** ({source}): {trials} trials of {epochs} epochs, {method(config)} on "
        f"{config.data.dataset}, recipe {recipe(config)}. Scores are of the validation split.",
    ]
    if frozen:
        lines += [
            "",
            "A screening: the towers are frozen, which is not the setting of the paper.",
        ]
    if found:
        lines += ["", found]
    if report:
        lines += ["", "```", report, "```"]
    return "\n".join(lines)


def _table(columns: dict[str, Metrics | None]) -> list[str]:
    rows = {name: metrics for name, metrics in columns.items() if metrics}
    for name, metrics in list(rows.items()):
        if count := metrics.get("t2v/candidates"):
            rows[f"chance, {name} of {count:.0f} videos"] = chance(int(count))
    shown = ("SumR", "t2v/R1", "t2v/R5", "t2v/R10", "v2t/R1", "v2t/R5", "v2t/R10")
    titles = ("SumR", "T2V R@1", "R@5", "R@10", "V2T R@1", "R@5", "R@10")
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for name, metrics in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(metrics, key) for key in shown) + " |")
    return lines


def _cell(metrics: Metrics, key: str) -> str:
    return f"{metrics[key]:.1f}" if key in metrics else ""


def _fields(config: Config) -> dict[str, Any]:
    return {path: value for path, value in flatten(config).items() if not path.startswith(_WHERE)}


def best_epoch(history: Iterable[Mapping[str, float]], score: str = SCORE) -> Mapping[str, float]:
    """The row of the epoch with the highest validation score; empty where none was validated.

    What was validated before the first step is no epoch: there is no checkpoint of it.
    """
    epochs = (row for row in history if "epoch" in row and score in row)
    return max(epochs, key=lambda row: row[score], default={})


def best(row: Mapping[str, float]) -> Metrics:
    """An epoch's validation metrics and its number, by the names of a run's summary: ``best/...``."""
    found = {
        key.replace("val/", "best/", 1): value
        for key, value in row.items()
        if key.startswith("val/")
    }
    return found | ({"best/epoch": row["epoch"]} if "epoch" in row else {})
