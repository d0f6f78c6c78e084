"""The folder of a run: small JSON files that are there whole or not at all, local or on a URI."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from pyarrow import fs

from tcmgc import storage
from tcmgc.config import Config, fingerprint, flatten, from_dict, to_dict

CONFIG, RESULT = "config.json", "result.json"


def read(folder: str, name: str) -> dict[str, Any] | None:
    """A JSON file of the folder; None where there is none, or none that can be read."""
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
    """Write a JSON file beside its place and move it there; an object store does that itself."""
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
    """The folder of all runs, and the run's name: what ``storage.join`` joined."""
    base, mark, query = folder.rstrip("/").partition("?")
    runs, _, name = base.rpartition("/")
    return runs + mark + query, name


def exists(folder: str, name: str) -> bool:
    """Whether the folder has a file of this name."""
    system, inner = storage.resolve(storage.join(folder, name))
    return system.get_file_info(inner).type == fs.FileType.File


def remove(folder: str, name: str) -> None:
    """Delete a file of the folder, if it is there."""
    if exists(folder, name):
        system, inner = storage.resolve(storage.join(folder, name))
        system.delete_file(inner)


def config_of(folder: str) -> Config:
    """The config that the run was started with.

    Raises:
        ValueError: the folder holds no run.
    """
    values = read(folder, CONFIG)
    if values is None:
        raise ValueError(
            f"{folder} holds no run: there is no {CONFIG} in it; give the folder or the MLflow run id "
            "that training named at its beginning"
        )
    return from_dict(values)


def enter(folder: str, config: Config) -> None:
    """Note the run's config in its folder, or make sure that it is the one noted there.

    Raises:
        ValueError: the folder holds a run with other settings; names them.
    """
    found = read(folder, CONFIG)
    if found is None:
        write(folder, CONFIG, to_dict(config))
        return
    before = from_dict(found)
    if fingerprint(before) == fingerprint(config):
        return
    old, new = flatten(before), flatten(config)
    changed = [
        f"{path} {old.get(path, 'unset')} there, {new.get(path, 'unset')} now"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]
    raise ValueError(
        f"{folder} holds a run with other settings ({'; '.join(changed)}); "
        "--run.name starts another run, --resume goes on with that one's own settings"
    )
