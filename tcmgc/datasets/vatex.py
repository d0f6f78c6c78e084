"""VATEX, with ten English captions per video in training and in evaluation.

The official files are ``vatex_training_v1.0.json``, ``vatex_validation_v1.0.json`` and
``vatex_public_test_english_v1.1.json``: lists of ``{videoID, enCap: [10]}``. Retrieval papers use
the HGR split instead, given by ``{train,val,test}_list.txt`` (one id per line): val and test are the
two halves of the official *validation* set. Videos are found by their stem, the id
(``YouTubeID_000069_000079``), below ``videos/``.
"""

from collections.abc import Iterator

from tcmgc.datasets import build, parse
from tcmgc.datasets.files import DataFolder, same_name
from tcmgc.datasets.rows import AS_USUAL, Corpus, Reading

CAPTIONS = 10
HGR = {"train": 25_991, "val": 1500, "test": 1500}
OFFICIAL = {
    "train": ("vatex_training_v1.0.json", 25_991),
    "val": ("vatex_validation_v1.0.json", 3000),
    "test": ("vatex_public_test_english_v1.1.json", 6000),
}


def vatex(root: str, how: Reading = AS_USUAL) -> Corpus:
    """The HGR split: 25,991 / 1,500 / 1,500 videos.

    Captions come from ``ref_captions.json`` (``{video_id: [captions]}``), or, if that does not
    exist, from the official training and validation files.

    Raises:
        ValueError: also if the lists are missing, because the official files do not determine
            which half a validation video belongs to.
    """
    folder = _folder(root, how)
    if not folder.find("test_list.txt"):
        raise ValueError(
            f"{folder.label()} has no test_list.txt: the HGR split is known by its lists alone "
            "(train_list.txt, val_list.txt, test_list.txt). Put them there, or take the official "
            "splits with data.dataset vatex_official"
        )
    captions = _captions(folder)
    videos = folder.videos("videos/all", "videos")
    splits = {}
    for name, count in HGR.items():
        lines = parse.read_lines(*folder.read(f"{name}_list.txt"))
        listed = (build.Listed(where, id, captions.get(same_name(id), [])) for where, id in lines)
        splits[name] = build.split(listed, videos, count, count * CAPTIONS)
    return build.corpus(folder.label(), splits, videos)


def vatex_official(root: str, how: Reading = AS_USUAL) -> Corpus:
    """The official splits: 25,991 / 3,000 / 6,000 videos (public test)."""
    folder = _folder(root, how)
    videos = folder.videos("videos/all", "videos")
    splits = {
        name: build.split(_official(*folder.read(file)), videos, count, count * CAPTIONS)
        for name, (file, count) in OFFICIAL.items()
    }
    return build.corpus(folder.label(), splits, videos)


def _folder(root: str, how: Reading) -> DataFolder:
    return DataFolder(root, ("annotations", "vatex_data"), how)


def _captions(folder: DataFolder) -> dict[str, list[str]]:
    if folder.find("ref_captions.json"):
        return dict(build.by_id(*folder.read("ref_captions.json")))
    captions = {}
    for name in ("train", "val"):
        for item in _official(*folder.read(OFFICIAL[name][0])):
            captions[same_name(item.id)] = list(item.captions)
    return captions


def _official(label: str, data: bytes) -> Iterator[build.Listed]:
    content = parse.as_kind(label, parse.read_json(label, data), list, "a list")
    for number, video in enumerate(content):
        where = f"{label}, [{number}]"
        id = parse.field(where, video, "videoID", str, "text")
        yield build.Listed(where, id, parse.field(where, video, "enCap", list, "a list"))
