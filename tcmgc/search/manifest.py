"""The manifest of an index: the only file that is ever replaced, which replaces the version.

| file | |
|---|---|
| ``index.json`` | the manifest: names every other file |
| ``model/`` | the model's checkpoint (:mod:`tcmgc.training.checkpoint`), without the optimiser |
| ``files-*.parquet`` | a row a video file (:mod:`tcmgc.search.files`) |
| ``segments/*.safetensors`` | windows (:mod:`tcmgc.search.segment`) |
| ``codes-*.faiss`` | compressed vectors that candidates are found by, in large indexes |
| ``broken.tsv`` | files that cannot be decoded, with reasons; for people, never read |

A file never changes once the manifest names it. A reader that has read one manifest sees one
version, unaffected by concurrent writes.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from tcmgc.config import IndexSettings as Settings
from tcmgc.search.place import Place

FORMAT = 1
"""Incremented whenever an index of the old format could no longer be read correctly."""
NAME = "index.json"


@dataclass(frozen=True)
class Part:
    """A file of this version."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """One version of an index."""

    model: dict[str, Any]
    """``hash`` of its weights and of all that decides features; ``name`` and ``head`` for display."""
    settings: Settings
    format: int = FORMAT
    version: int = 0
    files: Part | None = None
    segments: tuple[Part, ...] = ()
    codes: Part | None = None
    coded: tuple[str, ...] = ()
    """Segments whose vectors are in ``codes``, in the same order."""
    calibration: dict[str, Any] | None = None
    """See :mod:`tcmgc.search.calibration`."""
    retired: tuple[tuple[str, float], ...] = ()
    """Files of earlier versions, kept for readers that just opened one, and since when (Unix time)."""
    roots: tuple[str, ...] = field(default=())
    """Folders that were indexed, for display."""

    def save(self, place: Place) -> None:
        """Make this the index's current version.

        Raises:
            OSError: it cannot be written; the previous version stays.
        """
        place.write(NAME, (json.dumps(dataclasses.asdict(self), indent=1) + "\n").encode())


def load(place: Place) -> Manifest:
    """The index's current version.

    Raises:
        ValueError: there is no index, its manifest is damaged, or it has another format.
    """
    content = place.read(NAME)
    if content is None:
        raise ValueError(
            f"{place} is no index: there is no {NAME} in it; `python pipeline/index.py FOLDER --out {place}` makes one"
        )
    try:
        values = json.loads(content)
        found = values["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{place}/{NAME} is damaged ({error}); index the videos again into another folder"
        ) from error
    if found != FORMAT:
        raise ValueError(
            f"{place} has format version {found}, this program reads {FORMAT}; "
            "index the videos again into another folder, or use the version that made it"
        )
    try:
        return _from_dict(values)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{place}/{NAME} is damaged ({error}); index the videos again into another folder"
        ) from error


def _from_dict(values: dict[str, Any]) -> Manifest:
    part = lambda given: None if given is None else Part(**given)  # noqa: E731
    return Manifest(
        **{
            **values,
            "settings": Settings(**values["settings"]),
            "files": part(values["files"]),
            "segments": tuple(Part(**given) for given in values["segments"]),
            "codes": part(values["codes"]),
            "coded": tuple(values["coded"]),
            "retired": tuple((name, since) for name, since in values["retired"]),
            "roots": tuple(values["roots"]),
        }
    )
