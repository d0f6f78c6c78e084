"""Your own videos: one table, as CSV, TSV (both with a header), JSONL or Parquet.

| column | |
|---|---|
| video | path of the file below the table's folder, `/` between folders; the suffix may be left out |
| caption | text; several captions of a clip are several rows |
| start, end | seconds, optional: the stretch that the caption speaks of |
| split | train, val or test, optional |
| id | optional name of the clip: rows with the same id belong together |

Other columns are left alone. Without a column ``split``, a hash of ``video`` puts a tenth of the
videos into test and a tenth into val, whatever the rows' order and however the table grows.
Without an id, a clip is called after its video, with its seconds where it has any.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tcmgc import storage
from tcmgc.datasets import build, parse
from tcmgc.datasets.files import DataFolder, Videos
from tcmgc.datasets.rows import Clip, Corpus, Split

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
SPLITS = ("train", "val", "test")
Row = tuple[str, dict[str, Any]]


@dataclass
class _Entry:
    where: str
    video: str
    start: float
    end: float | None
    split: str
    captions: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[Any, ...]:
        return self.video, self.start, self.end, self.split


def table(root: str) -> Corpus:
    """The splits of a table: ``root`` is its file, or a folder with one ``table.*`` in it.

    Raises:
        ValueError: no table or several; a column that is not there; a row that is wrong, with
            its line.
    """
    folder, name = _locate(root)
    rows = list(_rows(*folder.read(name)))
    with_split = any(_given(row, "split") for _, row in rows)
    clips: dict[str, _Entry] = {}
    for where, row in rows:
        id, entry = _entry(where, row, with_split)
        known = clips.setdefault(id, entry)
        if known.key != entry.key:
            raise ValueError(
                f"{where}: the id {id!r} is there twice, first in {known.where} with another "
                "video, start, end or split"
            )
        known.captions += build.check_captions(where, id, [row.get("caption")])
    parents = sorted({entry.video.rpartition("/")[0] for entry in clips.values()})
    videos = folder.listing(parents, recursive=False, any_suffix=True)
    found = {entry.split for entry in clips.values()}
    if clips and not with_split and found != set(SPLITS):
        raise ValueError(
            f"{folder.label(name)} has no column split, and too few videos to be split by a hash; "
            "add a column split with train, val or test in each row"
        )
    names = [split for split in SPLITS if split in found or split != "val"]
    return build.corpus(folder.label(), {split: _split(clips, split, videos) for split in names})


def _split(clips: dict[str, _Entry], name: str, videos: Videos) -> Split:
    found, missing = [], []
    for id, entry in clips.items():
        if entry.split == name:
            path = videos.at(entry.video)
            if path is None:
                missing.append(id)
            else:
                found.append(Clip(id, path, tuple(entry.captions), entry.start, entry.end))
    return Split(tuple(found), tuple(missing))


def _locate(root: str) -> tuple[DataFolder, str]:
    base, mark, query = root.partition("?") if storage.is_uri(root) else (root, "", "")
    if base.endswith(SUFFIXES):
        parent, _, name = base.rpartition("/")
        return DataFolder(
            (parent or ("/" if base.startswith("/") else ".")) + mark + query, ()
        ), name
    folder = DataFolder(root, ())
    names = [f"table{suffix}" for suffix in SUFFIXES if folder.find(f"table{suffix}")]
    if len(names) != 1:
        raise ValueError(
            f"{folder.label()} has {' and '.join(names) or 'no table'}; expected one of "
            f"{', '.join('table' + suffix for suffix in SUFFIXES)}, or set data.root to the "
            "table's own path"
        )
    return folder, names[0]


def _rows(label: str, data: bytes) -> Iterator[Row]:
    needed = ["video", "caption"]
    if label.endswith(".parquet"):
        try:
            content = pq.read_table(pa.BufferReader(data))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{label} is not a Parquet file: {error}") from error
        parse.require(label, content.column_names, needed)
        for number, row in enumerate(content.select(_known(content.column_names)).to_pylist()):
            yield f"{label} row {number}", row
    elif label.endswith(".jsonl"):
        for where, row in parse.read_json_lines(label, data):
            parse.require(where, list(row), needed)
            yield where, row
    else:
        yield from parse.read_table(label, data, needed, "\t" if label.endswith(".tsv") else ",")


def _known(columns: list[str]) -> list[str]:
    return [name for name in ("video", "caption", "start", "end", "split", "id") if name in columns]


def _given(row: dict[str, Any], name: str) -> bool:
    return row.get(name) not in (None, "")


def _entry(where: str, row: dict[str, Any], with_split: bool) -> tuple[str, _Entry]:
    video = _video(where, row["video"])
    start, end = _seconds(where, row, "start"), _seconds(where, row, "end")
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"{where}: end ({end:g}) must be above start ({start or 0.0:g})")
    if not with_split:
        split = _split_of(video)
    elif row.get("split") in SPLITS:
        split = row["split"]
    else:
        raise ValueError(
            f"{where}: split must be one of {', '.join(SPLITS)}; got {row.get('split')!r}"
        )
    if _given(row, "id"):
        id = str(row["id"]) if isinstance(row["id"], int) else row["id"]
        build.check_id(where, id)
    else:
        span = (f"{start or 0.0:g}", "" if end is None else f"{end:g}")
        id = video if start is None and end is None else f"{video}@{'-'.join(span)}"
    return id, _Entry(where, video, start or 0.0, end, split)


def _video(where: str, video: Any) -> str:
    """The path below the table's folder, without empty parts and single dots."""
    if not isinstance(video, str) or not video.strip() or not video.isprintable():
        raise ValueError(f"{where}: video must be the path of a file; got {video!r}")
    parts = [part for part in video.split("/") if part not in ("", ".")]
    if video.startswith("/") or "\\" in video or "://" in video or ".." in parts:
        raise ValueError(
            f"{where}: the path {video!r} may lead out of the data root; expected one relative to "
            "the table's folder, with / between folders and without .."
        )
    return "/".join(parts)


def _seconds(where: str, row: dict[str, Any], name: str) -> float | None:
    if not _given(row, name):
        return None
    value = row[name]
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{where}: {name} must be seconds, 0 or more; got {value!r}")
    return seconds


def _split_of(video: str) -> str:
    tenth = int.from_bytes(hashlib.sha256(video.encode()).digest()[:8]) * 10 >> 64
    return {0: "test", 1: "val"}.get(tenth, "train")
