"""ActivityNet Captions as paragraphs: all sentences of a video, joined, with the complete video.

``train.json`` and ``val_1.json``: ``{v_ID: {duration, timestamps, sentences}}``. Files are named
after the id, with ``v_`` or without.
"""

from collections.abc import Iterator

from tcmgc.datasets import build, parse
from tcmgc.datasets.files import DataFolder
from tcmgc.datasets.rows import AS_USUAL, Corpus, Reading

FILES = {"train": ("train.json", 10_009), "test": ("val_1.json", 4917)}


def activitynet(root: str, how: Reading = AS_USUAL) -> Corpus:
    """10,009 training and 4,917 test videos (val_1 is the test) with one paragraph each."""
    folder = DataFolder(root, ("annotations", "captions"), how)
    videos = folder.videos("videos/all", "videos")
    splits = {
        name: build.split(_listed(*folder.read(file)), videos, count, count)
        for name, (file, count) in FILES.items()
    }
    return build.corpus(folder.label(), splits, videos)


def _listed(label: str, data: bytes) -> Iterator[build.Listed]:
    content = parse.as_kind(label, parse.read_json(label, data), dict, "an object")
    for id, video in content.items():
        where = f"{label}, {parse.short(id)}"
        sentences = parse.field(where, video, "sentences", list, "a list")
        for number, sentence in enumerate(sentences):
            parse.as_kind(f"{where}, sentences[{number}]", sentence, str, "text")
        yield build.Listed(where, id, build.paragraph(sentences), (id, id.removeprefix("v_")))
