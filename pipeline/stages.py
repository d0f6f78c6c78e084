"""Ray Data's part: the stage that turns clips into cached frames."""

from collections.abc import Sequence
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

from tcmgc.datasets import Clip
from tcmgc.frame_cache import FrameCache
from tcmgc.video import DecodeError


class DecodeClips:
    """Decodes a batch of clips and writes them to the cache as one shard.

    A batch that is tried again, because its worker died, writes another shard of the same
    frames: the cache keeps the first.
    """

    def __init__(self, cache: FrameCache, timeout: float) -> None:
        self.cache = cache
        self.timeout = timeout

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Rows of ``clip`` to rows of ``id`` and ``error`` (empty where decoding went well)."""
        clips: list[Clip] = list(batch["clip"])
        results = [(clip, self.cache.decode(clip, self.timeout)) for clip in clips]
        self.cache.write(results)
        errors = [result.reason if isinstance(result, DecodeError) else "" for _, result in results]
        return {"id": [clip.id for clip in clips], "error": errors}


def decode(
    clips: Sequence[Clip],
    cache: FrameCache,
    *,
    workers: int,
    timeout: float,
    node: str | None = None,
) -> ray.data.Dataset:
    """A data set that decodes the clips into the cache when it is consumed.

    Args:
        clips: What to decode.
        cache: Where to.
        workers: Decoding processes, one CPU each.
        timeout: Seconds a clip may take.
        node: Value of the label ``node-role`` of the nodes to decode on.
    """
    batch = max(1, min(64, len(clips) // (workers * 4) or 1))
    rows = ray.data.from_items(
        [{"clip": clip} for clip in clips], override_num_blocks=-(-len(clips) // batch)
    )
    selector: dict[str, Any] = {"label_selector": {"node-role": node}} if node else {}
    return rows.map_batches(
        DecodeClips,
        fn_constructor_args=(cache, timeout),
        batch_size=batch,
        batch_format="numpy",
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
        **selector,
    )
