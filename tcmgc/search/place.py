"""An index's folder, local or behind a URI, in which files are written atomically."""

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

from pyarrow import fs

from tcmgc import storage

PARTIAL = ".partial"


class Place:
    """Files of an index by their names.

    Args:
        folder: local path or URI.
        mirror: local folder for copies of a remote index's files; None: one in the system's
            temporary folder. Files never change under their name, so copies stay valid.
    """

    def __init__(self, folder: str, mirror: str | None = None) -> None:
        self.folder = storage.without_scheme(folder)
        self.remote = storage.is_uri(self.folder)
        base = mirror or str(Path(tempfile.gettempdir(), f"tcmgc-index-{os.getuid()}"))
        mark = zlib.crc32(storage.plain(self.folder).encode())
        self._mirror = Path(base, f"{mark:08x}")

    def __str__(self) -> str:
        return storage.plain(self.folder)

    def read(self, name: str) -> bytes | None:
        """Content of a small file; None if it does not exist.

        Raises:
            OSError: it exists and cannot be read.
        """
        system, inner = self._resolve(name)
        try:
            with system.open_input_stream(inner) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a small file atomically.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        self.put(name, lambda path: _write(path, content))

    def put(self, name: str, write: Callable[[Path], None]) -> None:
        """Let ``write`` create a local file, then move it into place atomically.

        Raises:
            OSError: as :meth:`write`.
        """
        if self.remote:
            with tempfile.TemporaryDirectory() as scratch:
                made = Path(scratch, "file")
                write(made)
                system, inner = self._resolve(name)
                with open(made, "rb") as source, system.open_output_stream(inner) as target:
                    shutil.copyfileobj(source, target, 4 << 20)
            return
        place = Path(self.folder, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            write(partial)
            with open(partial, "rb+") as file:
                os.fsync(file.fileno())  # some file systems report a full disk only here
            os.chmod(partial, 0o666 & ~_umask())  # safetensors' files are for their owner only
            os.replace(partial, place)
        finally:
            partial.unlink(missing_ok=True)

    def local(self, name: str) -> Path:
        """Local path of a file for mapping: the file itself, or a copy created on first use.

        Raises:
            FileNotFoundError: it does not exist.
            OSError: it cannot be downloaded.
        """
        if not self.remote:
            path = Path(self.folder, name)
            if not path.is_file():
                raise FileNotFoundError(f"{path} is not there")
            return path
        copy = self._mirror / name
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f"{copy.name}.{uuid.uuid4().hex}{PARTIAL}")
            system, inner = self._resolve(name)
            try:
                with system.open_input_stream(inner) as source, open(partial, "wb") as target:
                    shutil.copyfileobj(source, target, 4 << 20)
                os.replace(partial, copy)
            finally:
                partial.unlink(missing_ok=True)
        return copy

    def drop_copy(self, name: str) -> None:
        """Delete the damaged local copy of a remote file."""
        if self.remote:
            (self._mirror / name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All files of the folder, including half-written ones."""
        system, top = storage.resolve(self.folder)
        found = system.get_file_info(fs.FileSelector(top, allow_not_found=True, recursive=True))
        return [f.path[len(top) :].strip("/") for f in found if f.type == fs.FileType.File]

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        system, inner = self._resolve(name)
        with contextlib.suppress(FileNotFoundError):
            system.delete_file(inner)
        self.drop_copy(name)

    def _resolve(self, name: str) -> tuple[fs.FileSystem, str]:
        return storage.resolve(storage.join(self.folder, *name.split("/")))


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
