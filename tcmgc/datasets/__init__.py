"""Readers: convert a benchmark's own files, or your own table, to rows of one type.

All are pure: they read a folder (local, ``s3://``, ``gs://``) and return a :data:`Corpus`. Errors
in the data raise a :class:`ValueError` that names the file and the line or key; videos without a
file are listed in their split's ``missing``.
"""

from collections.abc import Callable

from tcmgc.datasets import parse
from tcmgc.datasets.activitynet import activitynet
from tcmgc.datasets.didemo import didemo
from tcmgc.datasets.lsmdc import lsmdc
from tcmgc.datasets.msrvtt import demo, msrvtt_7k, msrvtt_9k
from tcmgc.datasets.msvd import msvd
from tcmgc.datasets.parse import NoCaptionsError
from tcmgc.datasets.rows import AS_USUAL, Clip, Corpus, Reading, Split
from tcmgc.datasets.splits import (
    carve_validation,
    describe,
    describe_split,
    is_whole,
    sample,
    shuffled,
)
from tcmgc.datasets.table import folder, table
from tcmgc.datasets.vatex import vatex, vatex_official

__all__ = [
    "READERS",
    "Clip",
    "Corpus",
    "NoCaptionsError",
    "Reading",
    "Split",
    "carve_validation",
    "describe",
    "describe_split",
    "is_whole",
    "read",
    "sample",
    "shuffled",
]

READERS: dict[str, Callable[[str, Reading], Corpus]] = {
    reader.__name__: reader
    for reader in (
        demo,
        msrvtt_9k,
        msrvtt_7k,
        didemo,
        vatex,
        vatex_official,
        msvd,
        lsmdc,
        activitynet,
        table,
        folder,
    )
}
"""Readers by the name in ``data.dataset``."""


def read(name: str, root: str, how: Reading = AS_USUAL) -> Corpus:
    """The corpus ``name`` from its files below ``root``, a folder or a URI.

    Raises:
        ValueError: an unknown name; missing files, or files that do not follow their format.
    """
    if name not in READERS:
        raise ValueError(f"there is no data set {name!r}; known are {', '.join(READERS)}")
    if how.columns and name != "table":
        raise ValueError(
            f"data.columns names the columns of data.dataset table; got {parse.short(how.columns)} "
            f"with data.dataset {name}, whose files have names of their own"
        )
    return READERS[name](root, how)
