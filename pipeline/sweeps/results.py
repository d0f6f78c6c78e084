"""A sweep's results, read from MLflow only."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import cli, tracking

COLUMN_NAMES = {
    **{
        f"{way}/{name}": f"{way.upper()} {shown}"
        for way in ("t2v", "v2t")
        for name, shown in (("R1", "R@1"), ("R5", "R@5"), ("R10", "R@10"), ("RSum", "RSum"))
    },
    "SumR": "SumR",
    "isa_parameters": "ISA parameters",
}


@dataclass(frozen=True)
class Measured:
    """One number over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean; nan if nothing was measured."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def spread(self) -> float:
        """Standard deviation over seeds (n - 1); nan for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class VariantResult:
    """A row: a variant, over its seeds."""

    label: str
    measured: dict[str, Measured]
    """Values by column of :data:`COLUMN_NAMES`, of the epoch with the best validation score."""
    paper: dict[str, float]
    """The paper's numbers on MSR-VTT's test split."""
    changes: dict[str, Any]
    values: dict[str, str]
    """A sample's value of every sampled field; empty for a variant, whose label states it."""
    stopped: int
    """Seeds that were stopped early."""

    @property
    def seeds(self) -> int:
        """Number of trials with a score."""
        return max((len(one.values) for one in self.measured.values()), default=0)


@dataclass(frozen=True)
class SpaceResult:
    """A sweep's table."""

    space: Any
    data: str
    run_id: str
    trials: int
    """Planned number of trials."""
    epochs: str
    frozen: bool
    finished: bool
    candidates: int
    """Number of validation videos ranked for each text; 0 if the sweep did not record it."""
    rows: tuple[VariantResult, ...]

    @property
    def target(self) -> str:
        """The column by which rows are compared: SumR, or the paper's column instead."""
        return "SumR" if "SumR" in self.space.columns else "t2v/RSum"

    @property
    def varied(self) -> list[str]:
        """The sampled fields that differ between rows, by dotted path; none for a table of variants."""
        paths = list(dict.fromkeys(path for row in self.rows for path in row.values))
        return [path for path in paths if len({row.values.get(path) for row in self.rows}) > 1]

    @property
    def best(self) -> VariantResult:
        """The row with the highest mean."""
        return max(self.rows, key=lambda row: row.measured[self.target].mean)


def collect(space: Any, *, run_id: str | None = None, frozen: bool = False) -> SpaceResult:
    """The latest sweep of a space.

    Args:
        space: One of `tune_spaces.SPACES`.
        run_id: MLflow's id of a sweep other than the latest.
        frozen: The latest screening on frozen towers instead.

    Raises:
        ValueError: there is none, or none of its trials has a score yet.
    """
    kind = "yes, a screening" if frozen else "no"
    where = f"tags.kind = 'sweep' and tags.space = '{space.name}' and tags.frozen = '{kind}'"
    found = tracking.find_runs(where) if run_id is None else [tracking.client().get_run(run_id)]
    if not found:
        flag = ["--frozen"] if frozen else []
        raise ValueError(
            f"MLflow at {tracking.shown()} has no sweep of space {space.name}; "
            f"`{cli.command('tune.py', space.name, *flag)}` makes one"
        )
    parent = found[0]
    if parent.data.tags.get("space") != space.name:
        raise ValueError(
            f"run {parent.info.run_id} is not a sweep of {space.name}, but of {parent.data.tags.get('space')}"
        )
    children = tracking.find_runs(f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    key = f"best/{_first_metric(space)}"
    scored = [run for run in children if not math.isnan(run.data.metrics.get(key, math.nan))]
    if not scored:
        raise ValueError(f"no trial of sweep {parent.info.run_name} has a score yet")
    return SpaceResult(
        space=space,
        data=parent.data.tags["data"],
        run_id=parent.info.run_id,
        trials=int(parent.data.params["trials"]),
        epochs=parent.data.params["epochs"],
        frozen=parent.data.tags["frozen"] != "no",
        finished=parent.info.status == "FINISHED",
        candidates=int(parent.data.tags.get("candidates", 0)),
        rows=tuple(_rows(space, scored)),
    )


def within(one: VariantResult, other: VariantResult, column: str) -> bool | None:
    """Whether two rows differ by no more than their seeds do; None if no spread is known.

    The bound is the standard deviation of the difference of two single runs: the root of the sum of both
    rows' variances over seeds.
    """
    a, b = one.measured[column], other.measured[column]
    bound = math.hypot(a.spread, b.spread)
    return None if math.isnan(bound) else abs(a.mean - b.mean) <= bound


def _first_metric(space: Any) -> str:
    return space.metric.removeprefix("val/")


def _rows(space: Any, runs: Sequence[Any]) -> list[VariantResult]:
    known = {variant.label: variant for variant in space.variants}
    labels = [label for label in known if any(_label(run) == label for run in runs)]
    if not known:
        key = f"best/{_first_metric(space)}"
        ranked = sorted(runs, key=lambda run: -run.data.metrics[key])
        labels = list(dict.fromkeys(_label(run) for run in ranked))
    rows = []
    for label in labels:
        members = [run for run in runs if _label(run) == label]
        variant = known.get(label)
        rows.append(
            VariantResult(
                label=label,
                values={} if variant else _values(members[0], space),
                measured={column: _measured(members, column) for column in space.columns},
                paper=dict(variant.paper) if variant else {},
                changes=dict(variant.changes) if variant else {},
                stopped=sum(run.data.tags.get("status") == "stopped early" for run in members),
            )
        )
    return rows


def _measured(runs: Sequence[Any], column: str) -> Measured:
    key = column if column == "isa_parameters" else f"best/{column}"
    return Measured(tuple(float(run.data.metrics[key]) for run in runs if key in run.data.metrics))


def _label(run: Any) -> str:
    return run.data.tags["variant"]


def _values(run: Any, space: Any) -> dict[str, str]:
    """The sampled fields of a trial, by dotted path."""
    params = run.data.params
    return {path: _brief(params[path]) for path in space.axes if path in params}


def _brief(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value.replace("'", "")
