"""DiDeMo as paragraphs: all descriptions of a video, joined, against its first 30 seconds.

``{train,val,test}_list.txt`` (a file name a line), ``{train,val,test}_data.json`` (a list of
``{video, description, …}``, one a moment; their times play no part), videos below ``videos/``.
"""

from collections.abc import Iterator

from tcmgc.datasets import build, parse
from tcmgc.datasets.files import DataFolder
from tcmgc.datasets.rows import Corpus

SECONDS = 30.0
COUNTS = {"train": 8392, "val": 1065, "test": 1004}


def didemo(root: str) -> Corpus:
    """8,392 / 1,065 / 1,004 videos with one paragraph each; a clip ends at 30 s."""
    folder = DataFolder(root, subfolders=("annotations", "didemo_data"))
    videos = folder.videos("videos/all", "videos")
    splits = {}
    for name, count in COUNTS.items():
        moments = _moments(*folder.read(f"{name}_data.json"))
        listed = _listed(*folder.read(f"{name}_list.txt"), moments)
        splits[name] = build.split(listed, videos, count, count)
    return build.corpus(folder.label(), splits)


def _moments(label: str, data: bytes) -> dict[str, list[str]]:
    """Descriptions in file order, by the stem of the video's name."""
    content = parse.as_kind(label, parse.read_json(label, data), list, "a list")
    moments: dict[str, list[str]] = {}
    for number, moment in enumerate(content):
        where = f"{label}, [{number}]"
        video = parse.field(where, moment, "video", str, "text")
        text = parse.field(where, moment, "description", str, "text")
        moments.setdefault(_stem(video), []).append(text)
    return moments


def _listed(label: str, data: bytes, moments: dict[str, list[str]]) -> Iterator[build.Listed]:
    for where, name in parse.read_lines(label, data):
        id = _stem(name)
        yield build.Listed(where, id, build.paragraph(moments.get(id, [])), (name, id), SECONDS)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name
