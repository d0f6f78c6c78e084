"""Ray Data's part: the stage that turns clips into cached frames.

Frames go from the decoding process into the cache; through Ray's object store pass the clips'
rows and one line of result each.
"""

import functools
from collections.abc import Callable, Iterator, Sequence

from pipeline.inputs.survive import map_surviving
from tcmgc.datasets import Clip
from tcmgc.frames.cache import FrameCache
from tcmgc.video import DecodeError

KILLED = (
    "decoding it ended the process, alone and more than once: the decoder crashes on it, "
    "or it takes more memory than there is"
)


def decode(
    clips: Sequence[Clip],
    cache: FrameCache,
    *,
    workers: int,
    timeout: float,
    node: str | None = None,
    on_lost: Callable[[int], None] = lambda count: None,
) -> Iterator[tuple[Clip, str]]:
    """Decode clips into the cache; each with its error, empty where it went well, as they are done.

    A batch whose process dies is tried again; one that dies again is taken apart, and a clip that
    kills its process even then is recorded as unreadable, so that no file is tried for ever. A batch that
    is tried again may write another shard of the same frames; the cache takes one of them.

    Args:
        clips: What to decode.
        cache: Where to.
        workers: Decoding processes, one CPU each.
        timeout: Seconds a clip may take.
        node: Value of the label ``node-role`` of the nodes to decode on.
        on_lost: Told how many batches are tried again because their process died.
    """
    size = max(1, min(64, len(clips) // (workers * 4) or 1))
    run = functools.partial(
        map_surviving,
        functools.partial(_decode, cache, timeout),
        workers=workers,
        batch=1,
        node=node,
        on_lost=on_lost,
    )
    batches = [tuple(clips[start : start + size]) for start in range(0, len(clips), size)]
    killers: list[Clip] = []
    for index, errors in run(batches):
        if errors is None:
            killers += batches[index]
        else:
            yield from zip(batches[index], errors, strict=True)
    for index, errors in run([(clip,) for clip in killers]) if killers else ():
        clip = killers[index]
        if errors is None:
            cache.write([(clip, DecodeError(clip.path, KILLED))])
            errors = [KILLED]
        yield clip, errors[0]


def _decode(cache: FrameCache, timeout: float, clips: tuple[Clip, ...]) -> list[str]:
    """Decode a batch of clips and write them to the cache as one shard; gives their errors."""
    results = [(clip, cache.decode(clip, timeout)) for clip in clips]
    cache.write(results)
    return [result.reason if isinstance(result, DecodeError) else "" for _, result in results]
