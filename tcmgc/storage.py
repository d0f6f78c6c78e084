"""Local paths and URIs (``s3://``, ``gs://``, ``file://``) behind one interface.

A URI's query holds what its file system needs and stays behind the path when names are joined:
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
    """What tells a file from the one that replaces it under the same name."""

    size: int
    """Bytes."""
    modified: int
    """Nanoseconds since 1970."""


def is_uri(path: str) -> bool:
    """Whether pyarrow's file systems are needed to reach it."""
    return "://" in path


def without_scheme(path: str) -> str:
    """A ``file://`` URI as the local path that it means; anything else as it is."""
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
    """The path without a URI's query and credentials: what messages and records may show."""
    if not is_uri(path):
        return path
    parts = urlsplit(path)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def has_password(path: str) -> bool:
    """Whether a bucket's URI holds one, as ``s3://key:secret@bucket``, also with a bare slash in it."""
    return ":" in path.partition("://")[2].partition("/")[0].partition("?")[0]


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """The file system that a path or URI lives on, and its path there.

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
    """Size and time of last change; None where there is no such file.

    Raises:
        ValueError: a URI that pyarrow does not understand.
        OSError: the file system cannot be reached.
    """
    system, inner = resolve(path)
    return _stamp(system.get_file_info(inner))


def folders(path: str) -> dict[str, set[str]]:
    """Folders directly below a folder, and what each holds directly; none where it is not there.

    Looked for among all files below: an object store has no folders, and Google's is asked in vain
    for those that no marker stands for.

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
    """Copy one file to a local path, which is given back.

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
    """Give a file that the block writes the rights that the umask says; safetensors' are for one user alone."""
    file.touch()
    mode = file.stat().st_mode
    yield
    file.chmod(mode)


def remove_folder(path: str) -> None:
    """Delete a folder and all in it, if it is there.

    Raises:
        ValueError: a URI that pyarrow does not understand.
        OSError: the file system cannot be reached.
    """
    system, inner = resolve(path)
    if system.get_file_info(inner).type == fs.FileType.Directory:
        # Google's store deletes all files and then misses the marker of a folder that has none.
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
    """:func:`stamp` of many files, remote ones asked for together.

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
