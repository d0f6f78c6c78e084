"""Retrieval metrics of a checkpoint on a split: the one place that touches the test split.

With --zero-shot and a recipe in the checkpoint's place: of its towers without any training.
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

from pipeline import cli, tracking
from pipeline.cluster import placement
from pipeline.inputs import prepare
from pipeline.interface import describe, terminal
from pipeline.run_state import checkpoints
from pipeline.training import evaluation
from tcmgc import storage
from tcmgc.config import Cluster, Config
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
    normalise: str = ""
    """Score normalisations to report beside the plain scores: dsl, qb, sk, with commas between them."""
    bank: int = 10_000
    """Training captions, with their videos, that `qb` and `sk` take for queries; 0: all."""
    quiet: bool = False
    """Show nothing but the result and errors."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "--zero-shot" in words:
        from pipeline.training import zero_shot

        return zero_shot.main(words)
    arguments = cli.parse(
        Arguments, words, "python pipeline/evaluate.py", str(__doc__), default_recipe=None
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
        names, bank = evaluation.normalisation(
            arguments.normalise, arguments.bank, corpus, arguments.split
        )
        placement.connect()
        terminal.header("device", placement.require(config).words(config))
        metrics = evaluation.evaluate(
            config,
            folder,
            split,
            arguments.split,
            allow_unreadable=arguments.allow_unreadable,
            normalise=names,
            bank=bank,
        )
    evaluation.show(metrics, names)
    print(f"\ncheckpoint:  {folder}")
    evaluation.write(metrics, arguments.json)
    print(f"MLflow:      {record(config, folder, arguments.split, metrics)}")


def record(config: Config, folder: str, split: str, metrics: dict[str, float]) -> str:
    """Log an evaluation below the training that made the checkpoint; gives where, or why not."""
    try:
        run_id = tracking.evaluation(config, folder, split, metrics)
        return tracking.page(run_id)
    except Exception as error:  # the numbers are on the terminal: MLflow must not cost them
        return f"not logged at {tracking.shown()}: {str(error).splitlines()[0]}"


if __name__ == "__main__":
    cli.run(main)
