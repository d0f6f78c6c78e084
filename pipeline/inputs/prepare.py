"""Preparation before the first step: read the corpus, and decode each of its videos once."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray

from pipeline.cli import resolve
from pipeline.cluster import placement as cluster
from pipeline.inputs import stages
from pipeline.interface import terminal
from tcmgc import datasets, storage
from tcmgc.config import Config
from tcmgc.datasets import Clip, Corpus, Reading, Split, demo_corpus, inspection
from tcmgc.frames.cache import FrameCache
from tcmgc.towers import backbone
from tcmgc.training import order

_READERS = 8
"""Files hashed at a time."""
_CAPTIONS = 2000
"""Captions of a split whose length is checked."""


def corpus(config: Config) -> Corpus:
    """All splits of the config's data set, always with a validation split.

    Raises:
        ValueError: missing files or files that do not follow the data set's format; too many
            missing videos; no validation videos.
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


def look(config: Config, found: Corpus, splits: Sequence[str] | None = None) -> None:
    """Print remarks before training, and refuse data for which `check_data.py` would say NOT fit.

    ``splits``: those to check; None: all. A sweep never uses the test split.

    Checks what needs no decoding: missing videos, videos that two splits share, by
    file or by content (of files of equal size), small splits, captions that are cut.

    Raises:
        ValueError: data that are not fit, unless ``data.allow_unfit``.
    """
    data = config.data
    found = {name: split for name, split in found.items() if splits is None or name in splits}
    stamps = storage.stamps([clip.path for split in found.values() for clip in split.clips])
    suspects = inspection.suspects(found, {p: s.size if s else -1 for p, s in stamps.items()})
    with ThreadPoolExecutor(_READERS) as pool:
        digests = {file.path: file for file in pool.map(inspection.digest_report, suspects)}
    files = [digests.get(path, inspection.FileReport(path)) for path in stamps]
    leaks = inspection.leaks(found, files)
    lengths = {}
    for name, split in found.items():
        captions = list(dict.fromkeys(caption for _, caption in split.pairs()))
        some = captions[:: -(-len(captions) // _CAPTIONS) or 1]
        lengths[name] = backbone.caption_lengths(config.towers.name, some) if some else []
    for line in [*map(str, leaks[:5]), *inspection.remarks(found, lengths, data.max_words)]:
        print(f"note: {line}")
    reports = {
        name: inspection.SplitReport(split, (), {}, lengths[name]) for name, split in found.items()
    }
    against = inspection.verdict(reports, leaks, allow_share=data.max_unreadable, remedies=False)
    if against and not data.allow_unfit:
        raise ValueError(
            f"the data are not fit for training: {'; '.join(against)}; `pipeline/check_data.py` lists "
            "them all, and --data.allow-unfit True trains all the same"
        )
    for line in against:
        print(f"NOT fit, and allowed by data.allow_unfit: {line}")


def splits(config: Config, captions: bool = True) -> Corpus:
    """The annotations' splits, with validation set aside; creates the demo corpus if it is missing.

    ``captions``: False if only videos are needed, as for a folder or a table without captions.

    Raises:
        NoCaptionsError: captions are needed and there are none.
        ValueError: missing files or files that do not follow the data set's format.
    """
    data = config.data
    root = resolve(data.root)
    made_here = data.dataset == "demo" and not storage.is_uri(root)
    if made_here and not (Path(root) / demo_corpus.MARKER).is_file():
        print(f"making the demo corpus in {root}")
        demo_corpus.make(root)
    how = Reading(
        columns=data.columns,
        outside_links=data.outside_links,
        absolute_paths=data.absolute_paths,
        captions=captions,
    )
    found = datasets.read(data.dataset, root, how)
    if data.val_videos and (captions or len(found["train"]) > data.val_videos):
        found = datasets.carve_validation(found, data.val_videos, config.train.seed)
    return found


def frame_cache(config: Config) -> FrameCache:
    """The cache for the config's frames, shared by runs with the same sampling."""
    data = config.data
    pixels = backbone.preprocessing(config.towers.name, config.towers.pretrained)
    return FrameCache(
        resolve(data.cache),
        max_frames=data.max_frames,
        size=pixels.size,
        resize=pixels.resize,
        kernel=pixels.kernel,
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
    """Decode clips that are not in the cache, on the CPUs of the cluster, with a progress display.

    Returns the number of batches that were retried because their process died.

    Args:
        config: Determines how frames are sampled and where the cache is.
        clips: The required clips.
        what: Their name in messages.
        retry_failed: Retry clips that could not be decoded before.
        verify: Read stored records, and decode damaged ones again.
    """
    cache = frame_cache(config)
    cache.remove_leftovers()
    place = storage.plain(cache.folder)
    todo = cache.missing(clips, retry_failed=retry_failed, verify=verify)
    if not todo:
        print(f"frames of {len(clips)} {what} videos: all in {place}")
        return 0
    cluster.require_decoding(config)
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
    """The corpus without unreadable training videos, and the reasons for unreadable ones by id.

    Raises:
        ValueError: more of them than ``data.max_unreadable`` allows (unreadable validation videos
            count as well), or no video is left.
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


def say_same_video(config: Config, split: Split) -> None:
    """Print how many pairs of a batch have another caption of their video among the negatives."""
    train = config.train
    videos = order.owners([len(clip.captions) for clip in split.clips])
    first = order.of_epoch(
        videos, train.batch_size, train.seed, 0, separate=train.separate_captions
    )
    share = order.share_with_own_video_as_negative(videos, first, train.batch_size)
    if not share:
        return
    apart = "--train.separate-captions True puts captions of one video into different batches"
    few = (
        f"{len(split)} videos are too few for batches of {train.batch_size}: a lower "
        "--train.batch-size makes it less"
    )
    masked = "--loss.mask-same-video True leaves these out of the loss"
    hints = [few if train.separate_captions else apart, masked]
    if config.loss.mask_same_video:
        hints = ["loss.mask_same_video leaves these out of the loss"]
    print(
        f"false negatives: {_percent(share)} of a batch's pairs have another caption of the same "
        f"video among their negatives; {', and '.join(hints)}"
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "under 0.1%"


def _refuse(bad: Sequence[str], of: int, allowed: float, how: str) -> None:
    if len(bad) > allowed * of:
        raise ValueError(
            f"{len(bad)} of {of} videos are {how} ({', '.join(bad[:3])}{', …' if len(bad) > 3 else ''}); "
            f"data.max_unreadable allows a share of {allowed:g}. `pipeline/check_data.py` lists them all"
        )
