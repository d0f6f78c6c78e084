"""Before the first step: the corpus is read, and every video of it is decoded once."""

from collections.abc import Sequence
from pathlib import Path

import ray

from pipeline import terminal
from pipeline.cli import resolve
from pipeline.inputs import stages
from tcmgc import datasets, storage
from tcmgc.config import Config
from tcmgc.datasets import Clip, Corpus, demo_corpus
from tcmgc.frames.cache import FrameCache
from tcmgc.towers import backbone


def corpus(config: Config) -> Corpus:
    """All splits of the config's data set, with a validation split in any case.

    Raises:
        ValueError: files that are not there or not what the data set's format says; too many
            missing videos; nothing to validate on.
    """
    data = config.data
    found = splits(config)
    for line in datasets.describe(found).splitlines():
        terminal.header("data", line)
    if "val" not in found or not len(found["val"]):
        raise ValueError(
            f"{data.dataset} has no validation split, and checkpoints are never chosen on the test split; "
            "set data.val_videos to the number of training videos to set aside"
        )
    _refuse(found["train"].missing, len(found["train"]), data.max_unreadable, "missing")
    return found


def splits(config: Config) -> Corpus:
    """What the annotations list, validation set aside; the demo corpus is made where it is not there.

    Raises:
        ValueError: files that are not there or not what the data set's format says.
    """
    data = config.data
    root = resolve(data.root)
    made_here = data.dataset == "demo" and not storage.is_uri(root)
    if made_here and not (Path(root) / demo_corpus.MARKER).is_file():
        print(f"making the demo corpus in {root}")
        demo_corpus.make(root)
    found = datasets.read(data.dataset, root)
    if data.val_videos:
        found = datasets.carve_validation(found, data.val_videos, config.train.seed)
    return found


def frame_cache(config: Config) -> FrameCache:
    """The cache for the config's frames: runs that sample alike share it."""
    data = config.data
    return FrameCache(
        resolve(data.cache),
        max_frames=data.max_frames,
        size=backbone.image_size(config.towers.name),
        fps=data.fps,
        sampler=data.sampler,
        frame_format=data.frame_format,
    )


def fill(
    config: Config,
    clips: Sequence[Clip],
    what: str,
    *,
    retry_failed: bool = False,
    verify: bool = False,
) -> int:
    """Decode what the cache has not, over the CPUs of the cluster, with progress on the terminal.

    Gives the number of batches that were tried again because their process died.

    Args:
        config: Says how frames are taken and where the cache is.
        clips: What is wanted.
        what: Its name in messages.
        retry_failed: Try clips again that could not be decoded before.
        verify: Read what is stored, and decode damaged records anew.
    """
    cache = frame_cache(config)
    cache.remove_leftovers()
    place = storage.plain(cache.folder)
    todo = cache.missing(clips, retry_failed=retry_failed, verify=verify)
    if not todo:
        print(f"frames of {len(clips)} {what} videos: all in {place}")
        return 0
    cpus = int(ray.cluster_resources().get("CPU", 1))
    workers = min(config.cluster.decode_workers or cpus, len(todo))
    print(f"decoding {len(todo)} of {len(clips)} {what} videos with {workers} workers into {place}")
    bar, lost = terminal.Progress("videos", len(todo)), list[int]()
    results = stages.decode(
        todo,
        cache,
        workers=workers,
        timeout=config.data.decode_timeout,
        node=config.cluster.decode_node,
        on_lost=lost.append,
    )
    for _, error in results:
        bar.step(bad=bool(error))
    return sum(lost)


def usable(config: Config, found: Corpus) -> tuple[Corpus, dict[str, str]]:
    """Training without its unreadable videos, and what is unreadable, by id with the reason.

    Raises:
        ValueError: more of them than ``data.max_unreadable`` allows, or none is left; an
            unreadable validation video counts as well.
    """
    failures = frame_cache(config).open([*found["train"].clips, *found["val"].clips]).failures
    out = dict(found)
    bad: dict[str, str] = {}
    for name in ("train", "val"):
        split = found[name]
        unreadable = [clip.id for clip in split.clips if clip.id in failures]
        _refuse(
            tuple(unreadable) + split.missing,
            len(split) + len(split.missing),
            config.data.max_unreadable,
            "missing or unreadable",
        )
        bad |= {clip: failures[clip] for clip in unreadable}
        out[name] = split.without(unreadable)
        if not len(out[name]):
            raise ValueError(
                f"no usable video is left in the {name} split; `pipeline/check_data.py` lists what is wrong"
            )
    for clip, reason in bad.items():
        print(f"  unreadable: {clip}: {reason}")
    return out, bad


def _refuse(bad: Sequence[str], of: int, allowed: float, how: str) -> None:
    if len(bad) > allowed * of:
        raise ValueError(
            f"{len(bad)} of {of} videos are {how} ({', '.join(bad[:3])}{', …' if len(bad) > 3 else ''}); "
            f"data.max_unreadable allows a share of {allowed:g}. `pipeline/check_data.py` lists them all"
        )
