"""Each benchmark's own files, small, as their users have them."""

import csv
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tcmgc.datasets import READERS, Corpus, demo_corpus, describe, read


def touch(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")


def dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def ids(corpus: Corpus) -> dict[str, list[str]]:
    return {name: [clip.id for clip in split.clips] for name, split in corpus.items()}


def msrvtt(root: Path, train: str = "9k") -> Path:
    names = [f"video{index}" for index in range(5)]
    dump(
        root / "MSRVTT_data.json",
        {
            "videos": [{"video_id": name, "url": "https://x", "category": 1} for name in names],
            "sentences": [
                {"video_id": name, "caption": f"{name} said {way}", "sen_id": 0}
                for way in ("one way", "another way")
                for name in names
            ],
        },
    )
    (root / f"MSRVTT_train.{train}.csv").write_text("video_id\nvideo0\nvideo1\nvideo2\n")
    with (root / "MSRVTT_JSFUSION_test.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["key", "vid_key", "video_id", "sentence"],
                ["ret0", "msr3", "video3", 'a man says "hello, you"'],
                ["ret1", "msr4", "video4", " a cat "],
            ]
        )
    touch(root / "videos" / "all", [f"{name}.mp4" for name in names])
    return root


@pytest.mark.parametrize("kind", ["9k", "7k"])
def test_msrvtt(tmp_path: Path, kind: str) -> None:
    corpus = read(f"msrvtt_{kind}", str(msrvtt(tmp_path, kind)))
    assert ids(corpus) == {"train": ["video0", "video1", "video2"], "test": ["video3", "video4"]}
    clip = corpus["train"].clips[1]
    assert clip.captions == ("video1 said one way", "video1 said another way")
    assert (clip.path, clip.start, clip.end) == (str(tmp_path / "videos/all/video1.mp4"), 0, None)
    assert [c.captions for c in corpus["test"].clips] == [('a man says "hello, you"',), ("a cat",)]
    assert corpus["train"].expected_videos == {"9k": 9000, "7k": 7010}[kind]
    assert corpus["train"].expected_captions == {"9k": 180_000, "7k": 140_200}[kind]
    assert corpus["test"].expected_videos == 1000


def test_msrvtt_with_carriage_returns_a_byte_order_mark_and_annotations_apart(
    tmp_path: Path,
) -> None:
    msrvtt(tmp_path)
    (tmp_path / "msrvtt_data").mkdir()
    for path in [*tmp_path.glob("*.csv"), tmp_path / "MSRVTT_data.json"]:
        text = path.read_text().replace("\n", "\r\n")
        path.unlink()
        (tmp_path / "msrvtt_data" / path.name).write_bytes(text.encode("utf-8-sig"))
    assert len(read("msrvtt_9k", str(tmp_path))["train"]) == 3


def test_the_demo_corpus_meets_its_own_counts(tmp_path: Path) -> None:
    root = demo_corpus.make(tmp_path / "demo", videos=6, test=2)
    assert describe(read("demo", str(root))).splitlines() == [
        "train: 4 of 4 videos, 20 of 20 captions, as published",
        "test: 2 of 2 videos, 2 of 2 captions, as published",
    ]


def test_didemo_paragraphs_of_the_first_thirty_seconds(tmp_path: Path) -> None:
    names = {"train": ["1@N02_a.avi.mov", "1@N02_b."], "val": ["2_c.3gp"], "test": ["3_d.m4v"]}
    for split, files in names.items():
        (tmp_path / f"{split}_list.txt").write_text("\n".join(files) + "\n\n")
        moments = [
            {"video": name, "description": text, "times": [[0, 0]], "annotation_id": 1}
            for text in ("first this. ", "then that", "")
            for name in files
        ]
        dump(tmp_path / f"{split}_data.json", moments)
    # As released; re-encoded with another suffix; a suffix put behind the whole name.
    touch(tmp_path / "videos", ["1@N02_a.avi.mov", "1@N02_b.mp4", "2_c.3gp.mp4", "3_d.m4v"])
    corpus = read("didemo", str(tmp_path))
    assert ids(corpus) == {"train": ["1@N02_a.avi", "1@N02_b"], "val": ["2_c"], "test": ["3_d"]}
    for split in corpus.values():
        for clip in split.clips:
            assert (clip.captions, clip.start, clip.end) == (("first this. then that",), 0, 30)
    assert [corpus[name].expected_videos for name in corpus] == [8392, 1065, 1004]


def vatex_official(root: Path) -> None:
    for split, name, number in (
        ("training", "tr", 3),
        ("validation", "va", 4),
        ("public_test_english", "pt", 1),
    ):
        version = "v1.1" if split.startswith("public") else "v1.0"
        videos = [
            {
                "videoID": f"-{name}{n}_000069_000079",
                "enCap": [f"{name} {n} {c}" for c in range(10)],
                "chCap": ["一"],
            }
            for n in range(number)
        ]
        dump(root / f"vatex_{split}_{version}.json", videos)
        touch(root / "videos" / split, [f"{video['videoID']}.webm" for video in videos])


def vatex_lists(root: Path) -> None:
    for split, names in (("train", ("tr0", "tr2")), ("val", ("va3", "va0")), ("test", ("va1",))):
        (root / f"{split}_list.txt").write_text("".join(f"-{n}_000069_000079\n" for n in names))


def test_vatex_official(tmp_path: Path) -> None:
    vatex_official(tmp_path)
    corpus = read("vatex_official", str(tmp_path))
    assert {name: len(split) for name, split in corpus.items()} == {"train": 3, "val": 4, "test": 1}
    assert corpus["test"].clips[0].captions == tuple(f"pt 0 {c}" for c in range(10))
    assert [s.expected_videos for s in corpus.values()] == [25_991, 3000, 6000]


@pytest.mark.parametrize("layout", ["retrieval", "official"])
def test_vatex_hgr_split_takes_test_from_the_official_validation(
    tmp_path: Path, layout: str
) -> None:
    vatex_official(tmp_path)
    vatex_lists(tmp_path)
    if layout == "retrieval":
        captions = {}
        for path in tmp_path.glob("vatex_*.json"):
            captions |= {video["videoID"]: video["enCap"] for video in json.loads(path.read_text())}
            path.unlink()
        dump(tmp_path / "ref_captions.json", captions)
    corpus = read("vatex", str(tmp_path))
    assert ids(corpus) == {
        "train": ["-tr0_000069_000079", "-tr2_000069_000079"],
        "val": ["-va3_000069_000079", "-va0_000069_000079"],
        "test": ["-va1_000069_000079"],
    }
    assert corpus["test"].clips[0].captions == tuple(f"va 1 {c}" for c in range(10))
    assert [s.expected_captions for s in corpus.values()] == [259_910, 15_000, 15_000]


def test_vatex_hgr_split_needs_its_lists(tmp_path: Path) -> None:
    vatex_official(tmp_path)
    with pytest.raises(ValueError, match=r"no test_list\.txt.*data\.dataset vatex_official"):
        read("vatex", str(tmp_path))


@pytest.mark.parametrize("protocol", [0, 2, 5, "json"])
def test_msvd(tmp_path: Path, protocol: int | str) -> None:
    for split, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        (tmp_path / f"{split}_list.txt").write_text("".join(f"id_{n}\n" for n in names))
    captions = {f"id_{n}": [["a", "man", n], ["he", "walks"]] for n in "abcd"}
    if isinstance(protocol, int):
        (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps(captions, protocol))
    else:
        dump(
            tmp_path / "captions_msvd.json",
            {k: [" ".join(t) for t in v] for k, v in captions.items()},
        )
    touch(tmp_path / "YouTubeClips", [f"id_{n}.avi" for n in "abcd"])
    corpus = read("msvd", str(tmp_path))
    assert ids(corpus) == {"train": ["id_a", "id_b"], "val": ["id_c"], "test": ["id_d"]}
    assert corpus["train"].clips[1].captions == ("a man b", "he walks")
    assert [s.expected_captions for s in corpus.values()] == [48_774, 4290, 27_763]


def test_lsmdc_films_in_folders_and_several_sentences_a_clip(tmp_path: Path) -> None:
    def line(id: str, text: str) -> str:
        return f"{id}\t00:00:51.926\t00:00:54.129\t0\t1\t{text}\n"

    first, second = (f"0001_Film_00.00.51.926-00.00.5{n}.129" for n in "45")
    (tmp_path / "LSMDC16_annos_training.csv").write_text(
        line(first, 'SOMEONE says "so, it is') + line(second, "He goes.") + line(first, "Again.")
    )
    (tmp_path / "LSMDC16_annos_val.csv").write_text(line("0002_B_1", "val"))
    (tmp_path / "LSMDC16_challenge_1000_publictect.csv").write_text(line("0003_C_1", "test"))
    files = [f"0001_Film/{first}.avi", f"0001_Film/{second}.avi", "0002_B/0002_B_1.avi"]
    touch(tmp_path, [*files, "0003_C/0003_C_1.avi"])
    corpus = read("lsmdc", str(tmp_path))
    assert ids(corpus) == {"train": [first, second], "val": ["0002_B_1"], "test": ["0003_C_1"]}
    assert corpus["train"].clips[0].captions == ('SOMEONE says "so, it is', "Again.")
    assert corpus["train"].clips[0].path == str(tmp_path / files[0])
    assert [s.expected_videos for s in corpus.values()] == [None, 7408, 1000]


def test_activitynet_paragraphs_and_both_ways_to_call_a_file(tmp_path: Path) -> None:
    entry = {
        "duration": 9.5,
        "timestamps": [[0, 1], [1, 2]],
        "sentences": [" A man.", " He runs. "],
    }
    dump(tmp_path / "train.json", {"v_abc": entry, "v_v_d": entry})
    dump(tmp_path / "val_1.json", {"v_xyz": entry})
    touch(tmp_path / "videos", ["v_abc.mp4", "v_d.mkv", "xyz.mp4"])
    corpus = read("activitynet", str(tmp_path))
    assert ids(corpus) == {"train": ["v_abc", "v_v_d"], "test": ["v_xyz"]}
    assert corpus["test"].clips[0].captions == ("A man. He runs.",)
    assert [s.expected_videos for s in corpus.values()] == [10_009, 4917]


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"no data set 'mrvtt'; known are .*msrvtt_9k.*table"):
        read("mrvtt", ".")


@pytest.mark.parametrize("name", READERS)
def test_a_root_that_is_not_there_and_one_that_is_empty(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"nowhere is not there.*set data\.root to it"):
        read(name, str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=rf"{tmp_path} has no .*data\.root|test_list"):
        read(name, str(tmp_path))
