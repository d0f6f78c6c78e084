"""DiDeMo as paragraphs: all descriptions of a video, joined, against its first 30 seconds.

``{train,val,test}_list.txt`` (one file name per line), ``{train,val,test}_data.json`` (a list of
``{video, description, …}``, one per moment; times are not used), videos below ``videos/``.
"""

from collections import Counter
from collections.abc import Iterator

from tcmgc.datasets import build, parse
from tcmgc.datasets.files import DataFolder, same_name, stems
from tcmgc.datasets.rows import AS_USUAL, Corpus, Reading

SECONDS = 30.0
COUNTS = {"train": 8392, "val": 1065, "test": 1004}


def didemo(root: str, how: Reading = AS_USUAL) -> Corpus:
    """8,392 / 1,065 / 1,004 videos with one paragraph each; a clip ends at 30 s."""
    folder = DataFolder(root, ("annotations", "didemo_data"), how)
    videos = folder.videos("videos/all", "videos")
    splits = {}
    for name, count in COUNTS.items():
        moments = _moments(*folder.read(f"{name}_data.json"))
        listed = _listed(*folder.read(f"{name}_list.txt"), moments)
        splits[name] = build.split(listed, videos, count, count)
    return build.corpus(folder.label(), splits, videos)


Moments = dict[str, list[str]]
"""Descriptions in file order, by the stem of the video's name, and by its name without any suffix:
the lists may have more or fewer of them than the data."""


def _moments(label: str, data: bytes) -> Moments:
    content = parse.as_kind(label, parse.read_json(label, data), list, "a list")
    moments: Moments = {}
    for number, moment in enumerate(content):
        where = f"{label}, [{number}]"
        video = parse.field(where, moment, "video", str, "text")
        text = parse.field(where, moment, "description", str, "text")
        moments.setdefault(same_name(_stem(video)), []).append(text)
    bare = Counter(map(_bare, moments))
    return {_bare(id): texts for id, texts in moments.items() if bare[_bare(id)] == 1} | moments


def _listed(label: str, data: bytes, moments: Moments) -> Iterator[build.Listed]:
    for where, name in parse.read_lines(label, data):
        id = _stem(name)
        known = same_name(id)
        texts = moments.get(known) or moments.get(_bare(known), [])
        names = (name, id, _bare(name))
        yield build.Listed(where, id, build.paragraph(texts), names, SECONDS)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _bare(name: str) -> str:
    """The name without any video suffix."""
    return (stems(name) or [name])[-1]
