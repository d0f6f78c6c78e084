"""Ray Data's part: the stage that turns clips into cached frames.

The decoding process writes frames directly to the cache; only the clips' rows and one line of
result each pass through Ray's object store.
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
    """Decode clips into the cache; yield each with its error (empty on success) when it is done.

    A batch whose process dies is retried; if it dies again, the batch is split, and a clip that
    still kills its process is recorded as unreadable, so that no file is retried for ever. A retried
    batch may write a second shard of the same frames; the cache uses one of them.

    Args:
        clips: The clips to decode.
        cache: The destination.
        workers: Decoding processes, one CPU each.
        timeout: Seconds that a clip may take.
        node: Value of the label ``node-role`` of the nodes to decode on.
        on_lost: Called with the number of batches that are retried because their process died.
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
    """Decode a batch of clips and write them to the cache as one shard; return their errors."""
    results = [(clip, cache.decode(clip, timeout)) for clip in clips]
    cache.write(results)
    return [result.reason if isinstance(result, DecodeError) else "" for _, result in results]
