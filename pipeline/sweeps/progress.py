"""A sweep's output on the terminal and in MLflow: one line per trial, a table at the end."""

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune

from pipeline import tracking
from pipeline.run_state import database
from pipeline.sweeps import trials
from pipeline.sweeps.plan import Sweep, decode
from pipeline.sweeps.trials import validation


@dataclass(frozen=True)
class Row:
    """The result of a trial."""

    label: str
    seed: int
    score: float | None
    """Best validation score; None if there is none."""
    epochs: int
    """Epochs trained."""
    status: str
    settings: dict[str, Any]
    """The trial's settings from Tune."""
    trial: str
    """Tune's name for it."""


class Progress(tune.Callback):
    """Prints each trial's result on the driver, and closes the MLflow runs of stopped trials."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.rows: dict[str, list[dict[str, float]]] = {}
        self.said: set[str] = set()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the epoch, and print it."""
        metric = self.sweep.space.metric
        if metric not in result or "finished" in result:
            return
        self.rows.setdefault(trial.trial_id, []).append(validation(result))
        label = self.sweep.label(trial.config, trial.trial_id)
        print(
            f"  {label}, seed {self.sweep.seed(trial.config)}: epoch {result['epoch']} of "
            f"{self.sweep.epochs}: {metric} {result[metric]:.1f}",
            flush=True,
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle a trial that ended by itself or was stopped early."""
        result = trial.last_result
        done = bool(result.get("finished"))
        if not done:
            _close(self.sweep, trial, self.rows.get(trial.trial_id, []))
        self._say(trials, trial, outcome(self.sweep, trial.config, trial.trial_id, result))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle a trial that failed permanently."""
        result = trial.last_result or {}
        run = _run_of(self.sweep, trial)
        if run is not None and run.info.status == "RUNNING":  # its process has ended
            with contextlib.suppress(database.UnreachableError, database.RefusedError):
                tracking.finish(run.info.run_id, {}, {"status": "failed: see Ray's log"})
                tracking.end(run.info.run_id, "FAILED")
        row = outcome(self.sweep, trial.config, trial.trial_id, result, failed=True)
        self._say(trials, trial, row)

    def _say(self, trials: Sequence[Any], trial: Any, row: Row) -> None:
        if trial.trial_id in self.said:
            return
        self.said.add(trial.trial_id)
        ended = sum(one.status in ("TERMINATED", "ERROR") for one in trials)
        ended += trial.status not in ("TERMINATED", "ERROR")
        seconds = (trial.last_result or {}).get("time_total_s", 0.0)
        score = f"{self.sweep.space.metric} {row.score:.1f}" if row.score is not None else ""
        print(
            f"[{ended} of {self.sweep.total}] {row.label}, seed {row.seed}: {score} "
            f"({row.status}, epoch {row.epochs}, {seconds:.0f} s)",
            flush=True,
        )


def outcome(
    sweep: Sweep,
    settings: dict[str, Any],
    trial: str,
    result: dict[str, Any],
    *,
    scores: Sequence[float] = (),
    failed: bool = False,
) -> Row:
    """A row from Tune's data on a trial."""
    known = [*scores, *([result[sweep.space.metric]] if sweep.space.metric in result else [])]
    status = "failed" if failed else trials.FINISHED if result.get("finished") else trials.STOPPED
    return Row(
        label=sweep.label(settings, trial),
        seed=sweep.seed(settings),
        score=max(known) if known else None,
        epochs=int(result.get("epoch", 0)),
        status=status,
        settings=settings,
        trial=trial,
    )


def table(rows: Sequence[Row], metric: str) -> str:
    """Variants, best first: mean and spread over seeds."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.label, []).append(row)
    width = max(len(label) for label in groups)
    lines = [f"{'variant':{width}}  {metric:>12}  {'± seeds':>8}  {'seeds':>5}  {'epochs':>6}  how"]
    for label, members in sorted(groups.items(), key=lambda item: -_mean(item[1])):
        scores = [row.score for row in members if row.score is not None]
        spread = f"{statistics.stdev(scores):8.2f}" if len(scores) > 1 else f"{'':8}"
        how = ", ".join(sorted({row.status for row in members}))
        mean = f"{statistics.mean(scores):12.2f}" if scores else f"{'none':>12}"
        epochs = max(row.epochs for row in members)
        lines.append(f"{label:{width}}  {mean}  {spread}  {len(scores):5}  {epochs:6}  {how}")
    return "\n".join(lines)


def finding(sweep: Sweep, rows: Sequence[Row]) -> str:
    """The best variant, its values if it was sampled, and its distance from the next one."""
    best = best_label(rows)
    if best is None:
        return "no trial has a score"
    groups = {row.label: [one for one in rows if one.label == row.label] for row in rows}
    lines = [f"best:    {best}, {sweep.space.metric} {_mean(groups[best]):.1f}"]
    lines[0] += _distance(groups, best, sampled=bool(sweep.axes))
    if sweep.axes:
        settings = next(row.settings for row in rows if row.label == best)
        for path in sweep.axes:
            if path in settings:
                lines.append(f"  --{path.replace('_', '-')} {_spelled(settings[path])}")
    return "\n".join(lines)


def _distance(groups: dict[str, list[Row]], best: str, *, sampled: bool) -> str:
    """Distance of the best from the next, compared with the spread over seeds or of the other samples."""
    others = {label: _mean(rows) for label, rows in groups.items() if label != best}
    others = {label: mean for label, mean in others.items() if mean > float("-inf")}
    if not others:
        return ""
    following = max(others, key=lambda label: others[label])
    gap = _mean(groups[best]) - others[following]
    said = f"; {gap:.1f} above the next, {following}"
    spreads = [
        statistics.variance(scores)
        for label in (best, following)
        if len(scores := [row.score for row in groups[label] if row.score is not None]) > 1
    ]
    if len(spreads) == 2:
        spread, whose = sum(spreads) ** 0.5, "the seeds' spread"
    elif sampled and len(others) > 1:
        spread, whose = statistics.stdev(others.values()), "the spread of the others"
    else:
        return said + ", of one seed each: the spread over seeds is not known"
    where = "within" if gap <= spread else "beyond"
    return f"{said}, {where} {whose} ({spread:.1f})"


def _spelled(value: Any) -> str:
    """A value in command-line form."""
    value = decode(value)
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def best_label(rows: Sequence[Row]) -> str | None:
    """The variant with the highest mean over its seeds; None if no trial has a score."""
    labels = {row.label for row in rows if row.score is not None}
    members = {label: [row for row in rows if row.label == label] for label in labels}
    return max(sorted(members), key=lambda label: _mean(members[label]), default=None)


def _mean(rows: Sequence[Row]) -> float:
    scores = [row.score for row in rows if row.score is not None]
    return statistics.mean(scores) if scores else float("-inf")


def _close(sweep: Sweep, trial: Any, rows: Sequence[dict[str, float]]) -> None:
    """Store the result and send the history of a stopped trial, which can no longer do so itself."""
    folder = sweep.trial_folder(trial.config, trial.trial_id)
    history = trials.history(folder)
    epochs = [row for row in history if "epoch" in row] or list(rows)
    if not epochs:
        return  # stopped before it began
    config = sweep.config(trial.config)
    trials.keep(sweep, config, folder, epochs, trials.STOPPED)
    try:
        run = _run_of(sweep, trial)
        if run is None:
            return
        tracking.complete(run.info.run_id, history)
        trials.finish(run.info.run_id, sweep, config, epochs, trials.STOPPED, "FINISHED")
    except (database.UnreachableError, database.RefusedError) as error:
        print(f"{error}; it is sent at the end of the sweep", flush=True)


def _run_of(sweep: Sweep, trial: Any) -> Any:
    return tracking.run_of(sweep.trial_folder(trial.config, trial.trial_id))
