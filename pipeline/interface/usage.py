"""``--help``: a line for every field, with its type, its value and its description."""

import ast
import dataclasses
import inspect
import os
import shutil
import sys
import textwrap
import types
import typing
from typing import Any, Literal

import tyro

from tcmgc.config import Config

_PLACE = 34
"""Column at which the description of a field begins."""


def show(about: str, prog: str, words: str, groups: dict[str, Any]) -> None:
    """Print the help of a command.

    Args:
        about: Description of the command, and other text above the fields.
        prog: What the user types.
        words: What may follow it.
        groups: Dataclass instances, or classes if the command has no defaults, by the prefix of their
            fields; ``""`` for none.
    """
    shown = [f"usage: {prog} {words}\n\n{about}"]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for prefix, owner in groups.items():
        for heading, lines in _groups(prefix, owner):
            shown.append(f"\n{heading}")
            for line in lines:
                if width is not None and len(line) > width:
                    line = line[: width - 1] + "…"
                shown.append(line)
    try:
        print("\n".join(shown), flush=True)
    except BrokenPipeError:  # the reader has closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def positional(kind: type) -> list[str]:
    """The positional fields of the command line, in order."""
    return [
        field.name
        for field in dataclasses.fields(kind)
        if tyro.conf.Positional in getattr(field.type, "__metadata__", ())
    ]


def groups(owner: Any) -> dict[str, Any]:
    """The dataclasses of a command line: its own fields, then those of its config."""
    config = getattr(owner, "config", None)
    found = {"": owner}
    return found | ({"config": config} if isinstance(config, Config) else {})


def _groups(prefix: str, owner: Any) -> list[tuple[str, list[str]]]:
    if prefix == "config":
        return [
            group
            for f in dataclasses.fields(owner)
            for group in _nested(f.name, getattr(owner, f.name))
        ]
    plain, nested = [], []
    kind = owner if isinstance(owner, type) else type(owner)
    hints, docs = typing.get_type_hints(kind), field_docs(kind)
    for field in dataclasses.fields(kind):
        value = _value(owner, field)
        if field.name == "config":
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            nested += _nested(field.name, value)
        else:
            line = _line(field.name, hints[field.name], value, docs.get(field.name, ""))
            named = f"--{field.name.replace('_', '-')}"
            bare = field.name in positional(kind)
            plain.append(
                line.replace(named, field.name.upper().ljust(len(named)), 1) if bare else line
            )
    return [("options", plain), *nested]


def _nested(path: str, owner: Any) -> list[tuple[str, list[str]]]:
    """A dataclass's own fields, then those of the dataclasses in it."""
    hints, docs = typing.get_type_hints(type(owner)), field_docs(type(owner))
    lines, below = [], []
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            below += _nested(f"{path}.{field.name}", value)
        else:
            about = docs.get(field.name, "")
            lines.append(_line(f"{path}.{field.name}", hints[field.name], value, about))
    about = first_sentence(inspect.getdoc(type(owner)) or "")
    return [(f"{path}: {about}", lines), *below]


def _line(path: str, kind: Any, value: Any, about: str) -> str:
    shown = f"  --{path.replace('_', '-')} {spelled(kind)}"
    if value is not dataclasses.MISSING and value is not None and value != ():
        listed = " ".join(map(str, value)) if isinstance(value, tuple) else value
        shown += f" = {listed}"
    gap = max(1, _PLACE - len(shown))
    return f"{shown}{' ' * gap} {first_sentence(about)}"


def _value(owner: Any, field: dataclasses.Field[Any]) -> Any:
    if not isinstance(owner, type):
        return getattr(owner, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def spelled(kind: Any) -> str:
    """A readable form of a type: ``INT``, ``{raw,jpeg}``, ``STR …``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return spelled(arguments[0])
    if origin is Literal:
        return "{" + ",".join(map(str, arguments)) + "}"
    if origin is tuple:
        several = arguments[-1] is Ellipsis
        return f"{spelled(arguments[0])} …" if several else " ".join(map(spelled, arguments))
    if origin in (types.UnionType, typing.Union):
        return spelled(next(one for one in arguments if one is not type(None)))
    return {bool: "{True,False}"}.get(kind, getattr(kind, "__name__", str(kind)).upper())


def field_docs(kind: type) -> dict[str, str]:
    """The strings below the fields of a dataclass, by name."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence, on one line."""
    flat = " ".join(text.split())
    end = flat.find(". ")
    return flat if end < 0 else flat[: end + 1]
