"""Your own videos: one table, as CSV, TSV (both with a header), JSONL or Parquet; or a folder only.

| column | |
|---|---|
| video | path of the file below the table's folder, `/` between folders; the suffix may be omitted |
| caption | text; several captions of a clip are several rows |
| start, end | seconds, optional: the section that the caption describes |
| split | train, val or test, optional |
| id | optional name of the clip: rows with the same id belong together |

Other columns are ignored; ``data.columns`` sets other names for these columns.
Without a column ``split``, a hash of ``video`` puts a tenth of the
videos into test and a tenth into val, independent of the order and number of rows.
Without an id, a clip is named after its video and its seconds, if it has any.
"""

import hashlib
import math
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tcmgc import storage
from tcmgc.datasets import build, parse
from tcmgc.datasets.files import DataFolder, Videos, same_name
from tcmgc.datasets.rows import AS_USUAL, Clip, Corpus, Reading, Split

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
SPLITS = ("train", "val", "test")
COLUMNS = ("video", "caption", "start", "end", "split", "id")
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


def table(root: str, how: Reading = AS_USUAL) -> Corpus:
    """The splits of a table: ``root`` is its file, or a folder with one ``table.*`` in it.

    Raises:
        ValueError: no table or several; a missing column; an invalid row, with its line.
    """
    columns = _columns(how.columns)
    folder, name = _locate(root, how)
    rows = list(_rows(*folder.read(name), columns, how.captions))
    with_split = any(_given(row, "split") for _, row in rows)
    clips: dict[str, _Entry] = {}
    for where, row in rows:
        id, entry = _entry(where, row, with_split, how.absolute_paths)
        known = clips.setdefault(id, entry)
        if known.key != entry.key:
            raise ValueError(
                f"{where}: the id {parse.short(id)} is there twice, first in {known.where} with "
                "another video, start, end or split"
            )
        if how.captions or _given(row, "caption"):
            known.captions += build.check_captions(where, id, [row.get("caption")])
    videos = _Places(folder, {entry.video for entry in clips.values()})
    found = {entry.split for entry in clips.values()}
    if clips and not with_split and found != set(SPLITS) and how.captions:
        raise ValueError(
            f"{folder.label(name)} has no column split, and too few videos to be split by a hash; "
            "add a column split with train, val or test in each row"
        )
    names = [split for split in SPLITS if split in found or split != "val"]
    return build.corpus(
        folder.label(), {split: _split(clips, split, videos) for split in names}, videos.below
    )


def folder(root: str, how: Reading = AS_USUAL) -> Corpus:
    """All videos below a folder, without captions, as a test split; ids are their paths.

    Raises:
        ValueError: the folder does not exist or has no videos, or captions are required.
    """
    place = DataFolder(root, (), how)
    videos = place.listing([""])
    clips = [Clip(name, path, ()) for name, path in videos.paths().items()]
    if not clips:
        packed = parse.listed(videos.archives, 3)
        raise ValueError(
            f"{place.label()} has no video; "
            + (f"unpack {packed}, or set data.root" if packed else "set data.root")
            + " to the folder that has them"
        )
    if how.captions:
        raise parse.NoCaptionsError(
            "data.dataset folder has videos and no captions, so nothing can be trained or evaluated "
            "on it; expected captions: write a table and read it with data.dataset table"
        )
    return {"train": Split(()), "test": Split(tuple(clips))}


class _Places:
    """Files named by a table: below its folder, or by absolute paths."""

    def __init__(self, folder: DataFolder, names: set[str]) -> None:
        parents = {name: _parent(name) for name in names}
        inside = {same_name(p): p for p in parents.values() if not _is_absolute(p)}
        self.below = folder.listing(sorted(inside.values()), recursive=False, any_suffix=True)
        self._others: dict[str, Videos] = {}
        for parent in {parent for parent in parents.values() if _is_absolute(parent)}:
            try:
                other = DataFolder(parent, (), folder.how)
            except ValueError:  # does not exist: its videos are missing
                continue
            self._others[parent] = other.listing([""], recursive=False, any_suffix=True)

    def at(self, video: str) -> str | None:
        """The file's path; None if there is none."""
        parent = _parent(video)
        if not _is_absolute(parent):
            return self.below.at(video)
        other = self._others.get(parent)
        return None if other is None else other.at(video.rpartition("/")[2])


def _split(clips: dict[str, _Entry], name: str, videos: _Places) -> Split:
    found, missing = [], []
    for id, entry in clips.items():
        if entry.split == name:
            path = videos.at(entry.video)
            if path is None:
                missing.append(id)
            else:
                found.append(Clip(id, path, tuple(entry.captions), entry.start, entry.end))
    return Split(tuple(found), tuple(missing))


def _locate(root: str, how: Reading) -> tuple[DataFolder, str]:
    base, mark, query = root.partition("?") if storage.is_uri(root) else (root, "", "")
    if base.endswith(SUFFIXES):
        parent, _, name = base.rpartition("/")
        parent = parent or ("/" if base.startswith("/") else ".")
        return DataFolder(parent + mark + query, (), how), name
    folder = DataFolder(root, (), how)
    names = [f"table{suffix}" for suffix in SUFFIXES if folder.find(f"table{suffix}")]
    if len(names) != 1:
        raise ValueError(
            f"{folder.label()} has {' and '.join(names) or 'no table'}; expected one of "
            f"{', '.join('table' + suffix for suffix in SUFFIXES)}, or set data.root to the "
            "table's own path"
        )
    return folder, names[0]


def _columns(given: str) -> dict[str, str]:
    """The columns' names by our names."""
    columns = {name: name for name in COLUMNS}
    for pair in filter(None, (part.strip() for part in given.split(","))):
        name, mark, theirs = (part.strip() for part in pair.partition("="))
        if name not in COLUMNS or not mark or not theirs:
            raise ValueError(
                f"data.columns must be pairs such as video=path,caption=text with "
                f"{', '.join(COLUMNS)} on the left; got {parse.short(pair)}"
            )
        columns[name] = theirs
    return columns


def _rows(label: str, data: bytes, columns: dict[str, str], captions: bool) -> Iterator[Row]:
    """Rows by our names of columns."""
    needed = [columns["video"], *([columns["caption"]] if captions else [])]
    hint = "; data.columns says which columns to take, as in video=path,caption=text"
    try:
        for where, row in _raw_rows(label, data, needed, list(columns.values()), hint):
            yield where, {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    except parse.NoColumnError as error:
        if error.column == columns["caption"]:
            raise parse.NoCaptionsError(str(error)) from error
        raise


def _raw_rows(
    label: str, data: bytes, needed: list[str], known: list[str], hint: str
) -> Iterator[Row]:
    if label.endswith(".parquet"):
        try:
            content = pq.read_table(pa.BufferReader(data))
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{label} is not a Parquet file: {parse.line(error)}") from error
        parse.require(label, content.column_names, needed, hint)
        kept = [name for name in content.column_names if name in known]
        for number, row in enumerate(content.select(kept).to_pylist()):
            yield f"{label} row {number}", row
    elif label.endswith(".jsonl"):
        for where, row in parse.read_json_lines(label, data):
            parse.require(where, list(row), needed, hint)
            yield where, row
    else:
        delimiter = "\t" if label.endswith(".tsv") else ","
        yield from parse.read_table(label, data, needed, delimiter, hint)


def _given(row: dict[str, Any], name: str) -> bool:
    return row.get(name) not in (None, "")


def _entry(where: str, row: dict[str, Any], with_split: bool, absolute: bool) -> tuple[str, _Entry]:
    video = _video(where, row["video"], absolute)
    start, end = _seconds(where, row, "start"), _seconds(where, row, "end")
    if end is not None and end <= (start or 0.0):
        raise ValueError(f"{where}: end ({end:g}) must be above start ({start or 0.0:g})")
    if not with_split:
        split = _split_of(video)
    elif isinstance(row.get("split"), str) and row["split"] in SPLITS:
        split = row["split"]
    else:
        raise ValueError(
            f"{where}: split must be one of {', '.join(SPLITS)}; got {parse.short(row.get('split'))}"
        )
    if _given(row, "id"):
        id = str(row["id"]) if isinstance(row["id"], int) else row["id"]
        build.check_id(where, id)
    else:
        span = (f"{start or 0.0:g}", "" if end is None else f"{end:g}")
        id = video if start is None and end is None else f"{video}@{'-'.join(span)}"
    return id, _Entry(where, video, start or 0.0, end, split)


def _video(where: str, video: Any, absolute: bool) -> str:
    """The path below the table's folder, without empty parts and single dots; or an absolute one."""
    build.check_name(where, video, "video must be the path of a file")
    parts = video.split("/")
    if absolute and _is_absolute(video) and ".." not in parts:
        return video if "://" in video else posixpath.normpath(video)
    if _is_absolute(video) or "\\" in video or ".." in parts:
        forbidden = _is_absolute(video) and not absolute
        allowed = "; --data.absolute-paths True allows absolute ones" if forbidden else ""
        raise ValueError(
            f"{where}: the path {parse.short(video)} may lead out of the data root; expected one "
            f"relative to the table's folder, with / between folders and without ..{allowed}"
        )
    return "/".join(part for part in parts if part not in ("", "."))


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or "://" in path


def _parent(path: str) -> str:
    parent = path.rpartition("/")[0]
    return "/" if path.startswith("/") and not parent else parent


def _seconds(where: str, row: dict[str, Any], name: str) -> float | None:
    if not _given(row, name):
        return None
    value = row[name]
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{where}: {name} must be seconds, 0 or more; got {parse.short(value)}")
    return seconds


def _split_of(video: str) -> str:
    tenth = int.from_bytes(hashlib.sha256(video.encode()).digest()[:8]) * 10 >> 64
    return {0: "test", 1: "val"}.get(tenth, "train")
