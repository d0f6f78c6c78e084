"""Retrieval metrics of a checkpoint on a split: the one place that touches the test split."""

import json
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray
import ray.train

from pipeline import cli, terminal, tracking
from pipeline.cluster import placement as cluster
from pipeline.cluster.trainer import Trainer
from pipeline.inputs import prepare
from pipeline.recording import describe
from pipeline.run_state import checkpoints, run_folder
from pipeline.training import scoring
from tcmgc import storage
from tcmgc.config import Config, to_dict
from tcmgc.datasets import Split
from tcmgc.retrieval.metrics import format_table
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
    allow_unreadable: int = 0
    """Videos of the split that may be missing or unreadable; they are left out and counted."""
    quiet: bool = False
    """Show nothing but the result and errors."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    arguments = cli.parse(
        Arguments, argv, "python pipeline/evaluate.py", str(__doc__), default_recipe=None
    )
    folder = checkpoints.chosen(cli.resolve(arguments.checkpoint))
    with checkpoints.local(folder) as place:
        config = checkpoint.read_config(place)
    data = replace(
        config.data,
        root=arguments.root or config.data.root,
        cache=arguments.cache or config.data.cache,
    )
    config = replace(
        config,
        data=data,
        train=config.train.on(arguments.workers),
    )
    with terminal.silent(arguments.quiet):
        terminal.header("run", f"{describe.method(config)}, {arguments.split} split")
        terminal.header("results", folder)
        corpus = prepare.corpus(config)
        if arguments.split not in corpus:
            raise ValueError(
                f"--split {arguments.split}: {config.data.dataset} has {', '.join(corpus)}"
            )
        cluster.connect()
        metrics = evaluate(
            config,
            folder,
            corpus[arguments.split],
            arguments.split,
            allow_unreadable=arguments.allow_unreadable,
        )
    print()
    print(format_table(metrics))
    print(f"\ncheckpoint:  {folder}")
    if arguments.json:
        file = Path(cli.resolve(arguments.json))
        file.write_text(json.dumps(metrics, indent=2) + "\n")
        print(f"metrics:     {file}")
    print(f"MLflow:      {record(config, folder, arguments.split, metrics)}")
    return 0


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

    The metrics carry ``candidates``, the number of videos that each text was ranked against.

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
    run, scratch = run_folder.split(folder)[0], f"evaluation-{uuid.uuid4().hex[:8]}"
    trainer = Trainer(
        scoring.evaluate_worker,
        train_loop_config={
            "config": to_dict(config),
            "checkpoint": folder,
            "split": [ray.put(split)],
        },
        scaling_config=cluster.placement(config).scaling(config),
        # Ray Train wants a folder that all nodes reach; the checkpoint's is one.
        run_config=ray.train.RunConfig(
            name=scratch,
            storage_path=run,
            failure_config=ray.train.FailureConfig(max_failures=config.train.max_failures),
            worker_runtime_env=cluster.WORKERS,
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        result = trainer.fit()
    finally:
        storage.remove_folder(storage.join(run, scratch))
    return {**result.return_value, "candidates": len(split)}


if __name__ == "__main__":
    cli.run(main)
