"""From the bytes of an annotation file to plain values; errors name the file and the line."""

import csv
import io
import json
import pickle
import re
from collections.abc import Iterator, Sequence
from typing import Any

csv.field_size_limit(2**24)


def text_of(label: str, data: bytes) -> str:
    """UTF-8, with or without a byte order mark.

    Raises:
        ValueError: other bytes, with their line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{label} line {line}: not UTF-8 text ({error.reason})") from error


def read_json(label: str, data: bytes) -> Any:
    """One JSON value.

    Raises:
        ValueError: no JSON (cut short, for one), or a key twice in one object.
    """
    try:
        return _json(label, text_of(label, data))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{label} line {error.lineno} column {error.colno}: not JSON ({error.msg}); "
            "was the file cut short?"
        ) from error


def read_json_lines(label: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """A JSON object a line, each with where it is.

    Raises:
        ValueError: as :func:`read_json`, or a line that holds no object.
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
            raise ValueError(f"{where}: the key {twice!r} is there twice in one object")
        return values

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError(f"{where}: nested too deeply to be annotations") from error


def read_lines(label: str, data: bytes) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, stripped, each with where it is."""
    for number, line in enumerate(text_of(label, data).splitlines(), 1):
        if line.strip():
            yield f"{label} line {number}", line.strip()


def read_table(
    label: str, data: bytes, columns: Sequence[str], delimiter: str = ","
) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV or TSV file with a header, each with where it is.

    Raises:
        ValueError: a column is not there, or a row has another number of fields.
    """
    rows = csv.reader(
        io.StringIO(text_of(label, data), newline=""), delimiter=delimiter, strict=True
    )
    try:
        header = [name.strip() for name in next(rows, [])]
        require(label, header, columns)
        for row in rows:
            where = f"{label} line {rows.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{where}: expected {len(header)} fields ({', '.join(header)}); got {len(row)}; "
                    f"quote a text that has a {delimiter!r} in it"
                )
            yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{label} line {rows.line_num}: {error}") from error


def require(label: str, found: Sequence[str], columns: Sequence[str]) -> None:
    """Check that columns are there, once each.

    Raises:
        ValueError: one is not, with those that there are.
    """
    for name in columns:
        if name not in found:
            raise ValueError(
                f"{label} has no column {name!r}; it has: {', '.join(found) or 'none'}"
            )
    if len(set(found)) != len(found):
        raise ValueError(f"{label}: the header has a column twice: {', '.join(found)}")


class _PlainUnpickler(pickle.Unpickler):
    """Containers, numbers and text need no class by name; whatever asks for one is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(label: str, data: bytes) -> Any:
    """A pickle of plain containers and text; nothing in it is ever called.

    Raises:
        ValueError: it holds anything else, or is no pickle.
    """
    try:
        # encoding: texts that Python 2 wrote.
        return _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
    except Exception as error:  # broken pickles raise about everything
        raise ValueError(
            f"{label} is not a pickle of plain lists, dictionaries and texts ({error}); "
            "nothing in it was run"
        ) from error


def as_kind(where: str, value: Any, kind: type | tuple[type, ...], expected: str) -> Any:
    """``value`` where it is of this kind.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where}: expected {expected}; got {_short(value)}")
    return value


def field(where: str, record: Any, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
    """``record[key]`` where it is of this kind.

    Raises:
        ValueError: no object, no such key, or a value of another kind.
    """
    as_kind(where, record, dict, f"an object with {key!r}")
    if key not in record:
        raise ValueError(
            f"{where}: has no {key!r}; it has: {', '.join(map(str, record)) or 'nothing'}"
        )
    return as_kind(f"{where}, {key!r}", record[key], kind, expected)


def _short(value: Any) -> str:
    return re.sub(r"\s+", " ", repr(value))[:60]
