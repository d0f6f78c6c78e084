"""Evaluation on a split: decode what it needs, score every text against every video, measure, show."""

import json
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import ray
import ray.train

from pipeline import cli
from pipeline.cluster import capacity, placement
from pipeline.cluster.trainer import Trainer
from pipeline.inputs import prepare
from pipeline.run_state import run_folder
from pipeline.training import scoring
from tcmgc import storage
from tcmgc.config import Config, HeadOptions, to_dict
from tcmgc.datasets import Corpus, Split, sample
from tcmgc.retrieval.metrics import format_chance, format_table
from tcmgc.retrieval.normalise import NEED_BANK, NORMALISATIONS, check

TITLES = {**NORMALISATIONS, "mean_max": "mean over words of each word's best frame"}
"""Of columns beside the plain scores."""


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
