"""A data set's folder, local or remote: its annotation files, and its videos by name.

The root and any folder below it may be links (``videos/all`` is often on another disk).
The user has placed these links, so their targets belong to the data
set. A link to a single *file* must end within the root or within one of these folders;
any other link is refused when its file is requested, unless ``Reading.outside_links`` is set.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pyarrow import fs

from tcmgc import storage
from tcmgc.datasets.rows import AS_USUAL, Reading

VIDEO_SUFFIXES = frozenset([
    ".", ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv",
    ".gif", ".h264", ".hevc", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg",
    ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts", ".mxf", ".nut", ".ogm", ".ogv",
    ".qt", ".rm", ".rmvb", ".tod", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
])  # fmt: skip
"""Some of DiDeMo's names end in a bare dot."""
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".tar.bz2", ".tar.xz", ".tar.zst")


def same_name(name: str) -> str:
    """The name in one Unicode normalisation: macOS stores accents separately (NFD), others do not."""
    return unicodedata.normalize("NFC", name)


def stems(name: str, any_suffix: bool = False) -> list[str]:
    """The name with one, two, ... suffixes removed, as long as they are video suffixes.

    ``any_suffix``: the last suffix may be any.
    """
    found: list[str] = []
    stem, dot, suffix = name.rpartition(".")
    while dot and stem and (f".{suffix.lower()}" in VIDEO_SUFFIXES or (any_suffix and not found)):
        found.append(stem)
        stem, dot, suffix = stem.rpartition(".")
    return found


@dataclass(frozen=True)
class DataFolder:
    """The folder at ``root``, a local path or a URI.

    Raises:
        ValueError: it does not exist, or is not a folder.
    """

    root: str
    subfolders: tuple[str, ...] = ("annotations",)
    """Subfolders in which annotation files may be, in addition to the root."""
    how: Reading = AS_USUAL

    def __post_init__(self) -> None:
        kinds = {fs.FileType.NotFound: "is not there", fs.FileType.File: "is a file"}
        (kind,) = self._types([""])
        if kind in kinds:
            raise ValueError(
                f"the data root {self.label()} {kinds[kind]}; expected the folder that holds the "
                "annotation files and the videos: set data.root to it"
            )

    def label(self, name: str = "") -> str:
        """A file's name in messages."""
        return storage.plain(self.path(name))

    def path(self, name: str = "") -> str:
        """The path or URI of a file below the root."""
        return storage.join(self.root, *name.split("/")) if name else self.root

    def find(self, *names: str) -> str | None:
        """The first of ``names`` that exists, in the root or a subfolder; names, not paths."""
        places = [
            f"{folder}/{name}".lstrip("/") for name in names for folder in ("", *self.subfolders)
        ]
        found = zip(places, self._types(places), strict=True)
        return next((place for place, kind in found if kind == fs.FileType.File), None)

    def read(self, *names: str) -> tuple[str, bytes]:
        """Label and content of the first of ``names`` that exists.

        Raises:
            ValueError: none exists, or it is a link that leads out of the root.
        """
        name = self.find(*names)
        if name is None:
            raise ValueError(
                f"{self.label()} has no {' or '.join(names)}"
                f"{''.join(f', nor has its folder {one}/' for one in self.subfolders)}; put the data "
                "set's file there, or set data.root to the folder that has it"
            )
        local = not storage.is_uri(self.root)
        if local and not self.how.outside_links and os.path.islink(self.path(name)):
            _refuse_outside(self.path(name), [self.root, os.path.dirname(self.path(name))])
        system, inner = storage.resolve(self.path(name))
        with system.open_input_stream(inner) as stream:
            return self.label(name), stream.read()

    def videos(self, *folders: str) -> "Videos":
        """All video files in the first of ``folders`` that exists, or else in the root.

        Includes everything below that folder except hidden files. One listing per folder.
        """
        kinds = zip(folders, self._types(folders), strict=True) if folders else ()
        folder = next((name for name, kind in kinds if kind == fs.FileType.Directory), "")
        return self.listing([folder])

    def listing(
        self, folders: Sequence[str], recursive: bool = True, any_suffix: bool = False
    ) -> "Videos":
        """All video files in some folders below the root; with ``any_suffix``, all files."""
        videos = Videos(self.root, any_suffix, self.how.outside_links, grounds=[self.root])
        if "" not in folders:
            videos.archives += self._archives()
        for folder in folders:
            if storage.is_uri(self.root):
                videos.add_remote(folder, recursive)
            else:
                videos.add_local(folder, recursive)
        return videos

    def _archives(self) -> list[str]:
        """Archives in the root itself."""
        system, top = storage.resolve(self.root)
        infos = system.get_file_info(fs.FileSelector(top, allow_not_found=True))
        return sorted(i.base_name for i in infos if i.base_name.lower().endswith(_ARCHIVES))

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
    outside_links: bool
    grounds: list[str]
    """Local folders within which links may end."""
    archives: list[str] = field(default_factory=list)
    """Archives in the folders searched for videos."""
    links: set[str] = field(default_factory=set)
    by_name: dict[str, list[str]] = field(default_factory=dict)
    """Relative paths by file name (:func:`same_name`)."""
    by_stem: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    """Relative paths by stem, with the number of removed suffixes."""

    def find(self, *names: str) -> str | None:
        """The path of the file of this name, with or without suffixes; None if there is none.

        Raises:
            ValueError: two files have the name, or it is a link that leads out.
        """
        for name in names:
            if path := self._one(name, self._places(name)):
                return path
        return None

    def at(self, place: str) -> str | None:
        """The path of the file at this relative path; suffixes may be omitted.

        Raises:
            ValueError: as :meth:`find`.
        """
        folder, _, name = place.rpartition("/")
        return self._one(place, self._places(name, same_name(folder)))

    def paths(self) -> dict[str, str]:
        """Every file's path by its path relative to the root, in order.

        Raises:
            ValueError: a link that leads out.
        """
        places = sorted(place for places in self.by_name.values() for place in places)
        return {place: path for place in places if (path := self._one(place, [place]))}

    def _places(self, name: str, folder: str | None = None) -> list[str]:
        """Relative paths of files with this name; only those with the fewest additional suffixes."""
        spelled = same_name(name)
        ranked = [(0, place) for place in self.by_name.get(spelled, ())]
        ranked += self.by_stem.get(spelled, ())
        if folder is not None:
            ranked = [(n, p) for n, p in ranked if same_name(p.rpartition("/")[0]) == folder]
        best = [place for rank, place in ranked if rank == min(ranked)[0]]
        return [place for place in best if place.rpartition("/")[2] == name] or best

    def _one(self, name: str, places: Sequence[str]) -> str | None:
        paths = [storage.join(self.root, *place.split("/")) for place in places]
        if len(paths) > 1:
            raise ValueError(
                f"there are {len(paths)} files for the video {name!r}: "
                f"{', '.join(map(storage.plain, sorted(paths)[:3]))}; leave one of them"
            )
        if places and places[0] in self.links and not self.outside_links:
            _refuse_outside(paths[0], self.grounds)
        return paths[0] if paths else None

    def add_local(self, folder: str, recursive: bool) -> None:
        """List a local folder; folders that link back to a parent are listed once."""
        folder = _as_stored(self.root, folder)
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
        name = same_name(place.rpartition("/")[2])
        if name.lower().endswith(_ARCHIVES):
            self.archives.append(place)
        found = stems(name, self.any_suffix)
        if not found and not self.any_suffix:
            return False
        self.by_name.setdefault(name, []).append(place)
        for rank, stem in enumerate(found, 1):
            self.by_stem.setdefault(stem, []).append((rank, place))
        return True


def _as_stored(root: str, folder: str) -> str:
    """The folder in the file system's spelling (:func:`same_name`); unchanged if it does not exist."""
    found = ""
    for part in filter(None, folder.split("/")):
        here = os.path.join(root, found)
        if not os.path.isdir(os.path.join(here, part)):
            names = os.listdir(here) if os.path.isdir(here) else []
            part = next((n for n in names if same_name(n) == same_name(part)), part)
        found = f"{found}/{part}".lstrip("/")
    return found


def _refuse_outside(path: str, grounds: Sequence[str]) -> None:
    target = os.path.realpath(path)
    for ground in _reals(grounds):
        if os.path.commonpath([target, ground]) == ground:
            return
    raise ValueError(
        f"{path} is a link that leads out of the data root, to {target}; put the file there "
        "itself, make its whole folder a link, or allow it with --data.outside-links True"
    )


def _reals(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        yield os.path.realpath(path)
