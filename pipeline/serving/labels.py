"""Thumbs on results, stored as tables for training.

``table.csv`` contains results marked as right, as a table of your own videos (:mod:`tcmgc.datasets.table`):
``python pipeline/train.py table --data.root INDEX.labels`` trains on it. ``rejected.csv`` contains
results marked as wrong, with the same columns; they are not training pairs, and no reader uses them.
The folder also has links to the indexed folders, with which the tables' paths begin.
"""

import csv
import fcntl
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tcmgc import storage

COLUMNS = ("video", "caption", "start", "end")
RIGHT, WRONG = "table.csv", "rejected.csv"


class Labels:
    """The tables in a local folder, created with the first label.

    Args:
        folder: the folder.
        roots: the indexed folders.
    """

    def __init__(self, folder: str, roots: tuple[str, ...]) -> None:
        self.folder = Path(folder)
        self.roots = [root for root in roots if not storage.is_uri(root)]

    def add(self, path: str, start: float, end: float, query: str, right: bool) -> None:
        """Record that a moment fits a query or does not; replaces their previous label.

        Raises:
            ValueError: a video that the tables cannot name: behind a URI, or with a name that is not UTF-8.
            OSError: the folder cannot be written.
        """
        row = {
            "video": self._named(path),
            "caption": " ".join(query.split()),
            "start": f"{start:g}",
            "end": f"{end:g}",
        }
        with self._locked():
            for name, mine in ((RIGHT, right), (WRONG, not right)):
                rows = [one for one in self._read(name) if one != row]
                self._write(name, [*rows, row] if mine else rows)

    def _named(self, path: str) -> str:
        for number, root in enumerate(self.roots):
            if path.startswith(root.rstrip("/") + "/"):
                name = f"videos{number}/{os.path.relpath(path, root)}"
                try:
                    name.encode()
                except UnicodeEncodeError:
                    raise ValueError(
                        f"{path!r} has a name that no table can hold: it is no UTF-8"
                    ) from None
                return name
        raise ValueError("labels are kept for videos in local folders; this one is not in one")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, root in enumerate(self.roots):
            link = self.folder / f"videos{number}"
            if not link.is_symlink():
                link.symlink_to(root)
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read(self, name: str) -> list[dict[str, str]]:
        path = self.folder / name
        if not path.is_file():
            return []
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def _write(self, name: str, rows: list[dict[str, str]]) -> None:
        sink = io.StringIO()
        table = csv.DictWriter(sink, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        aside = self.folder / f".{name}.{uuid.uuid4().hex}"
        aside.write_text(sink.getvalue(), encoding="utf-8")
        os.replace(aside, self.folder / name)
