"""Find the videos of a folder, with any names and links in it."""

import os
from dataclasses import dataclass, field

from pyarrow import fs

from tcmgc import storage
from tcmgc.datasets.files import VIDEO_SUFFIXES

SUFFIXES = VIDEO_SUFFIXES - {"."}


@dataclass
class Found:
    """The contents of a folder."""

    root: str
    """Prefix of the paths below it: the resolved path without links, or the URI."""
    stamps: dict[str, storage.FileStamp] = field(default_factory=dict)
    """Size and time of last change of every video file, by path."""
    links: int = 0
    """Symbolic links that were not followed."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Folders that could not be listed, with reasons."""


def scan(folder: str) -> Found:
    """All files below a folder with a video's suffix, except hidden ones.

    Links below the folder are not followed: their target may be outside, may be the folder
    itself, or is found anyway. If the folder itself is a link, its target is scanned.

    Raises:
        ValueError: no such folder, or a file.
    """
    if storage.is_uri(folder):
        return _remote(folder)
    root = os.path.realpath(storage.without_scheme(folder))
    if not os.path.isdir(root):
        kind = "is a file" if os.path.exists(root) else "is not there"
        raise ValueError(f"{folder} {kind}; give the folder that holds the videos")
    found = Found(root)
    todo = [root]
    while todo:
        path = todo.pop()
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            found.unreadable[path] = error.strerror or str(error)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                found.links += 1
            elif entry.is_dir():
                todo.append(entry.path)
            elif is_video(entry.name) and entry.is_file():
                try:
                    info = entry.stat()
                except OSError:
                    continue  # deleted since it was listed
                found.stamps[entry.path] = storage.FileStamp(info.st_size, info.st_mtime_ns)
    return found


def is_video(name: str) -> bool:
    """Whether a file's name has a video's suffix."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def below(path: str, folder: str) -> bool:
    """Whether a file is in a folder or below it; both absolute, or both URIs."""
    return path.startswith(folder.rstrip("/") + "/")


def _remote(folder: str) -> Found:
    system, top = storage.resolve(folder)
    info = system.get_file_info(top)
    listed = system.get_file_info(fs.FileSelector(top, allow_not_found=True, recursive=True))
    if info.type == fs.FileType.File or not listed:
        kind = "is a file" if info.type == fs.FileType.File else "is empty or not there"
        raise ValueError(f"{storage.plain(folder)} {kind}; give the folder that holds the videos")
    found = Found(folder)
    for one in listed:
        inside = one.path[len(top) :].strip("/")
        hidden = any(part.startswith(".") for part in inside.split("/"))
        if one.type == fs.FileType.File and is_video(one.base_name) and not hidden:
            path = storage.join(folder, *inside.split("/"))
            found.stamps[path] = storage.FileStamp(one.size, one.mtime_ns or 0)
    return found
