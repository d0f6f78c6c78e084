"""Parse the bytes of an annotation file to plain values; errors name the file and the line."""

import codecs
import csv
import io
import json
import pickle
import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

csv.field_size_limit(2**24)


def text_of(label: str, data: bytes) -> str:
    """Text in UTF-8, UTF-16 or UTF-32, with or without byte order marks.

    Raises:
        ValueError: other bytes, with their line.
    """
    encoding = _encoding(data)
    try:
        return data.decode(encoding).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{label} line {line}: not {encoding.upper()} text ({error.reason}); save it as UTF-8"
        ) from error


def _encoding(data: bytes) -> str:
    """The encoding by the byte order mark, or else by the zeros next to the first characters."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = "".join("0" if byte == 0 else "x" for byte in data[:4])
    unmarked = {"x0x0": "utf-16-le", "0x0x": "utf-16-be", "x000": "utf-32-le", "000x": "utf-32-be"}
    return unmarked.get(zeros, "utf-8")


def read_json(label: str, data: bytes) -> Any:
    """One JSON value.

    Raises:
        ValueError: not JSON (for example truncated), or a key twice in one object.
    """
    try:
        return _json(label, text_of(label, data))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{label} line {error.lineno} column {error.colno}: not JSON ({error.msg}); "
            "was the file cut short?"
        ) from error


def read_json_lines(label: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """One JSON object per line, each with its position.

    Raises:
        ValueError: as :func:`read_json`, or a line that is not an object.
    """
    for where, line in read_lines(label, data):
        try:
            value = _json(where, line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} column {error.colno}: not JSON ({error.msg})") from error
        yield where, as_kind(where, value, dict, "an object")


def _json(where: str, text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"{where}: the key {short(twice)} is there twice in one object")
        return values

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError(f"{where}: nested too deeply to be annotations") from error


def read_lines(label: str, data: bytes) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, stripped, each with its position.

    Only line feeds and carriage returns end a line: U+2028 and similar may occur in texts.
    """
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text_of(label, data)), 1):
        if stripped := line.strip(" \t\f\v\ufeff"):
            yield f"{label} line {number}", stripped


def read_table(
    label: str, data: bytes, columns: Sequence[str], delimiter: str = ",", hint: str = ""
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV or TSV file with a header, each with its position.

    Raises:
        ValueError: a column is missing, or a row has a different number of fields.
    """
    rows = csv.reader(
        io.StringIO(text_of(label, data), newline=""), delimiter=delimiter, strict=True
    )
    try:
        header = [name.strip().lstrip("\ufeff") for name in next(rows, [])]
        require(label, header, columns, hint)
        for row in rows:
            where = f"{label} line {rows.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{where}: expected {len(header)} fields ({listed(header)}); got {len(row)}; "
                    f"quote a text that has a {delimiter!r} in it"
                )
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{label} line {rows.line_num}: {error}") from error


def require(label: str, found: Sequence[str], columns: Sequence[str], hint: str = "") -> None:
    """Check that columns exist, once each.

    ``hint``: end of the message.

    Raises:
        ValueError: one does not; lists the existing ones.
    """
    for name in columns:
        if name not in found:
            raise NoColumnError(
                f"{label} has no column {name!r}; it has: {listed(found) or 'none'}{hint}", name
            )
    if len(set(found)) != len(found):
        raise ValueError(f"{label}: the header has a column twice: {listed(found)}")


class _PlainUnpickler(pickle.Unpickler):
    """Containers, numbers and text need no named classes; a pickle that names one is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(label: str, data: bytes) -> Any:
    """A pickle of plain containers and text; nothing in it is ever called.

    Raises:
        ValueError: it contains anything else, or is not a pickle.
    """
    try:
        # encoding: for texts written by Python 2.
        return _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
    except Exception as error:  # broken pickles raise almost any exception
        raise ValueError(
            f"{label} is not a pickle of plain lists, dictionaries and texts ({line(error)}); "
            "nothing in it was run"
        ) from error


def as_kind(where: str, value: Any, kind: type | tuple[type, ...], expected: str) -> Any:
    """Return ``value`` if it is of this kind.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: expected {expected}; got {short(value)}")
    return value


def field(where: str, record: Any, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
    """Return ``record[key]`` if it is of this kind.

    Raises:
        ValueError: not an object, no such key, or a value of another kind.
    """
    as_kind(where, record, dict, f"an object with {key!r}")
    if key not in record:
        raise ValueError(
            f"{where}: has no {key!r}; it has: {listed(list(map(str, record))) or 'nothing'}"
        )
    return as_kind(f"{where}, {key!r}", record[key], kind, expected)


class NoColumnError(ValueError):
    """A table does not have this column."""

    def __init__(self, message: str, column: str) -> None:
        super().__init__(message)
        self.column = column


class NoCaptionsError(ValueError):
    """There are videos, but no captions for them."""


class _Short(reprlib.Repr):
    """A few items and a few dozen characters of any value, without formatting the rest first."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 60
        self.maxlevel = 2

    def repr_bytes(self, value: bytes, level: int) -> str:
        return f"{len(value):,} bytes" if len(value) > self.maxstring else repr(value)


_SHORT = _Short()


def short(value: Any) -> str:
    """A value for messages: on one line, truncated."""
    return line(_SHORT.repr(value), 100)


def line(text: object, length: int = 300) -> str:
    """Text for messages: on one line, truncated."""
    flat = " ".join(str(text)[: 4 * length].split())
    return flat if len(flat) <= length else f"{flat[: length - 2]} …"


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names separated by commas, truncated."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(line(name, 60) for name in names[:most]) + more
