import dataclasses
from pathlib import Path

import pytest

from tcmgc.datasets import Clip, Split, demo_corpus, read
from tcmgc.datasets.inspection import (
    FileReport,
    SplitReport,
    by_file,
    format_report,
    inspect_file,
    leaks,
    problems,
    report,
    verdict,
)
from tcmgc.video import DecodeError, Frames, VideoInfo, sample_frames

INFO = VideoInfo(
    container="mov",
    codec="h264",
    width=320,
    height=240,
    frames=50,
    duration=10.0,
    frame_rate=5.0,
    size=2048,
)


def clip(name: str, path: str = "") -> Clip:
    return Clip(name, path or f"/{name}.mp4", (f"{name} is",))


def seen(name: str, digest: str = "", **errors: str) -> FileReport:
    return FileReport(f"/{name}.mp4", digest or name, None if errors else INFO, errors)


def test_a_file_is_hashed_probed_and_decoded(tmp_path: Path) -> None:
    root = demo_corpus.make(tmp_path / "demo", videos=3, test=1)
    path = str(root / "videos/all/video0.mp4")
    clips = [Clip("whole", path, ("x",)), Clip("late", path, ("x",), start=100.0)]

    def decode(one: Clip, timeout: float) -> Frames | DecodeError:
        try:
            return sample_frames(one.path, size=32, start=one.start, timeout=timeout)
        except DecodeError as error:
            return error

    got = inspect_file(path, clips, 10.0, decode)
    assert got.info is not None
    assert (got.info.codec, got.info.width, got.info.height) == ("h264", 96, 72)
    assert list(got.errors) == ["late"]
    assert "begins at 100 s" in got.errors["late"]
    assert inspect_file(path, clips, 10.0).errors == {}
    assert got.digest == inspect_file(path, clips, 10.0).digest != ""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    bad = inspect_file(str(broken), clips, 10.0)
    assert set(bad.errors) == {"whole", "late"}
    assert (bad.info, bad.digest) == (None, "")


def test_the_files_of_all_splits_once_each() -> None:
    corpus = {"train": Split((clip("a"), clip("b", "/a.mp4"))), "test": Split((clip("c"),))}
    assert {path: [c.id for c in clips] for path, clips in by_file(corpus).items()} == {
        "/a.mp4": ["a", "b"],
        "/c.mp4": ["c"],
    }


def test_counts_reasons_and_the_verdict() -> None:
    corpus = {
        "train": Split((clip("a"), clip("b"), clip("c")), ("d",), expected_videos=6),
        "test": Split((clip("e"),), expected_videos=1, expected_captions=1),
    }
    files = [seen("a"), seen("b", b="cut short"), seen("c"), seen("e")]
    positions = {f"{name} is": count for name, count in zip("abce", (5, 9, 33, 32), strict=True)}
    reports = report(corpus, files, positions)
    assert dict(reports["train"].unreadable) == {"b": "cut short"}
    assert (reports["train"].lacking, reports["test"].lacking) == (4, 0)
    assert verdict(reports, []) == [
        "train lacks 4 videos (1 missing, 1 unreadable, 2 not listed); --allow-missing 4 accepts that"
    ]
    assert len(verdict(reports, [], allow_missing=3)) == 1
    assert verdict(reports, [], allow_missing=4) == []
    assert problems(reports, []) == [
        ("train", "d", "missing", "no such file"),
        ("train", "b", "unreadable", "cut short"),
    ]
    page = format_report("train", reports["train"], 32)
    assert "train: 3 of 6 videos, 3 captions; 1 missing: d" in page
    assert "b: cut short" in page
    assert "durations   10 to 10 s" in page
    assert "sizes       2 KiB to 2 KiB, median 2 KiB, 4 KiB in all" in page
    assert "pictures    320x240 2" in page
    assert "codecs      h264 (mov) 2" in page
    assert "5 to 33 positions, median 9; 1 of 3 (33.3%) are cut at data.max_words 32" in page
    assert "0 of 1 (0.0%) are cut" in format_report("test", reports["test"], 32)


def test_leaks_by_file_and_by_content_and_none_within_a_split() -> None:
    corpus = {
        "train": Split((clip("a"), clip("b"), clip("twin"))),
        "val": Split((clip("v"),)),
        "test": Split((clip("t", "/a.mp4"), clip("u"), clip("bad1"), clip("fine"))),
    }
    files = [
        seen("a"),
        seen("b", "same"),
        seen("twin", "same"),
        seen("v"),
        seen("u", "same"),
        FileReport("/bad1.mp4", errors={"bad1": "empty"}),
        seen("fine"),
    ]
    found = leaks(corpus, files)
    assert list(map(str, found)) == [
        "test t has the same file as train a",
        "test u has the same content as train b",
    ]
    assert verdict({}, found) == ["2 videos are in two splits; --allow-leaks 2 accepts that"]
    assert verdict({}, found, allow_leaks=2) == []
    assert problems({}, found)[1] == ("test", "u", "leak", str(found[1]))


def test_a_copy_is_found_on_disk(tmp_path: Path) -> None:
    root = demo_corpus.make(tmp_path / "demo", videos=6, test=2)
    (root / "videos/all/video5.mp4").write_bytes((root / "videos/all/video1.mp4").read_bytes())
    corpus = read("demo", str(root))
    files = [inspect_file(path, clips, 10.0) for path, clips in by_file(corpus).items()]
    (leak,) = leaks(corpus, files)
    assert (leak.id, leak.other_id, leak.identical) == ("video5", "video1", "content")


@pytest.mark.parametrize("count", [4, 10])
def test_long_lists_of_errors_are_cut(count: int) -> None:
    names = [f"v{n}" for n in range(count)]
    corpus = {"test": Split(tuple(map(clip, names)))}
    reports = report(corpus, [seen(n, **{n: "bad"}) for n in names], {f"{n} is": 3 for n in names})
    assert f"… and {count - 3} more" in format_report("test", reports["test"], 32)


def test_files_that_begin_late_are_named() -> None:
    late = dataclasses.replace(INFO, lost_start=0.4)
    split = Split((clip("a"), clip("b")))
    one = SplitReport(split, (FileReport("/a.mp4", "a", late), seen("b")), {}, [])
    said = format_report("train", one, 8)
    assert "begin late  1: " in said
    assert "(/a.mp4 by 0.40 s)" in said
