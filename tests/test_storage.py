"""Local paths and URIs; the decoder and the cache in buckets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_clips import make

from tcmgc import storage
from tcmgc.datasets.rows import Clip
from tcmgc.frames.cache import FrameCache
from tcmgc.frames.reader import FrameCacheError
from tcmgc.video import DecodeError, sample_frames


def test_joins_names_in_front_of_the_query() -> None:
    assert storage.join("/data", "a", "b.mp4") == "/data/a/b.mp4"
    assert storage.join("s3://bucket/data/", "a", "b.mp4") == "s3://bucket/data/a/b.mp4"
    assert storage.join("s3://b/data?region=x", "a.mp4") == "s3://b/data/a.mp4?region=x"


def test_hides_credentials() -> None:
    assert storage.plain("s3://key:secret@bucket/a.mp4?region=x") == "s3://bucket/a.mp4"
    assert storage.plain("/data/a?b.mp4") == "/data/a?b.mp4"


def test_stamps(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"abc")
    found = storage.stamps([str(file), f"file://{file}", str(tmp_path), str(tmp_path / "no")])
    stamp = found[str(file)]
    assert stamp is not None
    assert (stamp.size, stamp.modified) == (3, file.stat().st_mtime_ns)
    assert found[f"file://{file}"] == stamp
    assert found[str(tmp_path)] is found[str(tmp_path / "no")] is None


def check_folders(root: str) -> None:
    system, inner = storage.resolve(root)
    for name in ("file", "a/one", "a/two", "a/deep/three", "b/four"):
        with system.open_output_stream(f"{inner}/{name}") as stream:
            stream.write(b"x")
    assert storage.folders(root) == {"a": {"one", "two", "deep"}, "b": {"four"}}
    system.create_dir(f"{inner}/empty")
    assert storage.folders(root)["empty"] == set()
    for name in ("a", "empty", "not there"):
        storage.remove_folder(storage.join(root, name))
    assert storage.folders(root) == {"b": {"four"}}
    assert storage.folders(storage.join(root, "none")) == {}


def test_folders_on_disk(tmp_path: Path) -> None:
    for name in ("a/deep", "b"):
        (tmp_path / name).mkdir(parents=True)
    check_folders(str(tmp_path))


def test_folders_in_a_bucket(bucket: str) -> None:
    check_folders(storage.join(bucket, "folders"))


def test_names_a_scheme_that_is_not_known() -> None:
    with pytest.raises(
        ValueError, match=r"cannot reach ftp://host/a.*expected a local path, s3://"
    ):
        storage.resolve("ftp://host/a")


def upload(path: Path, uri: str) -> None:
    system, inner = storage.resolve(uri)
    with system.open_output_stream(inner) as stream:
        stream.write(path.read_bytes())


@pytest.fixture
def remote(bucket: str, tmp_path: Path) -> Iterator[Any]:
    path = make(tmp_path / "a.mp4", frames=60, keyframes=10)
    uri = storage.join(bucket, "videos", "a.mp4")
    upload(path, uri)
    return path, uri


def test_decodes_from_a_bucket(remote: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    path, uri = remote
    local = sample_frames(path, size=32)
    np.testing.assert_array_equal(sample_frames(uri, size=32).pixels, local.pixels)
    monkeypatch.setattr("tcmgc.video.file.HELD_BYTES", 100)  # as a large file: read piece by piece
    monkeypatch.setattr("tcmgc.video.timeline.HELD_BYTES", 100)
    np.testing.assert_array_equal(sample_frames(uri, size=32).pixels, local.pixels)


def test_errors_do_not_show_credentials(bucket: str) -> None:
    with pytest.raises(DecodeError) as caught:
        sample_frames(storage.join(bucket, "videos", "none.mp4"))
    assert str(caught.value) == f"{bucket[:2]}://bucket/root/videos/none.mp4: no such file"


def test_a_cache_in_a_bucket(remote: tuple[Path, str], bucket: str, tmp_path: Path) -> None:
    path, uri = remote
    mirror = tmp_path / "mirror"
    cache = FrameCache(storage.join(bucket, "cache"), max_frames=4, size=16, mirror=str(mirror))
    clips = [
        Clip(id="whole", path=uri, captions=()),
        Clip(id="stretch", path=uri, captions=(), start=1.0),
        Clip(id="none", path=storage.join(bucket, "none.mp4"), captions=()),
    ]
    assert cache.missing(clips) == clips
    for one in clips:
        cache.write([(one, cache.decode(one))])
    assert cache.missing(clips) == []
    reader = cache.open(clips)
    assert reader.failures == {"none": "no such file"}
    pixels, mask = reader.read(["whole", "stretch"])
    np.testing.assert_array_equal(pixels[0, :3], sample_frames(path, size=16).pixels)
    assert mask.sum(axis=1).tolist() == [3, 2]

    copies = sorted(mirror.rglob("*.frames"))
    assert len(copies) == 2
    copies[0].write_bytes(b"damaged copy")
    np.testing.assert_array_equal(cache.open(clips).read(["whole", "stretch"])[0], pixels)

    system, inner = storage.resolve(cache.folder)
    with system.open_output_stream(f"{inner}/{copies[0].name}") as stream:
        stream.write(bytes(copies[0].stat().st_size))
    copies[0].unlink()
    with pytest.raises(FrameCacheError, match="clip 'whole' are damaged"):
        cache.open(clips).read(["whole"])
    assert [one.id for one in cache.missing(clips)] == ["whole"]


def test_a_replaced_object_is_decoded_anew(
    remote: tuple[Path, str], bucket: str, tmp_path: Path
) -> None:
    _, uri = remote
    cache = FrameCache(storage.join(bucket, "again"), max_frames=4, size=16)
    one = Clip(id="a", path=uri, captions=())
    cache.write([(one, cache.decode(one))])
    assert cache.missing([one]) == []
    upload(make(tmp_path / "b.mp4", frames=30), uri)
    assert cache.missing([one]) == [one]
