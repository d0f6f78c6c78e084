"""Retrieval metrics of a checkpoint on a split: the one place that touches the test split."""

import json
import os
import sys
import tempfile
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.front  # isort: skip  # noqa: F401

import ray
import ray.train

from pipeline import cli, terminal, tracking
from pipeline.cluster import capacity, placement
from pipeline.cluster.trainer import Trainer
from pipeline.inputs import prepare
from pipeline.recording import describe
from pipeline.run_state import checkpoints, run_folder
from pipeline.training import scoring
from tcmgc import storage
from tcmgc.config import Cluster, Config, to_dict
from tcmgc.datasets import Split
from tcmgc.retrieval.metrics import format_chance, format_table
from tcmgc.training import checkpoint


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    checkpoint: str
    """Folder of a checkpoint, or of a run, of which the best one by validation score is taken."""
    split: str = "test"
    """Split to evaluate on: test, val or train."""
    json: str | None = None
    """File to write the metrics to."""
    root: str | None = None
    """Folder of the data, where it is not where training had it."""
    cache: str | None = None
    """Folder of the frame cache, where it is not where training had it."""
    workers: int = 1
    """Workers to evaluate on; the numbers do not depend on it."""
    gpus: Literal["auto", "always", "never"] = "auto"
    """A GPU a worker: when the cluster has one; or refuse without; or stay on the CPU."""
    cluster: Cluster = field(default_factory=Cluster)
    allow_unreadable: int = 0
    """Videos of the split that may be missing or unreadable; they are left out and counted."""
    quiet: bool = False
    """Show nothing but the result and errors."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    arguments = cli.parse(
        Arguments, argv, "python pipeline/evaluate.py", str(__doc__), default_recipe=None
    )
    if arguments.workers < 1:
        raise ValueError(f"--workers must be at least 1; got {arguments.workers}")
    if arguments.allow_unreadable < 0:
        raise ValueError(
            f"--allow-unreadable must not be negative; got {arguments.allow_unreadable}"
        )
    cli.refuse_output("--json", arguments.json)
    folder = checkpoints.chosen(cli.resolve(arguments.checkpoint))
    with checkpoints.local(folder) as place:
        _evaluate(arguments, folder, place)
    return 0


def _evaluate(arguments: Arguments, folder: str, place: str) -> None:
    """Evaluate a checkpoint of which ``place`` is a copy on this machine, and show the metrics."""
    # Whatever is wrong with the checkpoint shows here, before anything is started.
    config, _ = checkpoint.load(place)
    data = replace(
        config.data,
        root=arguments.root or config.data.root,
        cache=arguments.cache or config.data.cache,
    )
    config = cli.placed(
        replace(config, data=data),
        workers=arguments.workers,
        gpus=arguments.gpus,
        cluster=arguments.cluster,
    )
    with terminal.silent(arguments.quiet):
        terminal.header("run", f"{describe.method(config)}, {arguments.split} split")
        terminal.header("weights", storage.plain(folder))
        corpus = prepare.corpus(config)
        if arguments.split not in corpus:
            raise ValueError(
                f"--split {arguments.split}: {config.data.dataset} has {', '.join(corpus)}"
            )
        split = corpus[arguments.split]
        if arguments.workers > len(split):
            raise ValueError(
                f"--workers {arguments.workers}: the {arguments.split} split has {len(split)} videos, and every "
                "worker needs one; lower it"
            )
        placement.connect()
        terminal.header("device", placement.require(config).words(config))
        metrics = evaluate(
            config,
            folder,
            split,
            arguments.split,
            allow_unreadable=arguments.allow_unreadable,
        )
    print()
    print(format_table(metrics), format_chance(metrics), sep="\n")
    print(f"\ncheckpoint:  {folder}")
    if arguments.json:
        with cli.output(arguments.json) as file:
            file.write_text(json.dumps(metrics, indent=2) + "\n")
        print(f"metrics:     {cli.resolve(arguments.json)}")
    print(f"MLflow:      {record(config, folder, arguments.split, metrics)}")


def record(config: Config, folder: str, split: str, metrics: dict[str, float]) -> str:
    """Log an evaluation below the training that made the checkpoint; gives where, or why not."""
    try:
        run_id = tracking.evaluation(config, folder, split, metrics)
        return tracking.page(run_id)
    except Exception as error:  # the numbers are on the terminal: MLflow must not cost them
        return f"not logged at {tracking.shown()}: {str(error).splitlines()[0]}"


def evaluate(
    config: Config, folder: str, split: Split, name: str, *, allow_unreadable: int = 0
) -> dict[str, float]:
    """Decode what the split needs, score every text against every video, and measure.

    Args:
        config: The checkpoint's, perhaps with the data elsewhere.
        folder: The checkpoint.
        split: What to evaluate on.
        name: The split's name, for messages.
        allow_unreadable: Videos that may be missing or unreadable.

    Raises:
        ValueError: more videos than that are, or the checkpoint does not fit its config.
    """
    prepare.fill(config, split.clips, name)
    failures = prepare.frame_cache(config).open(split.clips).failures
    unreadable = [clip.id for clip in split.clips if clip.id in failures]
    lost = [*split.missing, *unreadable]
    if len(lost) > allow_unreadable:
        first = unreadable[0] if unreadable else None
        why = f"; {first}: {failures[first]}" if first else ""
        raise ValueError(
            f"{len(lost)} of the {name} split's {len(split) + len(split.missing)} videos are missing or unreadable "
            f"({', '.join(lost[:3])}{why}); scores over fewer videos are not comparable. "
            f"--allow-unreadable {len(lost)} leaves them out and says so"
        )
    whole = len(split) + len(split.missing)
    split = split.without(unreadable)
    if lost:
        print(f"evaluated over {len(split)} of {whole} videos of the {name} split")
    scratch = _scratch(folder)
    trainer = Trainer(
        scoring.evaluate_worker,
        train_loop_config={
            "config": to_dict(config),
            "checkpoint": folder,
            "split": [ray.put(split)],
        },
        scaling_config=placement.placement(config).scaling(config),
        run_config=ray.train.RunConfig(
            name="evaluation",
            storage_path=scratch,
            failure_config=ray.train.FailureConfig(max_failures=config.train.max_failures),
            worker_runtime_env=placement.WORKERS,
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.WorkerGroupError as error:
        for cause in error.worker_failures.values():
            if isinstance(cause, ValueError):
                raise ValueError(str(cause)) from error
        raise
    finally:
        storage.remove_folder(scratch)
    return result.return_value


def _scratch(folder: str) -> str:
    """A new folder for Ray Train, which wants one that all nodes reach, though nothing is kept there.

    On one node any will do, so that the checkpoint's may be one that is only read; on several it
    is the checkpoint's run, or the folder of runs where that cannot be written to.
    """
    if len(capacity.nodes()) == 1 and not capacity.autoscales():
        return tempfile.mkdtemp(prefix="tcmgc-evaluation-")
    name, run = f"evaluation-{uuid.uuid4().hex[:8]}", run_folder.split(folder)[0]
    local = storage.without_scheme(run)
    if not storage.is_uri(local) and not os.access(local, os.W_OK):
        run = cli.resolve("runs")
    return storage.join(run, name)


if __name__ == "__main__":
    cli.run(main)
