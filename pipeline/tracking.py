"""What runs leave in MLflow."""

import contextlib
import hashlib
import json
import logging
import math
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from ray.train import Checkpoint, UserCallback

from pipeline.interface import describe, origin
from pipeline.interface.experiments import (
    check,
    experiment,
    experiments,
    find_runs,
    page,
    save_views,
    table,
)
from pipeline.run_state import database, run_folder
from pipeline.run_state.database import client, look, shown, uri
from tcmgc import storage
from tcmgc.config import Config, flatten, to_dict
from tcmgc.datasets import Corpus
from tcmgc.retrieval.metrics import reported

FIRST = ("best/SumR", "best/t2v/R1", "best/v2t/R1")
"""Metrics that stand first in MLflow's lists and comparisons, which keep the order of arrival."""
DESCRIPTION = "mlflow.note.content"
_CONTEXTS = {"train": "training", "val": "validation", "test": "testing"}
"""MLflow's words for what a split is used for."""
_BATCH = 900
"""Metrics a request; the server takes 1,000."""
log = logging.getLogger(__name__)
__all__ = [
    "MlflowCallback",
    "Recorder",
    "attach",
    "best_of",
    "check",
    "children",
    "client",
    "complete",
    "describe_run",
    "end",
    "end_failed",
    "evaluation",
    "experiment",
    "experiments",
    "find",
    "find_runs",
    "finish",
    "folder_of",
    "has_lost",
    "inputs",
    "interrupted",
    "look",
    "page",
    "run_of",
    "save_views",
    "shown",
    "start",
    "system_metrics",
    "table",
    "uri",
]


def run_of(folder: str) -> Run | None:
    """The MLflow run of a run folder, where there is one."""
    known = find_runs(_tagged("folder", folder), 1)
    return known[0] if known else None


def has_lost(folder: str) -> bool:
    """Whether MLflow can be reached and has no run of this folder."""
    try:
        return run_of(folder) is None
    except ValueError:  # away: nothing is known
        return False


def start(
    config: Config,
    name: str,
    folder: str,
    tags: dict[str, str] | None = None,
    params: dict[str, Any] | None = None,
) -> str:
    """The MLflow run of a run folder: the one that there is, or a new one.

    Args:
        config: Goes in as the artifact ``config.json``.
        name: Shown in MLflow.
        folder: Of the run; known again by it.
        tags: More of them.
        params: What the run is compared by beside every field of the config.
    """
    if known := run_of(folder):
        run_id = known.info.run_id
        client().update_run(run_id, status="RUNNING")
        resumed = int(known.data.tags.get("resumed", 0)) + 1
        client().set_tag(run_id, "resumed", str(resumed))
        return run_id
    described = {"method": describe.method(config), "recipe": describe.recipe(config)}
    run = client().create_run(
        experiment(config.data.dataset),
        run_name=name,
        tags={"folder": folder, **described, **origin.tags(), **(tags or {})},
    )
    compared = flatten(config) | (params or {})
    client().log_batch(
        run.info.run_id,
        # Not a number until the first validation: they only take their place in the lists.
        metrics=[Metric(key, math.nan, 0, 0) for key in FIRST],
        params=[Param(k, storage.plain(str(v))) for k, v in compared.items()],
    )
    client().log_dict(run.info.run_id, to_dict(config), "config.json")
    return run.info.run_id


def describe_run(run_id: str, text: str) -> None:
    """Set the description that MLflow shows on a run's page, as Markdown."""
    client().set_tag(run_id, DESCRIPTION, text)


def inputs(run_id: str, config: Config, corpus: Corpus) -> None:
    """Log the splits as the run's data sets: name, size, and a digest of videos and captions."""
    root = storage.plain(config.data.root)
    made = []
    for name, split in corpus.items():
        content = hashlib.sha256()
        for clip in split.clips:
            content.update(repr((clip.id, clip.captions)).encode("utf-8", "replace"))
        captions = sum(len(clip.captions) for clip in split.clips)
        dataset = Dataset(
            name=f"{config.data.dataset} {name}",
            digest=content.hexdigest()[:8],
            source_type="uri",
            source=json.dumps({"uri": root}),
            profile=json.dumps({"videos": len(split), "captions": captions}),
        )
        context = _CONTEXTS.get(name, name)
        made.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    client().log_inputs(run_id, made)


@contextlib.contextmanager
def system_metrics(run_id: str) -> Iterator[None]:
    """Log CPU, memory, disk, network and GPU of this machine while the block runs."""
    logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
    monitor = None
    with contextlib.suppress(Exception):  # measurements must not cost a run
        monitor = SystemMetricsMonitor(
            run_id, sampling_interval=5, resume_logging=True, tracking_uri=uri()
        )
        monitor.start()
    try:
        yield
    finally:
        if monitor is not None:
            monitor.finish()


class Recorder:
    """Sends rows of metrics to a run from a thread: training never waits for the server.

    A row that the run already has (the same step) is left out, so that history can be sent again
    after a restart and shows neither gap nor double. While the server does not answer, rows wait.
    """

    def __init__(self, run_id: str, tracking_uri: str) -> None:
        self.run_id, self.uri = run_id, tracking_uri
        self.lost: str | None = None
        """Why MLflow takes no more rows of this run; None while it does."""
        self._made: Any = None
        self._rows: queue.Queue[Sequence[dict[str, float]] | None] = queue.Queue()
        self._seen: dict[str, set[int]] = {}
        self._best: float | None = None
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def put(self, rows: Sequence[dict[str, float]]) -> None:
        """Rows with ``step``, ``time`` (seconds since 1970) and any metrics."""
        self._rows.put(rows)

    def close(self, timeout: float = 600.0) -> None:
        """Wait until all is sent.

        Raises:
            ValueError: the server did not take it in time, or has lost the run.
        """
        self._rows.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise database.UnreachableError(
                f"MLflow at {shown(self.uri)} did not answer for {timeout:g} s; the metrics are in the checkpoint, "
                "and the same command sends them when it answers again"
            )
        if self.lost is not None:
            raise database.RefusedError(self.lost)

    def _work(self) -> None:
        while (rows := self._rows.get()) is not None:
            pause, away = 0.5, None
            while self.lost is None:
                try:
                    self._send(rows)
                    if away is not None:
                        lasted = f"{time.monotonic() - away:.0f} s; rows waited and were sent then"
                        self._client().set_tag(self.run_id, "mlflow_away", lasted)
                    break
                except database.RefusedError as error:
                    self.lost = str(error)
                    log.warning("%s: no more metrics of this run are sent", error)
                except Exception as error:
                    away = away or time.monotonic()
                    log.warning("%s; trying again", str(error).splitlines()[0])
                    time.sleep(pause)
                    pause = min(2 * pause, 10.0)

    def _client(self) -> Any:
        if self._made is None:
            self._made = client(self.uri, patience=0.0)
        return self._made

    def _send(self, rows: Sequence[dict[str, float]]) -> None:
        fresh = [metric for row in rows for metric in self._metrics(row)]
        for start in range(0, len(fresh), _BATCH):
            batch = fresh[start : start + _BATCH]
            self._client().log_batch(self.run_id, metrics=batch)
            for metric in batch:
                self._seen[metric.key].add(metric.step)
        self._send_best(describe.best_epoch(rows))

    def _send_best(self, row: Mapping[str, float]) -> None:
        """The best epoch so far under ``best/``: what tables of runs are sorted by."""
        if not row:
            return
        if self._best is None:
            known = self._client().get_run(self.run_id).data.metrics.get(FIRST[0], math.nan)
            self._best = -math.inf if math.isnan(known) else known
        if row[describe.SCORE] > self._best:
            moment = int(row["time"] * 1000)
            found = reported(describe.best(row)).items()
            self._client().log_batch(
                self.run_id, metrics=[Metric(key, value, moment, 0) for key, value in found]
            )
            self._best = row[describe.SCORE]

    def _metrics(self, row: dict[str, float]) -> Iterable[Metric]:
        step, moment = int(row["step"]), int(row["time"] * 1000)
        for key, value in reported(row).items():
            if key in ("step", "time"):
                continue
            if key not in self._seen:
                logged = self._client().get_metric_history(self.run_id, key)
                self._seen[key] = {metric.step for metric in logged}
            if step not in self._seen[key]:
                yield Metric(key, value, moment, step)


class MlflowCallback(UserCallback):
    """Runs in Ray Train's controller: one writer, which outlives workers."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.uri = uri()
        self.variables = database.environment()
        self._recorder: Recorder | None = None

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Send rank 0's new history."""
        if self._recorder is None:
            database.adopt(self.variables)
            self._recorder = Recorder(self.run_id, self.uri)
        self._recorder.put(metrics[0]["history"])
        if trouble := metrics[0].get("trouble"):
            interrupted(self.run_id, trouble, self.uri)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Note on the run what happened to it."""
        what = "; ".join(
            f"worker {rank}: {str(error).splitlines()[-1][:200]}"
            for rank, error in worker_exceptions.items()
        )
        interrupted(self.run_id, what, self.uri)


def interrupted(run_id: str, what: str, tracking_uri: str | None = None) -> None:
    """Note on a run what happened to it, and count it."""
    try:
        there = client(tracking_uri)
        count = int(there.get_run(run_id).data.tags.get("interruptions", 0)) + 1
        there.set_tag(run_id, "interruptions", str(count))
        there.set_tag(run_id, "last_interruption", what)
    except Exception as error:
        log.warning("could not note on MLflow that %s: %s", what, error)


def folder_of(run_id: str) -> str:
    """The folder of a run of ours.

    Raises:
        ValueError: MLflow has no such run, or one that is not ours.
    """
    folder = None
    if database.is_there():
        with contextlib.suppress(database.RefusedError):
            folder = client().get_run(run_id).data.tags.get("folder")
    if folder is None:
        raise ValueError(
            f"--resume {run_id}: neither a run's folder nor an id of one of our runs in MLflow at {shown()}"
        )
    return folder


def complete(run_id: str, history: Sequence[dict[str, float]]) -> None:
    """Send whatever of the history the run does not have yet."""
    recorder = Recorder(run_id, uri())
    recorder.put(history)
    recorder.close()


def finish(
    run_id: str, metrics: Mapping[str, float], tags: dict[str, str], files: Sequence[Path] = ()
) -> None:
    """Final metrics, tags and artifacts."""
    now = int(time.time() * 1000)
    client().log_batch(
        run_id,
        metrics=[Metric(key, value, now, 0) for key, value in reported(metrics).items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    for file in files:
        client().log_artifact(run_id, str(file))


def best_of(run_id: str) -> dict[str, float]:
    """The metrics of a run's best epoch, by their names in MLflow."""
    found = client().get_run(run_id).data.metrics
    return {key: value for key, value in found.items() if key.startswith("best/")}


def evaluation(config: Config, checkpoint: str, split: str, metrics: Mapping[str, float]) -> str:
    """Log an evaluation as a run of its own, below the one that made the checkpoint, if that is here.

    Gives its id.
    """
    parent = find(checkpoint)
    tags = {"kind": "evaluation", "evaluated": checkpoint, "split": split}
    if parent is not None:
        tags["mlflow.parentRunId"] = parent
    described = {"method": describe.method(config), "recipe": describe.recipe(config)}
    run = client().create_run(
        experiment(config.data.dataset),
        run_name=f"evaluation, {split} split, {describe.run_name(config)}",
        tags={**described, **origin.tags(), **tags},
    )
    params = {**flatten(config), "checkpoint": checkpoint, "split": split}
    client().log_batch(
        run.info.run_id, params=[Param(k, storage.plain(str(v))) for k, v in params.items()]
    )
    finish(run.info.run_id, {f"{split}/{key}": value for key, value in metrics.items()}, {})
    end(run.info.run_id, "FINISHED")
    return run.info.run_id


def find(checkpoint: str) -> str | None:
    """The MLflow run that made a checkpoint: by its tag, or by the run folder that holds it."""
    folder = run_folder.split(checkpoint)[0]
    for tag, value in (("checkpoint", checkpoint), ("folder", folder)):
        if known := find_runs(_tagged(tag, value), 1):
            return known[0].info.run_id
    return None


def children(parent: str) -> list[Run]:
    """The runs below a sweep's."""
    return find_runs(f"tags.`mlflow.parentRunId` = '{parent}'")


def _tagged(tag: str, value: str) -> str:
    """MLflow's words for runs with a tag; paths may hold an apostrophe."""
    quote = '"' if "'" in value else "'"
    return f"tags.{tag} = {quote}{value}{quote}"


def attach(run_id: str, file: Path, folder: str) -> None:
    """Log a file as an artifact in a folder of the run's."""
    client().log_artifact(run_id, str(file), folder)


def end(run_id: str, status: str) -> None:
    """Close the run as FINISHED, FAILED or KILLED."""
    client().set_terminated(run_id, status)


def end_failed(run_id: str, error: BaseException) -> None:
    """Close a run that an error ended, as KILLED or FAILED; the error is what the user has to see."""
    try:
        end(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
    except ValueError as trouble:
        log.warning("the run stays open in MLflow: %s", trouble)
