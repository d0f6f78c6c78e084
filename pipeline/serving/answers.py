"""Answers of a search as JSON, as a table for a terminal, and as CSV."""

import csv
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tcmgc.search import Answer, Match, Moment

COLUMNS = ("query", "rank", "score", "place", "path", "start", "end", "state")


def to_json(answer: Answer) -> dict[str, Any]:
    """An answer as JSON types. Bytes of a path that are not UTF-8 are lone surrogates (``\\udcff``)."""
    return {
        "query": answer.query,
        "close": answer.close,
        "notes": list(answer.notes),
        "results": [_match(match) for match in answer.matches],
        "windows": answer.windows,
        "scored": answer.scored,
    }


def _match(match: Match) -> dict[str, Any]:
    file = match.file
    return {
        "rank": match.rank,
        "score": round(match.moment.score, 6),
        "place": None if match.place is None else round(match.place, 4),
        "path": file.path,
        "start": round(match.moment.start, 3),
        "end": round(match.moment.end, 3),
        "moments": [_moment(moment) for moment in match.others],
        "id": identifier(match.moment),
        "duration": round(file.duration, 3),
        "width": file.width,
        "height": file.height,
        "codec": file.codec,
        "state": match.state,
        "copies": list(match.copies),
    }


def _moment(moment: Moment) -> dict[str, Any]:
    return {
        "start": round(moment.start, 3),
        "end": round(moment.end, 3),
        "score": round(moment.score, 6),
        "id": identifier(moment),
    }


def identifier(moment: Moment) -> str:
    """A window's identifier in the page's addresses."""
    return f"{Path(moment.segment).stem}.{moment.row}"


def rows(answers: Iterable[Answer]) -> list[dict[str, Any]]:
    """One row per result, with the columns of :data:`COLUMNS`."""
    return [
        {"query": answer.query, **{name: _match(match)[name] for name in COLUMNS[1:]}}
        for answer in answers
        for match in answer.matches
    ]


def write_csv(path: str, answers: Iterable[Answer]) -> None:
    """All results as one CSV file."""
    with open(path, "w", newline="", errors="surrogateescape") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows(answers))


def table(answer: Answer, width: int) -> str:
    """An answer for a terminal with ``width`` columns."""
    lines = [f"note: {note}" for note in answer.notes]
    if not answer.matches:
        return "\n".join([*lines, "nothing found: no video passes the filters"])
    if answer.close is False:
        lines.append("no close match; the nearest are")
    lines += _rows(answer.matches, width)
    return "\n".join(lines)


def _rows(matches: Sequence[Match], width: int) -> list[str]:
    lines = ["   #  score  above  moment             file"]
    for match in matches:
        place = "    -" if match.place is None else f"{math.floor(100 * match.place):3d} %"
        spans = f"{clock(match.moment.start)}–{clock(match.moment.end)}"
        name = printable(match.file.path)
        room = max(20, width - 38)
        if len(name) > room:
            name = "…" + name[1 - room :]
        marks = [match.state] if match.state else []
        if match.others:
            marks.append("also " + ", ".join(clock(moment.start) for moment in match.others))
        if match.copies:
            marks.append(f"{len(match.copies)} copies" if len(match.copies) > 1 else "1 copy")
        more = f"  ({'; '.join(marks)})" if marks else ""
        lines.append(
            f"{match.rank:4d} {match.moment.score:6.3f}  {place}  {spans:17s}  {name}{more}"
        )
    lines.append("above: share of everyday queries whose best moment in this index scores lower")
    return lines


def clock(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def printable(path: str) -> str:
    """A path that any terminal and encoding can show; other characters are replaced."""
    text = os.fsencode(path).decode(errors="replace") if "://" not in path else path
    return "".join(c if c.isprintable() else "�" for c in text)
