"""Configs as JSON and by dotted path: reading, writing, replacing, naming."""

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any, Literal

from tcmgc.config.fields import Config
from tcmgc.config.options import Kind, require


def to_dict(config: Config) -> dict[str, Any]:
    """The config as JSON types; a part that has kinds stores its class name under ``kind``."""

    def plain(value: Any) -> Any:
        if not dataclasses.is_dataclass(value):
            return value
        kind: dict[str, Any] = {}
        if isinstance(value, Kind):
            kind = {"kind": type(value).__name__}
        return kind | {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}

    return json.loads(json.dumps(plain(config)))


def from_dict(values: dict[str, Any]) -> Config:
    """The inverse of :func:`to_dict`.

    Raises:
        ValueError: a field is unknown or missing; names the field and its path.
    """
    return _read(Config, values, "")


def flatten(config: Config) -> dict[str, Any]:
    """Every field by its dotted path, as the command line names it."""

    def walk(values: dict[str, Any], path: str) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in values.items():
            flat |= (
                walk(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
            )
        return flat

    return walk(to_dict(config), "")


def replace(config: Config, changes: dict[str, Any]) -> Config:
    """The config with fields replaced by dotted path: ``{"head.attention.heads": 2}``.

    All changes are made before anything is checked, so their order does not matter.

    Raises:
        ValueError: a path that is no field; names the most similar fields.
    """
    known = flatten(config)
    values = to_dict(config)
    for path, value in changes.items():
        if path not in known:
            near = difflib.get_close_matches(path, known, n=3) or sorted(known)
            raise ValueError(f"the config has no field {path!r}; near it: {', '.join(near)}")
        *parents, name = path.split(".")
        target = values
        for parent in parents:
            target = target[parent]
        target[name] = value
    return from_dict(values)


PLACEMENT = (
    "cluster.",
    "data.cache",
    "data.decode_timeout",
    "data.outside_links",
    "data.absolute_paths",
    "data.allow_unfit",
    "train.workers",
    "train.min_workers",
    "train.gpus",
    "train.max_failures",
    "train.keep_checkpoints",
    "train.profile_steps",
    "train.checkpoint_steps",
    "train.checkpoint_minutes",
)
"""Fields, and groups of fields, that set where and how safely a run takes place, not its result."""


def deciding(config: Config) -> dict[str, Any]:
    """The fields that decide a run's result, by dotted path: all but :data:`PLACEMENT`."""
    return {path: value for path, value in flatten(config).items() if not _placed(path)}


def fingerprint(config: Config) -> str:
    """Eight hex digits that depend on the fields that decide a run's result, not on where it runs."""
    values = json.dumps(deciding(config), sort_keys=True)
    return hashlib.sha256(values.encode()).hexdigest()[:8]


def _placed(path: str) -> bool:
    return path in PLACEMENT or path.partition(".")[0] + "." in PLACEMENT


def save(config: Config, path: Path | str) -> None:
    """Write the config as JSON."""
    Path(path).write_text(json.dumps(to_dict(config), indent=2) + "\n")


def load(path: Path | str) -> Config:
    """Read a config that :func:`save` wrote.

    Raises:
        ValueError: not JSON, or not a config of this version; names the file.
    """
    try:
        return from_dict(json.loads(Path(path).read_text()))
    except (json.JSONDecodeError, ValueError) as error:
        raise ValueError(f"{path} is not a config: {error}") from error


def _read(kind: Any, value: Any, path: str) -> Any:
    where = path or "the config"
    if isinstance(kind, type) and issubclass(kind, Kind) and Kind in kind.__bases__:
        require(isinstance(value, dict), f"{where}: expected fields, got {value!r}")
        name = value.get("kind", kind.default)
        if name not in kind.kinds:
            raise ValueError(f"{path}.kind is {name!r}; expected one of {', '.join(kind.kinds)}")
        return _read(kind.kinds[name], {k: v for k, v in value.items() if k != "kind"}, path)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where}: expected fields, got {value!r}")
        hints = {f.name: typing.get_type_hints(kind)[f.name] for f in dataclasses.fields(kind)}
        unknown = sorted(set(value) - set(hints))
        if unknown:
            raise ValueError(
                f"{where}: unknown field {', '.join(unknown)}; known are {', '.join(sorted(hints))}"
            )
        try:
            return kind(
                **{k: _read(hints[k], v, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
            )
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from error
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        require(
            value in arguments,
            f"{where}: expected one of {', '.join(map(str, arguments))}; got {value!r}",
        )
        return value
    if origin is tuple:
        require(isinstance(value, list | tuple), f"{where}: expected a list; got {value!r}")
        return tuple(_read(arguments[0], item, where) for item in value)
    if origin is types.UnionType:
        return None if value is None else _read(arguments[0], value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    require(type(value) is kind, f"{where}: expected {kind.__name__}; got {value!r}")
    return value
