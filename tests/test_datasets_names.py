"""Names and tables as people have them: scripts, spellings, suffixes, encodings, links, archives."""

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tcmgc.datasets import NoCaptionsError, Reading, read
from tcmgc.datasets.files import DataFolder, stems
from tcmgc.datasets.rows import AS_USUAL


def row(
    video: Any, caption: Any = "a man walks", split: Any = "train", **more: Any
) -> dict[str, Any]:
    return {"video": video, "caption": caption, "split": split, **more}


LAST = row("z.mp4", "the last", "test")


def place(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"video")


def table(root: Path, *rows: dict[str, Any], ascii: bool = False) -> None:
    lines = (json.dumps(one, ensure_ascii=ascii) for one in (*rows, LAST))
    (root / "table.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    place(root, ["z.mp4"])


def files(root: Path, how: Reading = AS_USUAL) -> list[str]:
    return [
        str(Path(clip.path).relative_to(root))
        for clip in read("table", str(root), how)["train"].clips
    ]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\u00a0", "\u200b", "\x1c"])
def test_only_a_line_feed_ends_a_json_line(tmp_path: Path, mark: str) -> None:
    place(tmp_path, ["a.mp4"])
    table(tmp_path, row("a.mp4", f"one{mark}two"), ascii=mark == "\x1c")
    assert read("table", str(tmp_path))["train"].clips[0].captions == (f"one{mark}two",)
    (tmp_path / "table.jsonl").write_bytes(
        (tmp_path / "table.jsonl").read_bytes().replace(b"\n", b"\r\n")
    )
    assert read("table", str(tmp_path))["train"].clips[0].captions == (f"one{mark}two",)


@pytest.mark.parametrize(
    "name",
    [
        "\u52d5\u753b\u3000\u30c6\u30b9\u30c8.mp4",  # an ideographic space
        "\u0645\u06cc\u200c\u0631\u0648\u0645.mp4",  # a zero-width non-joiner
        "\U0001f468\u200d\U0001f469\u200d\U0001f467.mp4",
        "x\u00a0y.mp4",
        "a\u200fb.mp4",
        "a b (1) [x] #1 100%.mp4",
        "-o.mp4",
    ],
)
def test_names_of_every_script(tmp_path: Path, name: str) -> None:
    place(tmp_path, [name])
    table(tmp_path, row(name), row(name, id=f"x{name}"))
    assert files(tmp_path) == [name, name]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ab\x07c.mp4", r"'ab\\x07c\.mp4' has U\+0007 \(a control character\) at character 3"),
        ("a\u2028.mp4", r"has U\+2028 \(LINE SEPARATOR\) at character 2"),
        ("\udc80.mp4", r"has U\+DC80 \(half of a character\) at character 1"),
        (" ", r"video must be the path of a file; got ' '"),
    ],
)
def test_a_refused_character_is_named(tmp_path: Path, name: str, word: str) -> None:
    table(tmp_path, row(name), ascii=True)
    with pytest.raises(ValueError, match=word):
        files(tmp_path)
    table(tmp_path, row("z.mp4", id=name), ascii=True)
    with pytest.raises(ValueError, match=word.replace("video must be the path of a file", ".*id")):
        files(tmp_path)


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_letters_and_accents_together_or_apart(tmp_path: Path, stored: Any) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[stored]
    name = unicodedata.normalize(stored, "\u00e9t\u00e9/caf\u00e9.mp4")
    place(tmp_path, [name])
    table(tmp_path, *(row(unicodedata.normalize(other, text)) for text in (name, name[:-4])))
    assert files(tmp_path) == [name, name]


def test_suffixes_one_behind_the_other(tmp_path: Path) -> None:
    place(tmp_path, ["a.mov.mp4", "b.mp4.mkv", "c..mp4", "d.", "e.mp4", "e.mov.mp4", "f.v2.mp4"])
    table(tmp_path, *map(row, ["a.mov", "a", "b", "c.", "c", "d", "e", "f.v2"]))
    assert files(tmp_path) == [
        "a.mov.mp4", "a.mov.mp4", "b.mp4.mkv", "c..mp4", "c..mp4", "d.", "e.mp4", "f.v2.mp4",
    ]  # fmt: skip
    assert stems("x.3g2.MP4") == ["x.3g2", "x"]
    assert stems("x.v2") == []
    (tmp_path / "b.webm").write_bytes(b"video")
    assert "b.webm" in files(tmp_path)  # nearer to the name than b.mp4.mkv


def test_suffixes_of_real_lists(tmp_path: Path) -> None:
    names = [
        f"{n}@N_x{s}"
        for n, s in enumerate((".3g2", ".f4v", ".m2v", ".mpe", ".mxf", ".dv", ".rm", ".gif", "."))
    ]
    place(tmp_path / "videos", names[:-1])
    place(tmp_path / "videos", ["8@N_x.mov.mp4"])
    for split, mine in (("train", names[:6]), ("val", names[6:8]), ("test", names[8:])):
        moments = [{"video": name, "description": f"in {name}"} for name in mine]
        (tmp_path / f"{split}_list.txt").write_text("\n".join(mine))
        (tmp_path / f"{split}_data.json").write_text(json.dumps(moments))
    corpus = read("didemo", str(tmp_path))
    assert [len(split) for split in corpus.values()] == [6, 2, 1]
    assert not any(split.missing for split in corpus.values())
    assert corpus["test"].clips[0].captions == ("in 8@N_x.",)


def test_didemo_with_more_suffixes_in_the_list_than_in_the_data(tmp_path: Path) -> None:
    place(tmp_path / "videos", ["1@N_a.mov.mp4", "2@N_b.mp4", "3@N_c.avi"])
    for split, name, data in (
        ("train", "1@N_a.mov.mp4", "1@N_a.mov"),
        ("val", "2@N_b.mov.mp4", "2@N_b.mov"),
        ("test", "3@N_c.avi", "3@N_c.avi"),
    ):
        (tmp_path / f"{split}_list.txt").write_text(f"{name}\n")
        (tmp_path / f"{split}_data.json").write_text(
            json.dumps(
                [{"video": data, "description": "one"}, {"video": data, "description": "two"}]
            )
        )
    corpus = read("didemo", str(tmp_path))
    assert [split.clips[0].captions for split in corpus.values()] == [("one two",)] * 3


def test_a_zip_of_videos_is_pointed_out(tmp_path: Path) -> None:
    table(tmp_path, row("a.mp4"))
    (tmp_path / "z.mp4").rename(tmp_path / "MSRVTT.zip")
    with pytest.raises(
        ValueError, match=r"there is MSRVTT\.zip: unpack it into its folder videos/"
    ):
        files(tmp_path)


def test_a_download_cache_of_links(tmp_path: Path) -> None:
    blobs, root = tmp_path / "blobs", tmp_path / "snapshots/main"
    blobs.mkdir()
    root.mkdir(parents=True)
    table(root, row("a.mp4"))
    place(root, ["a.mp4"])
    for path in list(root.iterdir()):
        path.rename(blobs / path.name.replace(".", "-"))
        path.symlink_to(Path("../../blobs") / path.name.replace(".", "-"))
    with pytest.raises(ValueError, match=r"leads out .*; .* --data\.outside-links True"):
        files(root)
    assert files(root, Reading(outside_links=True)) == ["a.mp4"]


def test_columns_with_names_of_their_own(tmp_path: Path) -> None:
    place(tmp_path, ["a.mp4", "z.mp4"])
    mine = [
        {"Path": "a.mp4", "text": "hi", "video": 7, "set": "train"},
        {"Path": "z.mp4", "text": "so", "video": 8, "set": "test"},
    ]
    pq.write_table(pa.Table.from_pylist(mine), tmp_path / "table.parquet")
    how = Reading(columns="video=Path, caption = text,split=set")
    assert files(tmp_path, how) == ["a.mp4"]
    with pytest.raises(ValueError, match=r"no column 'caption'; it has: .*; data\.columns says"):
        files(tmp_path)
    with pytest.raises(ValueError, match=r"data\.columns must be pairs .*; got 'path'"):
        files(tmp_path, Reading(columns="path"))
    with pytest.raises(ValueError, match=r"data\.columns names the columns of data\.dataset table"):
        read("msvd", str(tmp_path), how)


def test_absolute_paths_where_they_are_allowed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    far = tmp_path_factory.mktemp("far")
    place(far, ["a.mp4"])
    table(tmp_path, row(f"{far}/a.mp4"), row(f"{far}/a", id="again"), row(f"{far}/none/b.mp4"))
    with pytest.raises(ValueError, match=r"--data\.absolute-paths True allows absolute ones"):
        read("table", str(tmp_path))
    split = read("table", str(tmp_path), Reading(absolute_paths=True))["train"]
    assert [clip.path for clip in split.clips] == [f"{far}/a.mp4"] * 2
    assert split.missing == (f"{far}/none/b.mp4",)
    table(tmp_path, row(f"{far}/../a.mp4"))
    with pytest.raises(ValueError, match="may lead out"):
        read("table", str(tmp_path), Reading(absolute_paths=True))


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_encodings(tmp_path: Path, encoding: str, suffix: str) -> None:
    place(tmp_path, ["a.mp4", "z.mp4"])
    rows = [row("a.mp4", "caf\u00e9 \u4e00"), LAST]
    if suffix == "jsonl":
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows)
    else:
        text = "".join(
            ",".join(line) + "\n" for line in [list(LAST), *(one.values() for one in rows)]
        )
    (tmp_path / f"table.{suffix}").write_bytes(text.encode(encoding))
    assert read("table", str(tmp_path))["train"].clips[0].captions == ("caf\u00e9 \u4e00",)


def test_videos_without_captions(tmp_path: Path) -> None:
    place(tmp_path, ["b/a.mp4", "x.3g2", "notes.txt", "n.mov.mp4"])
    corpus = read("folder", str(tmp_path), Reading(captions=False))
    assert [clip.id for clip in corpus["test"].clips] == ["b/a.mp4", "n.mov.mp4", "x.3g2"]
    assert all(clip.captions == () for clip in corpus["test"].clips)
    assert len(corpus["train"]) == 0
    with pytest.raises(NoCaptionsError, match="videos and no captions"):
        read("folder", str(tmp_path))
    (tmp_path / "table.csv").write_text("video\nb/a.mp4\nx.3g2\n")
    with pytest.raises(NoCaptionsError, match="no column 'caption'"):
        read("table", str(tmp_path))
    found = read("table", str(tmp_path), Reading(captions=False))
    assert sum(len(split) for split in found.values()) == 2
    empty = tmp_path / "empty"
    empty.mkdir()
    place(empty, ["clips.tar.gz"])
    with pytest.raises(ValueError, match=r"has no video; unpack clips\.tar\.gz"):
        read("folder", str(empty), Reading(captions=False))


@pytest.mark.parametrize(
    "columns",
    [
        {"video": [{"bytes": bytes(range(256)) * 400, "path": "a.mp4"}], "caption": ["x"]},
        {"video": ["a.mp4"], "caption": [["a man walks"] * 2000]},
        {"video": ["a.mp4"], "caption": [list(range(5000))]},
        {"video": [b"\n" * 5000], "caption": ["x"]},
        {"video": ["a.mp4"], "caption": ["x"], "id": ["/" * 100_000]},
        {"video": ["a.mp4"], "caption": ["x"], "start": ["\n" * 100_000]},
        {"video": ["a.mp4"], "caption": ["x"], "split": ["\n" * 100_000]},
        {f"column {n}\n": ["x"] for n in range(3000)},
    ],
)
def test_messages_are_a_line_whatever_a_cell_holds(tmp_path: Path, columns: dict[str, Any]) -> None:
    place(tmp_path, ["a.mp4"])
    pq.write_table(pa.table({"split": ["train"]} | columns), tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=r"^[^\n]{1,1900}$"):
        read("table", str(tmp_path))


@pytest.mark.parametrize("caption", ["", " ", None])
def test_an_empty_caption_counts_where_it_is_used(tmp_path: Path, caption: str | None) -> None:
    for name in "abc":
        place(tmp_path, [f"videos/{name}.mp4"])
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\na\nb\n")
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text("video_id,sentence\nc,a man\n")
    for id, used in (("c", False), ("of no list", False), ("b", True)):
        sentences = [{"video_id": n, "caption": n} for n in "abc"]
        sentences.append({"video_id": id, "caption": caption})  # type: ignore[dict-item]
        content = {"videos": [{"video_id": n} for n in "abc"], "sentences": sentences}
        (tmp_path / "MSRVTT_data.json").write_text(json.dumps(content))
        if used:
            with pytest.raises(ValueError, match=r"MSRVTT_data\.json, sentences\[3\]"):
                read("msrvtt_9k", str(tmp_path))
        else:
            assert len(read("msrvtt_9k", str(tmp_path))["train"]) == 2


def test_a_folder_that_both_spellings_name_is_listed_once(tmp_path: Path) -> None:
    place(tmp_path, ["caf\u00e9/a.mp4"])
    videos = DataFolder(str(tmp_path)).listing([""])
    assert videos.find("a") == str(tmp_path / "caf\u00e9/a.mp4")
    table(tmp_path, row("caf\u00e9/a.mp4"), row("cafe\u0301/a.mp4", id="other"))
    assert files(tmp_path) == ["caf\u00e9/a.mp4"] * 2
