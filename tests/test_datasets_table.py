"""Users' own tables, in four formats."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tcmgc.datasets import Clip, read

ROWS: list[dict[str, Any]] = [
    {"video": "a/one.mp4", "caption": "first, of one", "start": None, "end": None, "split": "train", "id": "x"},
    {"video": "a/one.mp4", "caption": "second", "start": None, "end": None, "split": "train", "id": "x"},
    {"video": "two.bin", "caption": "a stretch", "start": 1.5, "end": 3.0, "split": "train", "id": None},
    {"video": "two.bin", "caption": "another", "start": 3.0, "end": None, "split": "train", "id": None},
    {"video": "a/three", "caption": "no suffix", "start": None, "end": None, "split": "test", "id": None},
    {"video": "a/gone.mp4", "caption": "gone", "start": None, "end": None, "split": "test", "id": None},
]  # fmt: skip


def write(folder: Path, suffix: str, rows: list[dict[str, Any]], name: str = "table") -> Path:
    path = folder / f"{name}{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        delimiter = {".csv": ",", ".tsv": "\t"}[suffix]
        lines = [list(rows[0]), *([row[key] for key in rows[0]] for row in rows)]
        quoted = [['""' if cell is None else f'"{cell}"' for cell in line] for line in lines]
        path.write_text("".join(delimiter.join(line) + "\n" for line in quoted))
    return path


def place(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("by", ["folder", "file", "uri"])
def test_every_format_gives_the_same_clips(tmp_path: Path, suffix: str, by: str) -> None:
    place(tmp_path, "a/one.mp4", "two.bin", "a/three.webm", "b/gone.mp4")
    path = write(tmp_path, suffix, ROWS)
    root = {"folder": str(tmp_path), "file": str(path), "uri": f"file://{path}"}[by]
    corpus = read("table", root)
    base = f"file://{tmp_path}" if by == "uri" else str(tmp_path)
    assert corpus["train"].clips == (
        Clip("x", f"{base}/a/one.mp4", ("first, of one", "second")),
        Clip("two.bin@1.5-3", f"{base}/two.bin", ("a stretch",), 1.5, 3.0),
        Clip("two.bin@3-", f"{base}/two.bin", ("another",), 3.0, None),
    )
    assert corpus["test"].clips == (Clip("a/three", f"{base}/a/three.webm", ("no suffix",)),)
    assert corpus["test"].missing == ("a/gone.mp4",)
    assert set(corpus) == {"train", "test"}


def test_without_a_split_column_a_hash_of_the_video_decides(tmp_path: Path) -> None:
    rows = [{"video": f"{n}.mp4", "caption": f"{n} {c}"} for n in range(300) for c in range(2)]
    place(tmp_path, *(row["video"] for row in rows))
    write(tmp_path, ".csv", rows)
    first = read("table", str(tmp_path))
    assert 20 <= len(first["test"]) <= 40
    assert 20 <= len(first["val"]) <= 40
    write(tmp_path, ".csv", rows[::-1][:500])
    second = read("table", str(tmp_path))
    kept = {clip.id for split in second.values() for clip in split.clips}
    for name in ("train", "val", "test"):
        before, after = ({clip.id for clip in c[name].clips} for c in (first, second))
        assert after == before & kept


def one(**changes: Any) -> list[dict[str, Any]]:
    return [{"video": "a.mp4", "caption": "text", "split": "train"} | changes]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (one(video="../a.mp4"), r"table\.jsonl line 1: the path '\.\./a\.mp4' may lead out"),
        (one(video="b/../../a.mp4"), r"line 1: the path .* may lead out"),
        (one(video="/etc/passwd"), r"line 1: the path .* may lead out"),
        (one(video="s3://b/a.mp4"), r"line 1: the path .* may lead out"),
        (one(video="b\\a.mp4"), r"line 1: the path .* may lead out"),
        (one(video="a\0.mp4"), r"line 1: video must be the path"),
        (one(video=7), r"line 1: video must be the path of a file; got 7"),
        (one(id="b/a"), r"line 1: the id 'b/a' has a path separator"),
        (one(id=["a"]), r"line 1: expected a video id"),
        (one(caption=" "), r"line 1: caption 1 of a\.mp4 is empty"),
        (one(caption=5), r"line 1: caption 1 of a\.mp4 is not text: 5"),
        (one(caption=None), r"line 1: caption 1 of a\.mp4 is not text: None"),
        (one(start=-1), r"line 1: start must be seconds, 0 or more; got -1"),
        (one(start="soon"), r"line 1: start must be seconds"),
        (one(start=True), r"line 1: start must be seconds"),
        (one(end=float("inf")), r"line 1: end must be seconds"),
        (one(start=2, end=2), r"line 1: end \(2\) must be above start \(2\)"),
        (one(split="dev"), r"line 1: split must be one of train, val, test; got 'dev'"),
        (one() + one(split=None), r"line 2: split must be one of train, val, test; got None"),
        (one() + one(split="test"), r"line 2: the id 'a\.mp4' is there twice, first in .* line 1"),
        (one(id="x") + one(id="x", video="b.mp4"), r"line 2: the id 'x' is there twice"),
        ([{"video": "a.mp4"}], r"line 1 has no column 'caption'; it has: video"),
        (one(split=None), r"too few videos to be split by a hash; add a column split"),
        (one(video="gone.mp4"), r"no video of the 1 that are listed was found below"),
    ],
)
def test_rows_that_are_wrong(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    place(tmp_path, "a.mp4", "b.mp4")
    write(tmp_path, ".jsonl", rows)
    with pytest.raises(ValueError, match=message):
        read("table", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("table.csv", "video,text\na,b\n", r"table\.csv has no column 'caption'; it has: video, t"),
        ("table.csv", "", r"table\.csv has no column 'video'; it has: none"),
        (
            "table.csv",
            "video,caption\na.mp4,one, two\n",
            r"line 2: expected 2 fields .*got 3; quote",
        ),
        ("table.csv", "video,caption\na.mp4\n", r"line 2: expected 2 fields .*got 1"),
        ("table.csv", 'video,caption\na.mp4,"half', r"table\.csv line 2: unexpected end of data"),
        ("table.csv", "video,caption,video\n", r"the header has a column twice"),
        ("table.csv", "video,caption\n", r"list no video"),
        ("table.jsonl", '{"video": "a.mp4", "cap', r"table\.jsonl line 1 column \d+: not JSON"),
        ("table.jsonl", '{"video": "a", "video": "b"}', r"line 1: the key 'video' is there twice"),
        ("table.jsonl", "[1]", r"line 1: expected an object; got \[1\]"),
        ("table.parquet", "PAR1 nothing PAR1", r"table\.parquet is not a Parquet file"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read("table", str(tmp_path))


def test_which_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no table; expected one of table"):
        read("table", str(tmp_path))
    place(tmp_path, "a.mp4")
    write(tmp_path, ".csv", one())
    write(tmp_path, ".tsv", one())
    with pytest.raises(ValueError, match=r"has table\.csv and table\.tsv; expected one"):
        read("table", str(tmp_path))
    assert len(read("table", str(tmp_path / "table.tsv"))["train"]) == 1
    write(tmp_path, ".csv", one(), name="mine")
    assert len(read("table", str(tmp_path / "mine.csv"))["train"]) == 1
    with pytest.raises(ValueError, match=r"has no yours\.csv"):
        read("table", str(tmp_path / "yours.csv"))
