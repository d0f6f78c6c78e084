"""The frame cache: whole or not there, found by content, checked when read."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from video_clips import make

from tcmgc.datasets.rows import Clip
from tcmgc.frames.cache import FrameCache
from tcmgc.frames.reader import FrameCacheError
from tcmgc.video import DecodeError, Frames

SIZE, MAX_FRAMES = 16, 4


def clip(path: Path | str, name: str = "", **window: float) -> Clip:
    return Clip(id=name or Path(path).stem, path=str(path), captions=("a caption",), **window)


def fill(cache: FrameCache, clips: Sequence[Clip]) -> list[str]:
    """Decode what is missing into one shard; the ids of what was decoded."""
    todo = cache.missing(clips)
    if todo:
        cache.write((one, cache.decode(one)) for one in todo)
    return [one.id for one in todo]


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(str(tmp_path / "cache"), max_frames=MAX_FRAMES, size=SIZE)


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Three videos of 1, 2 and 8 frames a second's sampling, a stretch of one, and two broken files."""
    folder = tmp_path / "data" / "videos"
    folder.mkdir(parents=True)
    long = make(folder / "long.mp4", frames=200, rate=25)
    (folder / "text.mp4").write_text("not a video")
    return [
        clip(make(folder / "short.mp4", frames=10)),
        clip(make(folder / "middle.mp4", frames=50)),
        clip(long),
        clip(long, "stretch", start=1.0, end=3.0),
        clip(folder / "text.mp4"),
        clip(folder / "gone.mp4"),
    ]


def test_gives_back_what_was_decoded(cache: FrameCache, clips: list[Clip]) -> None:
    assert fill(cache, clips) == ["short", "middle", "long", "stretch", "text", "gone"]
    assert fill(cache, clips) == []
    reader = pickle.loads(pickle.dumps(cache.open(clips)))
    good = clips[3::-1]
    pixels, mask = reader.read([one.id for one in good])
    assert pixels.shape == (4, MAX_FRAMES, 3, SIZE, SIZE)
    assert mask.sum(axis=1).tolist() == [2, 4, 2, 1]
    for one, shown, real in zip(good, pixels, mask, strict=True):
        frames = cache.decode(one)
        assert isinstance(frames, Frames)
        np.testing.assert_array_equal(shown[real], frames.pixels)
        np.testing.assert_array_equal(reader.timestamps(one), frames.timestamps)
        assert not shown[~real].any()
    by_clip, _ = cache.open().read(good)
    np.testing.assert_array_equal(by_clip, pixels)


def test_failures_are_rows_and_are_not_tried_again(cache: FrameCache, clips: list[Clip]) -> None:
    fill(cache, clips)
    reader = cache.open(clips)
    assert set(reader.failures) == {"text", "gone"}
    assert reader.failures["gone"] == "no such file or directory"
    assert "gone" not in reader
    assert "long" in reader
    with pytest.raises(
        ValueError, match=r"clip 'text' has no frames: videos/text.mp4: not a video"
    ):
        reader.read(["text"])
    assert [one.id for one in cache.missing(clips, retry_failed=True)] == ["text", "gone"]
    make(Path(clips[5].path), frames=5)
    assert fill(cache, clips) == ["gone"]
    assert set(cache.open(clips).failures) == {"text"}


def test_says_what_is_not_there(cache: FrameCache, clips: list[Clip]) -> None:
    fill(cache, clips[:1])
    reader = cache.open()
    with pytest.raises(ValueError, match=r"has no clip 'other'; fill it"):
        reader.read(["short", "other"])
    with pytest.raises(ValueError, match=r"no frames of clip 'middle' as .*middle.mp4 is now"):
        reader.read(clips[:2])


def test_a_replaced_file_is_decoded_anew(cache: FrameCache, clips: list[Clip]) -> None:
    fill(cache, clips[:2])
    before, _ = cache.open().read(clips[:1])
    make(Path(clips[0].path), frames=10, width=64, height=96)
    with pytest.raises(ValueError, match=r"as .* is now"):
        cache.open().read(clips[:1])
    assert fill(cache, clips[:2]) == ["short"]
    after, _ = cache.open(clips[:2]).read(["short"])
    assert (before != after).any()


def test_a_moved_root_is_not(cache: FrameCache, clips: list[Clip], tmp_path: Path) -> None:
    fill(cache, clips[:3])
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    moved = [clip(tmp_path / "elsewhere" / "videos" / Path(one.path).name) for one in clips[:3]]
    assert cache.missing(moved) == []


def test_two_corpora_with_the_same_names_keep_apart(cache: FrameCache, tmp_path: Path) -> None:
    clips = []
    for width in (64, 96):
        folder = tmp_path / str(width) / "videos"
        folder.mkdir(parents=True)
        clips.append(clip(make(folder / "video0.mp4", width=width)))
    for one in clips:
        fill(cache, [one])
    assert cache.missing(clips) == []
    for one in clips:
        pixels, mask = cache.open([one]).read(["video0"])
        frames = cache.decode(one)
        assert isinstance(frames, Frames)
        np.testing.assert_array_equal(pixels[mask], frames.pixels)
    with pytest.raises(ValueError, match="knows 2 clips by the id 'video0'"):
        cache.open().read(["video0"])


def test_each_way_of_sampling_has_its_folder() -> None:
    base = {"max_frames": 12, "size": 224}
    settings = [
        base,
        base | {"max_frames": 64},
        base | {"size": 288},
        base | {"fps": 2.0},
        base | {"sampler": "middle"},
        base | {"sampler": "random"},
        base | {"sampler": "random", "seed": 1},
        base | {"frame_format": "jpeg"},
        base | {"resize": "squash"},
        base | {"kernel": "bilinear"},
    ]
    folders = [FrameCache("root", **one).folder for one in settings]
    assert len(set(folders)) == len(folders)
    assert folders[0].startswith("root/12x224-1fps-uniform-raw-")
    # Where the decoder never looks, the same frames have one home.
    assert FrameCache("root", **base, seed=1).folder == folders[0]
    assert FrameCache("root", **base, mirror="/copies").folder == folders[0]


@pytest.mark.parametrize("frame_format", ["raw", "jpeg"])
def test_damage_is_noticed_named_and_repaired(
    frame_format: str, tmp_path: Path, clips: list[Clip]
) -> None:
    cache = FrameCache(
        str(tmp_path / "cache"), max_frames=MAX_FRAMES, size=SIZE, frame_format=frame_format
    )
    fill(cache, clips[:3])
    blob = next(Path(cache.folder).glob("*.frames"))
    data = bytearray(blob.read_bytes())
    data[3] ^= 1
    blob.write_bytes(data)
    assert cache.missing(clips[:3]) == []
    reader = cache.open(clips[:3])
    reader.read(["middle", "long"])
    with pytest.raises(FrameCacheError, match=rf"shard {blob.stem} .* clip 'short' .* checksum"):
        reader.read(["long", "short"])
    assert fill(cache, clips[:3]) == ["short"]
    cache.open(clips[:3]).read(["short", "middle", "long"])


def test_verifying_finds_damage_before_training_does(cache: FrameCache, clips: list[Clip]) -> None:
    fill(cache, clips[:3])
    blob = next(Path(cache.folder).glob("*.frames"))
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert [one.id for one in cache.missing(clips[:3], verify=True)] == ["long"]


def test_a_blob_that_is_gone_or_cut_counts_as_missing(cache: FrameCache, clips: list[Clip]) -> None:
    fill(cache, clips[:2])
    reader = cache.open(clips[:2])
    blob = next(Path(cache.folder).glob("*.frames"))
    blob.write_bytes(blob.read_bytes()[:-1])
    assert [one.id for one in cache.missing(clips[:2])] == ["short", "middle"]
    with pytest.raises(FrameCacheError, match=r"clip 'middle' are damaged \(.* ends after"):
        reader.read(["middle"])
    blob.unlink()
    assert fill(cache, clips[:2]) == ["short", "middle"]


@pytest.mark.parametrize("part", [2**22, 1])  # at once; in several threads
def test_reads_into_a_buffer_that_was_used_before(
    cache: FrameCache, clips: list[Clip], part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, clips[:3])
    monkeypatch.setattr("tcmgc.frames.reader._PART", part)
    reader = cache.open()
    out = np.full((5, MAX_FRAMES, 3, SIZE, SIZE), 255, dtype=np.uint8)
    pixels, mask = reader.read(clips[:3], out)
    assert np.shares_memory(pixels, out)
    each = [reader.read([one])[0][0] for one in clips[:3]]
    np.testing.assert_array_equal(pixels, each)
    assert (out[3:] == 255).all()
    assert not pixels[~mask].any()
    with pytest.raises(ValueError, match="expected uint8, at least"):
        reader.read(clips[:3], out[:2])


def test_jpeg_is_near_and_small(tmp_path: Path) -> None:
    from video_clips import real_clip

    one = clip(real_clip("bikes.mp4"))
    raw, jpeg = (
        FrameCache(str(tmp_path), max_frames=4, size=224, frame_format=kind)
        for kind in ("raw", "jpeg")
    )
    sizes, pixels = [], []
    for cache in (raw, jpeg):
        fill(cache, [one])
        sizes.append(next(Path(cache.folder).glob("*.frames")).stat().st_size)
        pixels.append(cache.open().read([one])[0].astype(int))
    assert sizes[0] == 4 * 3 * 224 * 224
    assert sizes[1] < sizes[0] / 4
    assert 0 < np.abs(pixels[0] - pixels[1]).mean() < 1.5


def test_refuses_frames_of_another_shape(cache: FrameCache, clips: list[Clip]) -> None:
    frames = Frames(np.zeros((2, 3, 8, 8), np.uint8), np.zeros(2))
    with pytest.raises(ValueError, match=r"'short' has frames of shape \(2, 3, 8, 8\)"):
        cache.write([(clips[0], frames)])
    assert not list(Path(cache.folder).iterdir())


def test_anyone_can_read_the_index(cache: FrameCache, clips: list[Clip]) -> None:
    fill(cache, clips)
    rows = pq.read_table(next(Path(cache.folder).glob("*.parquet"))).to_pylist()
    assert [row["id"] for row in rows] == [one.id for one in clips]
    assert [row["status"] for row in rows] == ["frames"] * 4 + ["failed"] * 2
    assert rows[2]["file"] == "videos/long.mp4"


WRITER = """
import sys, time
import numpy as np
from tcmgc.datasets.rows import Clip
from tcmgc.frames.cache import FrameCache
from tcmgc.video import Frames

root, first, count, pause = sys.argv[1], *map(int, sys.argv[2:4]), float(sys.argv[4])
cache = FrameCache(root, max_frames=4, size=16)

def entries(shard):
    for number in range(first + shard * 5, first + shard * 5 + 5):
        time.sleep(pause)
        print(number, flush=True)
        pixels = np.full((2, 3, 16, 16), number % 256, np.uint8)
        yield Clip(id=str(number), path=f"{root}/{number}.mp4", captions=()), Frames(pixels, np.arange(2.0))

for shard in range(count):
    cache.write(entries(shard))
"""


def writer(cache: FrameCache, first: int, shards: int, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, cache.root, str(first), str(shards), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_writer_leaves_nothing_to_be_seen(cache: FrameCache) -> None:
    process = writer(cache, 0, 2, 0.05)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "7":
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    reader = cache.open()
    stored = [number for number in range(10) if str(number) in reader]
    assert stored == [0, 1, 2, 3, 4]
    reader.read([str(number) for number in stored])
    leftovers = list(Path(cache.folder).glob("*.partial"))
    assert leftovers
    assert cache.remove_leftovers() == 0  # it might still be at work
    for leftover in leftovers:
        os.utime(leftover, (time.time() - 7200,) * 2)
    cache.remove_leftovers()
    assert not list(Path(cache.folder).glob("*.partial"))


def test_two_writers_at_once(cache: FrameCache) -> None:
    processes = [writer(cache, first, 4, 0.002) for first in (0, 10)]  # 10 to 19 by both
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    reader = cache.open()
    pixels, mask = reader.read([str(number) for number in range(30)])
    assert mask.sum() == 60
    np.testing.assert_array_equal(pixels[:, 0, 0, 0, 0], np.arange(30))


def test_failures_keep_their_reason(cache: FrameCache, clips: list[Clip]) -> None:
    cache.write([(clips[0], DecodeError(clips[0].path, "the worker died"))])
    assert cache.open().failures == {"short": "the worker died"}
