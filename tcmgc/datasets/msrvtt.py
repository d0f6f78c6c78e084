"""MSR-VTT, and the demo corpus in its layout.

``MSRVTT_data.json`` (10,000 videos, 200,000 captions), ``MSRVTT_train.9k.csv`` or
``MSRVTT_train.7k.csv`` (column ``video_id``), ``MSRVTT_JSFUSION_test.csv`` (columns
``key,vid_key,video_id,sentence``; the 1k-A test, one sentence per video), videos as ``videos/all/``
or anywhere below ``videos/``. Test videos' own captions in the JSON are not used.
"""

from collections.abc import Iterator
from typing import Any

from tcmgc.datasets import build, parse
from tcmgc.datasets.files import DataFolder, same_name
from tcmgc.datasets.rows import AS_USUAL, Corpus, Reading

DATA, TEST = "MSRVTT_data.json", "MSRVTT_JSFUSION_test.csv"
FOLDERS = ("videos/all", "MSRVTT/videos/all", "videos")


def msrvtt_9k(root: str, how: Reading = AS_USUAL) -> Corpus:
    """Training-9K: 9,000 training videos with 180,000 captions, the 1k-A test."""
    return _read(root, how, "MSRVTT_train.9k.csv", train=(9000, 180_000), test=(1000, 1000))


def msrvtt_7k(root: str, how: Reading = AS_USUAL) -> Corpus:
    """Training-7K: 7,010 training videos with 140,200 captions, the 1k-A test."""
    return _read(root, how, "MSRVTT_train.7k.csv", train=(7010, 140_200), test=(1000, 1000))


def demo(root: str, how: Reading = AS_USUAL) -> Corpus:
    """The corpus of :mod:`tcmgc.datasets.demo_corpus`: the 9K files, with the counts of its creation."""
    made = parse.read_json(*DataFolder(root).read("demo.json"))
    videos, test, captions = (
        parse.field("demo.json", made, key, int, "a number")
        for key in ("videos", "test", "captions")
    )
    train = videos - test
    return _read(
        root, how, "MSRVTT_train.9k.csv", train=(train, train * captions), test=(test, test)
    )


def _read(
    root: str, how: Reading, train_csv: str, train: tuple[int, int], test: tuple[int, int]
) -> Corpus:
    folder = DataFolder(root, ("annotations", "msrvtt_data"), how)
    lists, tests = folder.read(train_csv), folder.read(TEST)
    captions = _captions(*folder.read(DATA))
    videos = folder.videos(*FOLDERS)
    return build.corpus(
        folder.label(),
        {
            "train": build.split(_train(*lists, captions), videos, *train),
            "test": build.split(_test(*tests), videos, *test),
        },
        videos,
    )


Captions = dict[str, tuple[list[Any], list[str]]]
"""Texts by video id, and the position of each; those of videos in no list are not checked."""


def _captions(label: str, data: bytes) -> Captions:
    content = parse.read_json(label, data)
    ids = set()
    for number, video in enumerate(parse.field(label, content, "videos", list, "a list")):
        where = f"{label}, videos[{number}]"
        id = parse.field(where, video, "video_id", str, "text")
        if id in ids:
            raise ValueError(f"{where}: the id {parse.short(id)} is there twice")
        ids.add(id)
    captions: Captions = {}
    for number, sentence in enumerate(parse.field(label, content, "sentences", list, "a list")):
        where = f"{label}, sentences[{number}]"
        id = parse.field(where, sentence, "video_id", str, "text")
        texts, places = captions.setdefault(same_name(id), ([], []))
        texts.append(parse.field(where, sentence, "caption", object, "text"))
        places.append(where)
    return captions


def _train(label: str, data: bytes, captions: Captions) -> Iterator[build.Listed]:
    for where, row in parse.read_table(label, data, ["video_id"]):
        id = row["video_id"].strip()
        texts, places = captions.get(same_name(id), ([], []))
        for place, text in zip(places, texts, strict=True):
            parse.as_kind(f"{place}, 'caption'", text, str, "text")
        yield build.Listed(f"{where} (captions from {DATA})", id, texts, sources=places)


def _test(label: str, data: bytes) -> Iterator[build.Listed]:
    for where, row in parse.read_table(label, data, ["video_id", "sentence"]):
        yield build.Listed(where, row["video_id"].strip(), [row["sentence"]])
