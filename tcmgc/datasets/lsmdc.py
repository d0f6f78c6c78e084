"""LSMDC: clips of films, a sentence each.

``LSMDC16_annos_training.csv``, ``LSMDC16_annos_val.csv`` and
``LSMDC16_challenge_1000_publictect.csv``: tab-separated without a header, six columns (clip_id,
start_aligned, end_aligned, start_extracted, end_extracted, sentence). Videos are cut already, one
folder a film. A clip that has several lines has several captions.
"""

from collections.abc import Iterator

from tcmgc.datasets import build, parse
from tcmgc.datasets.files import DataFolder
from tcmgc.datasets.rows import AS_USUAL, Corpus, Reading

FILES = {
    "train": ("LSMDC16_annos_training.csv", None),
    "val": ("LSMDC16_annos_val.csv", 7408),
    "test": ("LSMDC16_challenge_1000_publictect.csv", 1000),
}
COLUMNS = 6


def lsmdc(root: str, how: Reading = AS_USUAL) -> Corpus:
    """Training as its file lists it, 7,408 validation and 1,000 test clips."""
    folder = DataFolder(root, ("annotations", "lsmdc_data"), how)
    videos = folder.videos("videos/all", "videos")
    splits = {
        name: build.split(_listed(*folder.read(file)), videos, count)
        for name, (file, count) in FILES.items()
    }
    return build.corpus(folder.label(), splits, videos)


def _listed(label: str, data: bytes) -> Iterator[build.Listed]:
    clips: dict[str, tuple[str, list[str], list[str]]] = {}
    for number, line in enumerate(parse.text_of(label, data).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{label} line {number}"
        fields = line.rstrip("\r").split("\t")
        if len(fields) != COLUMNS:
            raise ValueError(
                f"{where}: expected {COLUMNS} fields with tabs between; got {len(fields)}"
            )
        id, sentence = fields[0].strip(), fields[-1]
        _, sentences, places = clips.setdefault(id, (where, [], []))
        sentences.append(sentence)
        places.append(where)
    for id, (where, sentences, places) in clips.items():
        yield build.Listed(where, id, sentences, sources=places)
