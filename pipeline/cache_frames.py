"""Fill the frame cache for a recipe over all CPU nodes; a killed fill continues where it stopped."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

from pipeline import cli
from pipeline.cluster import placement as cluster
from pipeline.inputs import prepare
from tcmgc import storage
from tcmgc.datasets import Clip
from tcmgc.frames.cache import FrameCache


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    config: cli.Fields
    splits: tuple[str, ...] = ()
    """Splits whose videos are decoded; none: all splits."""
    retry_failed: bool = False
    """Try videos again that could not be decoded before, though their files have not changed."""
    verify: bool = False
    """Read every stored record, and decode damaged ones again."""
    list: str | None = None
    """File for the videos that cannot be decoded, tab-separated; None: runs/unreadable-DATASET.tsv."""


def main(argv: list[str] | None = None) -> int:
    """The command: 0 when every video is in the cache, 1 when some cannot be decoded."""
    arguments = cli.parse(Arguments, argv, "python pipeline/cache_frames.py", str(__doc__))
    config = arguments.config
    listed = arguments.list or f"runs/unreadable-{config.data.dataset}.tsv"
    cli.refuse_output("--list", listed)
    cli.refuse_folder("--data.cache", config.data.cache)
    cache = prepare.frame_cache(config)
    corpus = prepare.splits(config, captions=False)
    unknown = [name for name in arguments.splits if name not in corpus]
    if unknown:
        raise ValueError(
            f"--splits {' '.join(unknown)}: {config.data.dataset} has {', '.join(corpus)}"
        )
    names = arguments.splits or tuple(corpus)
    clips = [clip for name in names for clip in corpus[name].clips]
    cluster.connect()
    prepare.fill(
        config,
        clips,
        " and ".join(names),
        retry_failed=arguments.retry_failed,
        verify=arguments.verify,
    )
    failures = _say(cache, clips)
    if failures:
        rows = [("video", "reason"), *failures.items()]
        with cli.output(listed) as place, place.open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows(rows)
        print(f"unreadable:  {len(failures)} videos, listed in {cli.resolve(listed)}")
    print(f"frames:      {storage.plain(cache.folder)}")
    return 1 if failures else 0


def _say(cache: FrameCache, clips: list[Clip]) -> dict[str, str]:
    reader = cache.open(clips)
    sizes = [reader.stored_bytes(clip) for clip in clips if clip in reader]
    if sizes:
        print(
            f"\nin the cache: {len(sizes)} of {len(clips)} videos, {sum(sizes) / 2**20:.1f} MiB, "
            f"{sum(sizes) / len(sizes) / 2**10:.0f} KiB a video ({cache.frame_format})"
        )
    return {clip.id: reader.failures[clip.id] for clip in clips if clip.id in reader.failures}


if __name__ == "__main__":
    cli.run(main)
