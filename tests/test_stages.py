import os
import signal
import sys
from pathlib import Path

import pytest
import ray

from pipeline.inputs import stages
from tcmgc import datasets
from tcmgc.datasets import Clip
from tcmgc.frames.cache import FrameCache
from tcmgc.video import DecodeError, Frames

# Workers do not have the tests on their path: what they call travels whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Deadly(FrameCache):
    """Decodes as ever, but dies of one clip, and once of another."""

    def decode(self, clip: Clip, timeout: float | None = None) -> Frames | DecodeError:
        if clip.id == "video3":
            os.kill(os.getpid(), signal.SIGSEGV)
        mark = Path(self.root) / "died-once"
        if clip.id == "video9" and not mark.exists():
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(clip, timeout)


@pytest.mark.usefixtures("cluster")
def test_a_clip_that_kills_its_decoder_is_named_and_costs_no_other(corpus: Path, tmp_path: Path):
    clips = datasets.read("demo", str(corpus))["train"].clips[:16]
    cache = Deadly(str(tmp_path / "cache"), max_frames=2, size=16)
    lost: list[int] = []
    results = dict(stages.decode(clips, cache, workers=2, timeout=30.0, on_lost=lost.append))
    assert lost[0] == 2  # batches of two clips; then the killer and its neighbour, each alone
    assert lost[1:] == [1]
    assert {clip.id for clip in results} == {clip.id for clip in clips}
    assert {clip.id: error for clip, error in results.items() if error} == {"video3": stages.KILLED}
    # It is on record: the next run neither tries it again nor dies of it.
    assert cache.missing(clips) == []
    assert cache.open(clips).failures == {"video3": stages.KILLED}
    pixels, mask = cache.open(clips).read([clip for clip in clips if clip.id != "video3"])
    assert pixels.shape[0] == 15
    assert mask.any(1).all()
