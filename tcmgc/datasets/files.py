"""A data set's folder, local or remote: its annotation files, and its videos by name.

What may be a link: the root, and any folder below it (``videos/all`` on another disk is common).
Putting a folder link there is the user's decision, and what lies behind it belongs to the data
set. A link to a single *file* has to end within the root or within one of the folders so listed;
one that leads elsewhere is refused when its file is asked for.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pyarrow import fs

from tcmgc import storage

VIDEO_SUFFIXES = frozenset(
    [
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".flv",
        ".m2ts",
        ".m4v",
        ".mkv",
        ".mov",
        ".mp4",
        ".mpeg",
        ".mpg",
        ".mts",
        ".ogv",
        ".ts",
        ".vob",
        ".webm",
        ".wmv",
        ".",
    ]
)
"""A bare dot at the end is how some of DiDeMo's names end."""


@dataclass(frozen=True)
class DataFolder:
    """The folder at ``root``, a local path or a URI.

    Raises:
        ValueError: it is not there, or is not a folder.
    """

    root: str
    subfolders: tuple[str, ...] = ("annotations",)
    """Where else than in the root itself annotation files may lie."""

    def __post_init__(self) -> None:
        kinds = {fs.FileType.NotFound: "is not there", fs.FileType.File: "is a file"}
        (kind,) = self._types([""])
        if kind in kinds:
            raise ValueError(
                f"the data root {self.label()} {kinds[kind]}; expected the folder that holds the "
                "annotation files and the videos: set data.root to it"
            )

    def label(self, name: str = "") -> str:
        """How messages call a file."""
        return storage.plain(self.path(name))

    def path(self, name: str = "") -> str:
        """The path or URI of a file below the root."""
        return storage.join(self.root, *name.split("/")) if name else self.root

    def find(self, *names: str) -> str | None:
        """The first of ``names`` that is there, in the root or a subfolder; names, not paths."""
        places = [
            f"{folder}/{name}".lstrip("/") for name in names for folder in ("", *self.subfolders)
        ]
        found = zip(places, self._types(places), strict=True)
        return next((place for place, kind in found if kind == fs.FileType.File), None)

    def read(self, *names: str) -> tuple[str, bytes]:
        """Label and content of the first of ``names`` that is there.

        Raises:
            ValueError: none is, or it is a link that leads out of the root.
        """
        name = self.find(*names)
        if name is None:
            raise ValueError(
                f"{self.label()} has no {' or '.join(names)}"
                f"{''.join(f', nor has its folder {one}/' for one in self.subfolders)}; put the data "
                "set's file there, or set data.root to the folder that has it"
            )
        if not storage.is_uri(self.root) and os.path.islink(self.path(name)):
            _refuse_outside(self.path(name), [self.root, os.path.dirname(self.path(name))])
        system, inner = storage.resolve(self.path(name))
        with system.open_input_stream(inner) as stream:
            return self.label(name), stream.read()

    def videos(self, *folders: str) -> "Videos":
        """All video files in the first of ``folders`` that is there, or else in the root.

        Everything below that folder counts, save hidden files. One listing a folder.
        """
        kinds = zip(folders, self._types(folders), strict=True) if folders else ()
        folder = next((name for name, kind in kinds if kind == fs.FileType.Directory), "")
        return self.listing([folder])

    def listing(
        self, folders: Sequence[str], recursive: bool = True, any_suffix: bool = False
    ) -> "Videos":
        """All video files in some folders below the root; with ``any_suffix``, all files."""
        videos = Videos(self.root, any_suffix, grounds=[self.root])
        for folder in folders:
            if storage.is_uri(self.root):
                videos.add_remote(folder, recursive)
            else:
                videos.add_local(folder, recursive)
        return videos

    def _types(self, names: Sequence[str]) -> list[fs.FileType]:
        places = [storage.resolve(self.path(name)) for name in names]
        try:
            infos = places[0][0].get_file_info([inner for _, inner in places])
        except OSError as error:
            raise ValueError(f"cannot reach the data root {self.label()}: {error}") from error
        return [info.type for info in infos]


@dataclass
class Videos:
    """Video files below a root, found by name or by stem."""

    root: str
    any_suffix: bool
    grounds: list[str]
    """Local folders within which links may end."""
    links: set[str] = field(default_factory=set)
    by_name: dict[str, list[str]] = field(default_factory=dict)
    by_stem: dict[str, list[str]] = field(default_factory=dict)

    def find(self, *names: str) -> str | None:
        """The path of the file called so, with or without its suffix; None where there is none.

        Raises:
            ValueError: two files have the name, or it is a link that leads out.
        """
        for name in names:
            if path := self._one(name, self.by_name.get(name) or self.by_stem.get(name, [])):
                return path
        return None

    def _one(self, name: str, places: Sequence[str]) -> str | None:
        paths = [storage.join(self.root, *place.split("/")) for place in places]
        if len(paths) > 1:
            raise ValueError(
                f"there are {len(paths)} files for the video {name!r}: "
                f"{', '.join(map(storage.plain, sorted(paths)))}; leave one of them"
            )
        if places and places[0] in self.links:
            _refuse_outside(paths[0], self.grounds)
        return paths[0] if paths else None

    def at(self, place: str) -> str | None:
        """The path of the file at this place below the root; the suffix may be left out.

        Raises:
            ValueError: as :meth:`find`.
        """
        folder, _, name = place.rpartition("/")
        exact = [found for found in self.by_name.get(name, ()) if found == place]
        stems = self.by_stem.get(name, ())
        return self._one(place, exact or [one for one in stems if one.rpartition("/")[0] == folder])

    def add_local(self, folder: str, recursive: bool) -> None:
        """List a folder of this machine; folders that link back to a parent are seen once."""
        top = os.path.join(self.root, folder) if folder else self.root
        if not os.path.isdir(top):
            return
        self.grounds.append(top)
        seen = set()
        todo = [(top, folder)]
        while todo:
            path, prefix = todo.pop()
            if (real := os.path.realpath(path)) in seen:
                continue
            seen.add(real)
            with os.scandir(path) as entries:
                for entry in entries:
                    place = f"{prefix}/{entry.name}".lstrip("/")
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        todo += [(entry.path, place)] if recursive else []
                        self.grounds += [entry.path] if entry.is_symlink() else []
                    elif entry.is_file() and self._add(place) and entry.is_symlink():
                        self.links.add(place)

    def add_remote(self, folder: str, recursive: bool) -> None:
        """List a folder behind a URI."""
        system, top = storage.resolve(storage.join(self.root, folder) if folder else self.root)
        selector = fs.FileSelector(top, allow_not_found=True, recursive=recursive)
        for info in system.get_file_info(selector):
            if info.type == fs.FileType.File and not info.base_name.startswith("."):
                self._add(f"{folder}/{info.path[len(top) :].strip('/')}".lstrip("/"))

    def _add(self, place: str) -> bool:
        name = place.rpartition("/")[2]
        stem, dot, suffix = name.rpartition(".")
        if not self.any_suffix and (not dot or f".{suffix.lower()}" not in VIDEO_SUFFIXES):
            return False
        self.by_name.setdefault(name, []).append(place)
        self.by_stem.setdefault(stem if dot else name, []).append(place)
        return True


def _refuse_outside(path: str, grounds: Sequence[str]) -> None:
    target = os.path.realpath(path)
    for ground in _reals(grounds):
        if os.path.commonpath([target, ground]) == ground:
            return
    raise ValueError(
        f"{path} is a link that leads out of the data root, to {target}; put the file there "
        "itself, or make its whole folder a link"
    )


def _reals(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        yield os.path.realpath(path)
