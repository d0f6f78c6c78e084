"""The folder of a run, local or on a URI: small JSON files that are written atomically."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyarrow import fs

from tcmgc import storage
from tcmgc.config import Config, deciding, from_dict, to_dict

CONFIG, RESULT = "config.json", "result.json"
_NAMED = 8
"""Most differing fields that an error lists."""


def read(folder: str, name: str) -> dict[str, Any] | None:
    """A JSON file of the folder; None if it is missing or cannot be read."""
    system, inner = storage.resolve(storage.join(folder, name))
    if system.get_file_info(inner).type != fs.FileType.File:
        return None
    with system.open_input_stream(inner) as file:
        content = file.read()
    try:
        return json.loads(content)
    except ValueError:
        return None


def write(folder: str, name: str, values: dict[str, Any]) -> None:
    """Write a JSON file atomically: to a temporary file that is moved; an object store does that itself."""
    system, inner = storage.resolve(storage.join(folder, name))
    content = (json.dumps(values, indent=2) + "\n").encode()
    if not isinstance(system, fs.LocalFileSystem):
        with system.open_output_stream(inner) as file:
            file.write(content)
        return
    Path(inner).parent.mkdir(parents=True, exist_ok=True)
    aside = f"{inner}.{uuid.uuid4().hex}.partial"
    try:
        with open(aside, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, inner)
    finally:
        Path(aside).unlink(missing_ok=True)


def split(folder: str) -> tuple[str, str]:
    """The folder of all runs, and the run's name; the inverse of ``storage.join``."""
    base, mark, query = folder.rstrip("/"), "", ""
    if storage.is_uri(folder):
        base, mark, query = base.partition("?")
    runs, _, name = base.rpartition("/")
    return runs + mark + query, name


def exists(folder: str, name: str) -> bool:
    """Whether the folder has a file of this name."""
    system, inner = storage.resolve(storage.join(folder, name))
    return system.get_file_info(inner).type == fs.FileType.File


def remove(folder: str, name: str) -> None:
    """Delete a file of the folder, if it exists."""
    if exists(folder, name):
        system, inner = storage.resolve(storage.join(folder, name))
        system.delete_file(inner)


def checked_name(name: str) -> str:
    """The name, if a folder can have it.

    Raises:
        ValueError: a path, ``..``, an empty name, or one with line breaks or similar characters.
    """
    bad = not name.strip() or name != name.strip() or name in (".", "..")
    if bad or any(c in "/\\" or not c.isprintable() for c in name) or len(name.encode()) > 200:
        raise ValueError(
            f"--run.name {name!r} cannot be a folder's name; expected up to 200 bytes without slashes, "
            "line breaks or spaces at its ends (--run.folder chooses where runs are kept)"
        )
    return name


def config_of(folder: str) -> Config:
    """The config that the run was started with.

    Raises:
        ValueError: the folder contains no run.
    """
    found = _noted(folder)
    if found is None:
        raise ValueError(
            f"{storage.plain(folder)} holds no run: there is no {CONFIG} in it; give the folder or the MLflow run id "
            "that training named at its beginning"
        )
    return found


def agree(folder: str, config: Config) -> bool:
    """Whether the folder already contains a run with the settings of ``config``.

    Raises:
        ValueError: the folder contains a run with other settings; lists them.
    """
    before = _noted(folder)
    if before is None:
        return False
    old, new = deciding(before), deciding(config)
    changed = [
        f"{path} {old.get(path, 'unset')} there, {new.get(path, 'unset')} now"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]
    if not changed:
        return True
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    raise ValueError(
        f"{storage.plain(folder)} holds a run with other settings ({'; '.join(changed[:_NAMED])}{more}); "
        "--run.name starts another run, --resume without other fields goes on with that one's own settings"
    )


def enter(folder: str, config: Config) -> None:
    """Write the run's config to its folder, or check that the existing one is the same.

    Raises:
        ValueError: the folder contains a run with other settings; lists them.
    """
    if not agree(folder, config):
        write(folder, CONFIG, to_dict(config))


@contextmanager
def forgotten_if_refused(folder: str) -> Iterator[None]:
    """Remove a folder created in the block, if the block is refused before it has a checkpoint.

    A corrected command can then use the same name.
    """
    fresh = not exists(folder, CONFIG)
    try:
        yield
    except ValueError:
        if fresh and not any(name.startswith("checkpoint_") for name in storage.folders(folder)):
            storage.remove_folder(folder)
        raise


def _noted(folder: str) -> Config | None:
    values = read(folder, CONFIG)
    if values is None:
        return None
    try:
        return from_dict(values)
    except ValueError as error:
        raise ValueError(
            f"{storage.plain(folder)}/{CONFIG} is not a config of this version: {error}; "
            "--run.name starts another run"
        ) from error
