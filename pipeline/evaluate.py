"""Retrieval metrics of a checkpoint on a split: the one place that touches the test split.

With --zero-shot and a recipe in the checkpoint's place: of its towers without any training.
"""

import json
import os
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import ray
import ray.train

from pipeline import cli, tracking
from pipeline.cluster import capacity, placement
from pipeline.cluster.trainer import Trainer
from pipeline.inputs import prepare
from pipeline.interface import describe, terminal
from pipeline.run_state import checkpoints, run_folder
from pipeline.training import scoring
from tcmgc import storage
from tcmgc.config import Cluster, Config, HeadOptions, to_dict
from tcmgc.datasets import Corpus, Split, sample
from tcmgc.retrieval.metrics import format_chance, format_table
from tcmgc.retrieval.normalise import NEED_BANK, NORMALISATIONS, check
from tcmgc.training import checkpoint

TITLES = {**NORMALISATIONS, "mean_max": "mean over words of each word's best frame"}
"""Of columns beside the plain scores."""


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
        names, bank = normalisation(arguments.normalise, arguments.bank, corpus, arguments.split)
        placement.connect()
        terminal.header("device", placement.require(config).words(config))
        metrics = evaluate(
            config,
            folder,
            split,
            arguments.split,
            allow_unreadable=arguments.allow_unreadable,
            normalise=names,
            bank=bank,
        )
    show(metrics, names)
    print(f"\ncheckpoint:  {folder}")
    write(metrics, arguments.json)
    print(f"MLflow:      {record(config, folder, arguments.split, metrics)}")


def normalisation(
    asked: str, size: int, corpus: Corpus, split: str
) -> tuple[tuple[str, ...], Split | None]:
    """Normalisations by name, and the training queries that they need.

    Args:
        asked: Names with commas between them.
        size: Pairs of caption and video in the bank; 0 for all.
        corpus: Has the training split.
        split: The one that is evaluated.

    Raises:
        ValueError: an unknown name, or one that needs training queries where there are none.
    """
    names = tuple(name.strip() for name in asked.split(",") if name.strip())
    if size < 0:
        raise ValueError(f"--bank must not be negative; got {size}")
    queries = split != "train" and bool(len(corpus["train"]))
    if split == "train" and any(name in NEED_BANK for name in names):
        raise ValueError(
            f"--normalise {asked} needs a bank of training queries, and --split train makes them the test: "
            "evaluate another split, or take dsl"
        )
    check(names, bank=queries)
    if not any(name in NEED_BANK for name in names):
        return names, None
    bank = sample(corpus["train"], size, seed=0)
    print(f"bank: {len(list(bank.pairs()))} training captions and their {len(bank)} videos")
    return names, bank


def show(metrics: dict[str, float], columns: Sequence[str]) -> None:
    """The table, and one more for each column of other scores, by their prefix."""
    plain = {key: value for key, value in metrics.items() if not key.startswith(_prefixes(columns))}
    print()
    print(format_table(plain), format_chance(plain), sep="\n")
    for name in columns:
        parts = [TITLES.get(part, part) for part in name.split("/")]
        print(f"\n{name}: {', '.join(parts)}")
        start = f"{name}/"
        own = {key.removeprefix(start): v for key, v in metrics.items() if key.startswith(start)}
        print("\n".join(filter(None, (format_table(own), format_chance(own)))))


def _prefixes(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}/" for name in columns)


def write(metrics: dict[str, float], file: str | None) -> None:
    """The metrics as JSON, where a file is asked for."""
    if file:
        with cli.output(file) as place:
            place.write_text(json.dumps(metrics, indent=2) + "\n")
        print(f"metrics:     {cli.resolve(file)}")


def record(config: Config, folder: str, split: str, metrics: dict[str, float]) -> str:
    """Log an evaluation below the training that made the checkpoint; gives where, or why not."""
    try:
        run_id = tracking.evaluation(config, folder, split, metrics)
        return tracking.page(run_id)
    except Exception as error:  # the numbers are on the terminal: MLflow must not cost them
        return f"not logged at {tracking.shown()}: {str(error).splitlines()[0]}"


def evaluate(
    config: Config,
    folder: str | None,
    split: Split,
    name: str,
    *,
    allow_unreadable: int = 0,
    normalise: Sequence[str] = (),
    bank: Split | None = None,
    heads: Mapping[str, HeadOptions] = MappingProxyType({}),
) -> dict[str, float]:
    """Decode what the split needs, score every text against every video, and measure.

    Args:
        config: The checkpoint's, perhaps with the data elsewhere.
        folder: The checkpoint; None for the config's model as it is without training.
        split: What to evaluate on.
        name: The split's name, for messages.
        allow_unreadable: Videos that may be missing or unreadable.
        normalise: Score normalisations, reported under their names.
        bank: Training queries for those that need them; what is unreadable of them is left out.
        heads: Other heads on the same towers, reported under these names.

    Raises:
        ValueError: more videos than that are, or the checkpoint does not fit its config.
    """
    split = readable(config, split, name, allow_unreadable)
    if bank is not None:
        bank = readable(config, bank, "bank", len(bank))
    scratch = _scratch(folder or storage.join(cli.resolve("runs"), "zero-shot"))
    trainer = Trainer(
        scoring.evaluate_worker,
        train_loop_config={
            "config": to_dict(config),
            "checkpoint": folder,
            "split": [ray.put(split)],
            "bank": [] if bank is None else [ray.put(bank)],
            "normalise": tuple(normalise),
            "heads": dict(heads),
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


def readable(config: Config, split: Split, name: str, allowed: int) -> Split:
    """The split's videos that can be read, all decoded.

    Raises:
        ValueError: more than ``allowed`` are missing or unreadable.
    """
    prepare.fill(config, split.clips, name)
    failures = prepare.frame_cache(config).open(split.clips).failures
    unreadable = [clip.id for clip in split.clips if clip.id in failures]
    lost = [*split.missing, *unreadable]
    if len(lost) > allowed:
        first = unreadable[0] if unreadable else None
        why = f"; {first}: {failures[first]}" if first else ""
        raise ValueError(
            f"{len(lost)} of the {name} split's {len(split) + len(split.missing)} videos are missing or unreadable "
            f"({', '.join(lost[:3])}{why}); scores over fewer videos are not comparable. "
            f"--allow-unreadable {len(lost)} leaves them out and says so"
        )
    whole = len(split) + len(split.missing)
    if lost:
        print(
            f"evaluated over {len(split) - len(unreadable)} of {whole} videos of the {name} split"
        )
    return split.without(unreadable)


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
