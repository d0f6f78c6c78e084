"""Operations on any corpus: set a validation split aside, sample, shuffle, describe."""

import hashlib
import random
from dataclasses import replace

from tcmgc.datasets.rows import Corpus, Split


def carve_validation(corpus: Corpus, videos: int, seed: int) -> Corpus:
    """Move ``videos`` training videos to a split ``val``.

    These are the videos with the smallest hash of id and seed among all listed training videos:
    neither the list's order nor missing files change the choice.

    Raises:
        ValueError: there is already a validation split, or there are too few training videos.
    """
    train = corpus["train"]
    if "val" in corpus:
        raise ValueError(
            f"the data set has its own validation split ({len(corpus['val'])} videos); "
            "set data.val_videos to 0 to use it"
        )
    ids = [clip.id for clip in train.clips] + list(train.missing)
    if not 1 <= videos < len(ids):
        raise ValueError(
            f"data.val_videos must be at least 1 and leave a training video: there are {len(ids)}; "
            f"got {videos}"
        )
    chosen = set(
        sorted(ids, key=lambda id: hashlib.sha256(f"{seed} {id}".encode()).digest())[:videos]
    )
    val = Split(
        tuple(clip for clip in train.clips if clip.id in chosen),
        tuple(id for id in train.missing if id in chosen),
    )
    rest = replace(
        train,
        clips=tuple(clip for clip in train.clips if clip.id not in chosen),
        missing=tuple(id for id in train.missing if id not in chosen),
    )
    if train.expected_videos is not None:
        val = replace(val, expected_videos=videos)
        rest = replace(rest, expected_videos=train.expected_videos - videos)
    if train.expected_captions is not None and not val.missing:
        moved = captions(val)
        val = replace(val, expected_captions=moved)
        rest = replace(rest, expected_captions=train.expected_captions - moved)
    elif val.missing:
        rest = replace(rest, expected_captions=None)
    return {"train": rest, "val": val, **{k: v for k, v in corpus.items() if k != "train"}}


def sample(split: Split, pairs: int, seed: int) -> Split:
    """A random sample of this many pairs of caption and video; 0 takes all."""
    drawn = [
        (number, caption) for number, clip in enumerate(split.clips) for caption in clip.captions
    ]
    if not 0 < pairs < len(drawn):
        return split
    drawn = random.Random(seed).sample(drawn, pairs)
    kept: dict[int, list[str]] = {}
    for number, caption in sorted(drawn, key=lambda pair: pair[0]):
        kept.setdefault(number, []).append(caption)
    clips = [replace(split.clips[number], captions=tuple(said)) for number, said in kept.items()]
    return Split(tuple(clips))


def shuffled(split: Split, seed: int) -> Split:
    """The split with every clip's captions assigned to another clip, as a negative control.

    Raises:
        ValueError: fewer than two clips.
    """
    if len(split) < 2:
        raise ValueError(
            f"captions cannot be shuffled among {len(split)} videos: give two at least"
        )
    order = list(range(len(split)))
    random.Random(seed).shuffle(order)
    said = dict(zip(order, [*order[1:], order[0]], strict=True))
    clips = [
        replace(clip, captions=split.clips[said[number]].captions)
        for number, clip in enumerate(split.clips)
    ]
    return replace(split, clips=tuple(clips))


def captions(split: Split) -> int:
    """Number of captions of a split's clips."""
    return sum(len(clip.captions) for clip in split.clips)


def is_whole(split: Split) -> bool:
    """Whether every listed video exists and the published counts are met."""
    return (
        not split.missing
        and split.expected_videos in (None, len(split))
        and split.expected_captions in (None, captions(split))
    )


def describe(corpus: Corpus) -> str:
    """One line per split: what exists, what is published, what is missing."""
    return "\n".join(f"{name}: {describe_split(split)}" for name, split in corpus.items())


def describe_split(split: Split) -> str:
    """``1000 of 1000 videos, 1000 of 1000 captions, as published``, or what differs."""
    counts = (
        f"{_of(len(split), split.expected_videos)} videos, "
        f"{_of(captions(split), split.expected_captions)} captions"
    )
    if split.missing:
        first = ", ".join(split.missing[:5]) + (", …" if len(split.missing) > 5 else "")
        return f"{counts}; {len(split.missing)} missing: {first}"
    if split.expected_videos is None:
        return counts
    return f"{counts}, " + ("as published" if is_whole(split) else "NOT the published counts")


def _of(count: int, expected: int | None) -> str:
    return f"{count}" if expected is None else f"{count} of {expected}"
