"""MSVD, with about 41 captions per video in training and in evaluation.

``{train,val,test}_list.txt`` (one id per line) and ``raw-captions.pkl`` (``{id: [[token, …], …]}``)
or ``captions_msvd.json`` (``{id: [caption]}``), videos as ``id.avi`` below ``videos/``.
"""

from collections.abc import Iterator

from tcmgc.datasets import build, parse
from tcmgc.datasets.files import DataFolder, same_name
from tcmgc.datasets.rows import AS_USUAL, Corpus, Reading

COUNTS = {"train": (1200, 48_774), "val": (100, 4290), "test": (670, 27_763)}
PICKLE, JSON = "raw-captions.pkl", "captions_msvd.json"


def msvd(root: str, how: Reading = AS_USUAL) -> Corpus:
    """1,200 / 100 / 670 videos with 48,774 / 4,290 / 27,763 captions.

    The pickle is read without executing anything in it; only plain containers are accepted.
    """
    folder = DataFolder(root, ("annotations", "msvd_data"), how)
    label, data = folder.read(PICKLE, JSON)
    captions = dict(_tokens(label, data) if label.endswith(PICKLE) else build.by_id(label, data))
    videos = folder.videos("YouTubeClips", "videos/all", "videos")
    splits = {}
    for name, counts in COUNTS.items():
        lines = parse.read_lines(*folder.read(f"{name}_list.txt"))
        listed = (build.Listed(where, id, captions.get(same_name(id), [])) for where, id in lines)
        splits[name] = build.split(listed, videos, *counts)
    return build.corpus(folder.label(), splits, videos)


def _tokens(label: str, data: bytes) -> Iterator[tuple[str, list[str]]]:
    content = parse.as_kind(label, parse.read_pickle(label, data), dict, "a dictionary")
    for id, captions in content.items():
        where = f"{label}, {parse.short(id)}"
        parse.as_kind(f"{label}, key", id, str, "text")
        texts = []
        for number, tokens in enumerate(parse.as_kind(where, captions, (list, tuple), "a list")):
            place = f"{where}, [{number}]"
            for token in parse.as_kind(place, tokens, (list, tuple), "a list of tokens"):
                parse.as_kind(place, token, str, "text")
            texts.append(" ".join(tokens))
        yield same_name(id), texts
