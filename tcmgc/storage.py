"""Local paths and URIs (``s3://``, ``gs://``, ``file://``) behind one interface.

A URI's query contains its file system's options and stays at the end when names are joined:
``s3://bucket/data?region=eu-central-1``, ``s3://bucket/data?endpoint_override=host:9000&scheme=http``.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyarrow import fs


@dataclass(frozen=True)
class FileStamp:
    """What distinguishes a file from one that replaces it under the same name."""

    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""


def is_uri(path: str) -> bool:
    """Whether pyarrow's file systems are needed to access it."""
    return "://" in path


def without_scheme(path: str) -> str:
    """A ``file://`` URI as a local path; anything else unchanged."""
    if not path.startswith("file://"):
        return path
    return "/" + unquote(path.removeprefix("file://")).lstrip("/")


def join(root: str, *names: str) -> str:
    """``root/name/...``; a URI's query stays at the end."""
    if not is_uri(root):
        return str(Path(root, *names))
    base, mark, query = root.partition("?")
    return "/".join([base.rstrip("/"), *names]) + mark + query


def plain(path: str) -> str:
    """The path without a URI's query and credentials, for messages and records."""
    if not is_uri(path):
        return path
    parts = urlsplit(path)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def has_password(path: str) -> bool:
    """Whether a bucket's URI contains a password (``s3://key:secret@bucket``), also one with a bare slash."""
    return ":" in path.partition("://")[2].partition("/")[0].partition("?")[0]


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI, and its path there.

    Raises:
        ValueError: a URI that pyarrow does not understand.
    """
    path = without_scheme(path)
    if not is_uri(path):
        return _local(), str(Path(path).absolute())
    base, mark, query = path.partition("?")
    scheme, _, rest = base.partition("://")
    authority, _, inner = rest.partition("/")
    system = _file_system(f"{scheme}://{authority}{mark}{query}", plain(path))
    bucket = authority.rpartition("@")[2]
    return system, f"{bucket}/{inner}".rstrip("/")


def stamp(path: str) -> FileStamp | None:
    """Size and time of last change; None if there is no such file.

    Raises:
        ValueError: a URI that pyarrow does not understand.
        OSError: the file system cannot be reached.
    """
    system, inner = resolve(path)
    return _stamp(system.get_file_info(inner))


def folders(path: str) -> dict[str, set[str]]:
    """Folders directly below a folder, with their direct contents; empty if it does not exist.

    They are derived from all files below: an object store has no folders, and Google's store does
    not list folders without a marker.

    Raises:
        ValueError: a URI that pyarrow does not understand.
        OSError: the file system cannot be reached.
    """
    system, top = resolve(path)
    found: dict[str, set[str]] = {}
    for info in system.get_file_info(fs.FileSelector(top, allow_not_found=True, recursive=True)):
        name, *below = info.path[len(top) :].strip("/").split("/")
        if below:
            found.setdefault(name, set()).add(below[0])
        elif info.type == fs.FileType.Directory:
            found.setdefault(name, set())
    return found


def download(path: str, to: Path) -> Path:
    """Copy one file to a local path, which is returned.

    Raises:
        ValueError: there is no such file, or a URI that pyarrow does not understand.
        OSError: the file system cannot be reached.
    """
    system, inner = resolve(path)
    if system.get_file_info(inner).type != fs.FileType.File:
        raise ValueError(f"there is no file {plain(path)}")
    fs.copy_files(inner, str(to), source_filesystem=system)
    return to


def upload(file: Path, path: str) -> None:
    """Copy one local file to a path or URI.

    Raises:
        ValueError: a URI that pyarrow does not understand.
        OSError: the file system cannot be reached.
    """
    system, inner = resolve(path)
    if isinstance(system, fs.LocalFileSystem):
        Path(inner).parent.mkdir(parents=True, exist_ok=True)
    fs.copy_files(str(file), inner, destination_filesystem=system)


@contextlib.contextmanager
def usual_rights(file: Path) -> Iterator[None]:
    """Give a file written in the block the umask's permissions; safetensors' own are for one user only."""
    file.touch()
    mode = file.stat().st_mode
    yield
    file.chmod(mode)


def remove_folder(path: str) -> None:
    """Delete a folder with its contents, if it exists.

    Raises:
        ValueError: a URI that pyarrow does not understand.
        OSError: the file system cannot be reached.
    """
    system, inner = resolve(path)
    if system.get_file_info(inner).type == fs.FileType.Directory:
        # Google's store deletes all files and then reports a missing marker for a folder without one.
        with contextlib.suppress(FileNotFoundError):
            system.delete_dir(inner)


def _stamp(info: fs.FileInfo) -> FileStamp | None:
    if info.type != fs.FileType.File:
        return None
    return FileStamp(size=info.size, modified=info.mtime_ns or 0)


@functools.cache
def _local() -> fs.FileSystem:
    return fs.LocalFileSystem()


@functools.cache
def _file_system(uri: str, shown: str) -> fs.FileSystem:
    try:
        system, _ = fs.FileSystem.from_uri(uri)
    except (ValueError, NotImplementedError) as error:
        raise ValueError(
            f"cannot reach {shown}: {error}; expected a local path, s3://, gs:// or file://"
        ) from error
    return system


def stamps(paths: Sequence[str]) -> dict[str, FileStamp | None]:
    """:func:`stamp` of many files; remote ones are requested together.

    Raises:
        ValueError: a URI that pyarrow does not understand.
        OSError: a file system cannot be reached.
    """
    places: dict[int, tuple[fs.FileSystem, list[tuple[str, str]]]] = {}
    for path in dict.fromkeys(paths):
        system, inner = resolve(path)
        places.setdefault(id(system), (system, []))[1].append((path, inner))
    found: dict[str, FileStamp | None] = {}
    for system, files in places.values():
        for (path, _), info in zip(
            files, system.get_file_info([inner for _, inner in files]), strict=True
        ):
            found[path] = _stamp(info)
    return found
