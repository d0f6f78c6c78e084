"""What is wrong in annotation files is named with its file and line or key, and never run."""

import builtins
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tcmgc.datasets import read

DATA, TRAIN, TEST = "MSRVTT_data.json", "MSRVTT_train.9k.csv", "MSRVTT_JSFUSION_test.csv"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = ["a", "b", "c"]
    (tmp_path / DATA).write_text(
        json.dumps(
            {
                "videos": [{"video_id": name} for name in names],
                "sentences": [{"video_id": name, "caption": f"{name} is"} for name in names],
            }
        )
    )
    (tmp_path / TRAIN).write_text("video_id\na\nb\n")
    (tmp_path / TEST).write_text("key,vid_key,video_id,sentence\nret0,msr0,c,c is\n")
    (tmp_path / "videos/all").mkdir(parents=True)
    for name in names:
        (tmp_path / "videos/all" / f"{name}.mp4").write_bytes(b"video")
    return tmp_path


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda data: data.replace(old.encode(), new.encode())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (DATA, lambda data: data[:-30], r"MSRVTT_data\.json line 1 column \d+: not JSON .*cut short"),
        (DATA, lambda data: b"", r"MSRVTT_data\.json line 1 column 1: not JSON"),
        (DATA, lambda data: b"[" * 100_000, r"MSRVTT_data\.json: nested too deeply"),
        (DATA, lambda data: b"[]", r"MSRVTT_data\.json: expected an object with 'videos'; got \[\]"),
        (DATA, replaced("sentences", "texts"), r"has no 'sentences'; it has: videos, texts"),
        (DATA, replaced('"a is"', "7"), r"sentences\[0\], 'caption': expected text; got 7"),
        (DATA, replaced('"a is"', "null"), r"sentences\[0\], 'caption': expected text; got None"),
        (DATA, replaced('"b is"', '" "'), r"sentences\[1\]: caption 1 of b is empty"),
        (DATA, replaced('{"video_id": "b"}', '{"video_id": "a"}'), r"videos\[1\]: the id 'a' .*twice"),
        (DATA, replaced('"caption": "a is"', '"video_id": "b"'), r"the key 'video_id' is there twice"),
        (DATA, lambda data: data.replace(b"b is", b"\xff"), r"json line 1: not UTF-8"),
        (TRAIN, replaced("video_id", "video"), r"9k\.csv has no column 'video_id'; it has: video"),
        (TRAIN, replaced("b", "a"), r"9k\.csv line 3 .*: the id 'a' is there twice, first in .* line 2"),
        (TRAIN, replaced("b", "z"), r"9k\.csv line 3 .*MSRVTT_data\.json.*: z has no caption"),
        (TRAIN, replaced("b", "../b"), r"9k\.csv line 3 .*the id '\.\./b' has a path separator"),
        (TRAIN, replaced("b", "/etc/b"), r"9k\.csv line 3 .*the id '/etc/b' has a path separator"),
        (TRAIN, replaced("b", ".."), r"9k\.csv line 3 .*the id '\.\.' has a path separator"),
        (TRAIN, replaced("b", "x\\b"), r"9k\.csv line 3 .*has a path separator"),
        (TRAIN, replaced("b", '""'), r"9k\.csv line 3 .*expected a video id"),
        (TRAIN, replaced("b", "c"), r"1 ids are in two splits.*'c' is in train and in test"),
        (TEST, replaced("c is", ""), r"test\.csv line 2: caption 1 of c is empty"),
        (TEST, replaced("sentence", "text"), r"test\.csv has no column 'sentence'"),
        (TEST, replaced("c is", "c is, well"), r"test\.csv line 2: expected 4 fields .*got 5"),
    ],
)  # fmt: skip
def test_one_fault(root: Path, name: str, change: Callable[[bytes], bytes], message: str) -> None:
    read("msrvtt_9k", str(root))
    (root / name).write_bytes(change((root / name).read_bytes()))
    with pytest.raises(ValueError, match=message):
        read("msrvtt_9k", str(root))


def test_a_file_that_is_not_there(root: Path) -> None:
    (root / TRAIN).unlink()
    with pytest.raises(ValueError, match=r"has no MSRVTT_train\.9k\.csv.*put the data set's file"):
        read("msrvtt_9k", str(root))
    with pytest.raises(ValueError, match="is a file; expected the folder"):
        read("msrvtt_9k", str(root / TEST))


def test_missing_videos_are_counted_and_none_at_all_is_an_error(root: Path) -> None:
    (root / "videos/all/b.mp4").unlink()
    (root / "videos/all/b.mp4").mkdir()
    (root / "videos/all/._b.mp4").write_bytes(b"what macOS leaves")
    corpus = read("msrvtt_9k", str(root))
    assert corpus["train"].missing == ("b",)
    assert [clip.id for clip in corpus["train"].clips] == ["a"]
    for name in "ac":
        (root / f"videos/all/{name}.mp4").unlink()
    with pytest.raises(
        ValueError, match=r"no video of the 3 .*\(looked for a, b, c\); put the files"
    ):
        read("msrvtt_9k", str(root))


def test_two_files_for_a_video(root: Path) -> None:
    (root / "videos/all/b.avi").write_bytes(b"video")
    with pytest.raises(
        ValueError, match=r"2 files for the video 'b': .*b\.avi, .*b\.mp4; leave one"
    ):
        read("msrvtt_9k", str(root))


def test_folders_may_be_links(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    disk = tmp_path_factory.mktemp("disk")
    (root / "videos/all").rename(disk / "all")
    (disk / "all/b.mp4").rename(disk / "all/stored")
    (disk / "all/b.mp4").symlink_to("stored")
    (root / "videos/all").symlink_to(disk / "all")
    (disk / "all/round").symlink_to(disk / "all")  # comes back to itself
    link = tmp_path_factory.mktemp("other") / "link"
    link.symlink_to(root)
    corpus = read("msrvtt_9k", str(link))
    assert [clip.path for clip in corpus["train"].clips] == [
        f"{link}/videos/all/{n}.mp4" for n in "ab"
    ]


def test_a_link_to_one_file_must_not_lead_out(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "b.mp4").write_bytes(b"video")
    (root / "videos/all/b.mp4").unlink()
    (root / "videos/all/b.mp4").symlink_to(outside / "b.mp4")
    with pytest.raises(ValueError, match=r"b\.mp4 is a link that leads out of the data root, to"):
        read("msrvtt_9k", str(root))
    (root / TRAIN).write_text("video_id\na\n")  # nothing asks for it now
    assert len(read("msrvtt_9k", str(root))["train"]) == 1
    (root / TRAIN).rename(outside / TRAIN)
    (root / TRAIN).symlink_to(outside / TRAIN)
    with pytest.raises(ValueError, match=r"9k\.csv is a link that leads out of the data root"):
        read("msrvtt_9k", str(root))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return builtins.exec, ("import os; os.environ['TCMGC_EVIL'] = '1'",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            pickle.dumps({"a": [Evil()]}),
            r"raw-captions\.pkl is not a pickle of plain .*builtins\.exec",
        ),
        (pickle.dumps({"a": {1, 2}, "b": range(3)}), r"not a pickle of plain .*range"),
        (pickle.dumps({"a": [["x"]]})[:-4], r"raw-captions\.pkl is not a pickle of plain"),
        (b"\x80\x04garbage", r"raw-captions\.pkl is not a pickle of plain"),
        (b"", r"raw-captions\.pkl is not a pickle of plain"),
        (pickle.dumps([1]), r"raw-captions\.pkl: expected a dictionary; got \[1\]"),
        (pickle.dumps({"a": "text"}), r"raw-captions\.pkl, 'a': expected a list; got 'text'"),
        (pickle.dumps({"a": [[b"x"]]}), r"raw-captions\.pkl, 'a', \[0\]: expected text; got b'x'"),
        (pickle.dumps({"a": [[]]}), r"train_list\.txt line 1: caption 1 of a is empty"),
        (pickle.dumps({5: [["x"]]}), r"raw-captions\.pkl, key: expected text; got 5"),
    ],
)
def test_a_pickle_is_never_run(tmp_path: Path, content: bytes, message: str) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}_list.txt").write_text("a\n")
    (tmp_path / "raw-captions.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read("msvd", str(tmp_path))
    assert "TCMGC_EVIL" not in os.environ


def test_lines_and_keys_of_the_other_formats(tmp_path: Path) -> None:
    (tmp_path / "LSMDC16_annos_training.csv").write_text("a\t0\t1\t0\t1\ttext\nb\t0\ttext\n")
    with pytest.raises(ValueError, match=r"training\.csv line 2: expected 6 fields .* got 3"):
        read("lsmdc", str(tmp_path))
    (tmp_path / "train.json").write_text('{"v_a": {"sentences": ["x", 3]}}')
    with pytest.raises(
        ValueError, match=r"train\.json, 'v_a', sentences\[1\]: expected text; got 3"
    ):
        read("activitynet", str(tmp_path))
    (tmp_path / "train.json").write_text('{"v_a": {"sentences": [" "]}}')
    with pytest.raises(ValueError, match=r"train\.json, 'v_a': v_a has no caption"):
        read("activitynet", str(tmp_path))
    (tmp_path / "vatex_training_v1.0.json").write_text('[{"videoID": "a"}]')
    with pytest.raises(ValueError, match=r"v1\.0\.json, \[0\]: has no 'enCap'; it has: videoID"):
        read("vatex_official", str(tmp_path))
    (tmp_path / "train_data.json").write_text('[{"video": "a.mov", "description": null}]')
    with pytest.raises(ValueError, match=r"train_data\.json, \[0\], 'description': expected text"):
        read("didemo", str(tmp_path))
