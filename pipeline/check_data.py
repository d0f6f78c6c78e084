"""Check all of a recipe's data before training: what exists, what is missing or broken."""

import csv
import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import ray

from pipeline import cli
from pipeline.cluster import placement as cluster
from pipeline.inputs import prepare
from pipeline.inputs.survive import map_surviving
from pipeline.interface import terminal
from tcmgc.config import Config
from tcmgc.datasets import Clip, Corpus, NoCaptionsError, inspection
from tcmgc.datasets.inspection import FileReport
from tcmgc.frames.cache import FrameCache
from tcmgc.towers import backbone

CAPTIONS = 2000
"""Captions tokenised together."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    config: cli.Fields
    allow_missing: int = 0
    """Most unusable videos per split (missing, unreadable, or never listed)."""
    allow_leaks: int = 0
    """Most videos that may be in two splits."""
    look: Literal["frames", "headers"] = "frames"
    """Decode the frames that training uses; or read headers, packets and the first picture only."""
    list: str | None = None
    """File for all problems, tab-separated; None: runs/check-DATASET.tsv."""


def main(argv: list[str] | None = None) -> int:
    """The command: 0 if every split is complete, 1 if not."""
    arguments = cli.parse(Arguments, argv, "python pipeline/check_data.py", str(__doc__))
    config = arguments.config
    listed = arguments.list or f"runs/check-{config.data.dataset}.tsv"
    cli.refuse_output("--list", listed)
    for name in ("allow_missing", "allow_leaks"):
        if (value := getattr(arguments, name)) < 0:
            raise ValueError(f"--{name.replace('_', '-')} must not be negative; got {value}")
    backbone.tokenizer(config.towers.name, config.data.max_words)  # refuses before any long work
    words = True
    try:
        corpus = prepare.splits(config)
    except NoCaptionsError as error:
        corpus, words = prepare.splits(config, captions=False), False
        print(f"looking at the videos alone: {error}")
    cluster.connect()
    cluster.require_decoding(config)
    cache = prepare.frame_cache(config) if arguments.look == "frames" else None
    files = inspect_files(config, corpus, cache)
    reports = inspection.report(corpus, files, caption_positions(config, corpus))
    found = inspection.leaks(corpus, files)
    print()
    for name, one in reports.items():
        print(inspection.format_report(name, one, config.data.max_words))
    prepare.say_same_video(config, corpus["train"])
    print(f"leaks: {len(found)}")
    for leak in found[:5]:
        print(f"  {leak}")
    with cli.output(listed) as place:
        write_problems(place, inspection.problems(reports, found))
    print(f"what is wrong is listed in {cli.resolve(listed)}")
    against = inspection.verdict(
        reports,
        found,
        allow_missing=arguments.allow_missing,
        allow_leaks=arguments.allow_leaks,
        allow_share=config.data.max_unreadable,
    )
    positions = {name: one.positions for name, one in reports.items()}
    for line in inspection.remarks(corpus, positions, config.data.max_words):
        print(f"note: {line}")
    for line in against:
        print(f"NOT fit: {line}")
    if not against:
        fit = "fit for training" if words else "whole; without captions it is not fit for training"
        print(fit + (", as far as headers tell" if cache is None else ""))
    return 1 if against else 0


def inspect_files(config: Config, corpus: Corpus, cache: FrameCache | None) -> list[FileReport]:
    """Inspect every file on the cluster's CPUs; without a cache's settings, only headers."""
    groups = list(inspection.by_file(corpus).values())
    look = functools.partial(_look, cache=cache, timeout=config.data.decode_timeout)
    bar = terminal.Progress("videos", len(groups))
    reports: list[FileReport] = []
    for index, seen in map_surviving(
        look, groups, workers=workers(config), batch=16, node=config.cluster.decode_node
    ):
        group = groups[index]
        reports.append(
            seen
            or FileReport(
                group[0].path, errors={clip.id: "it ends the decoder's process" for clip in group}
            )
        )
        bar.step(bad=bool(reports[-1].errors))
    return reports


def caption_positions(config: Config, corpus: Corpus) -> dict[str, int]:
    """Token positions of every caption, uncut."""
    captions = list(dict.fromkeys(text for split in corpus.values() for _, text in split.pairs()))
    if not captions:
        return {}
    chunks = [captions[at : at + CAPTIONS] for at in range(0, len(captions), CAPTIONS)]
    count = functools.partial(backbone.caption_lengths, config.towers.name)
    bar = terminal.Progress("captions", len(captions))
    positions: dict[str, int] = {}
    for index, lengths in map_surviving(count, chunks, workers=workers(config), batch=1):
        positions |= dict(zip(chunks[index], lengths, strict=True))
        bar.step(len(chunks[index]))
    return positions


def workers(config: Config) -> int:
    """Number of processes for the inspection."""
    return config.cluster.decode_workers or int(ray.cluster_resources().get("CPU", 1))


def write_problems(place: Path, rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Write the list of all problems; an empty one has only the header."""
    with place.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([("split", "id", "problem", "details"), *rows])


def _look(clips: Sequence[Clip], cache: FrameCache | None, timeout: float) -> FileReport:
    decode = None if cache is None else cache.decode
    return inspection.inspect_file(clips[0].path, clips, timeout, decode)


if __name__ == "__main__":
    cli.run(main)
