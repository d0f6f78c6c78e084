"""Build checked splits from an annotation's entries: ids, captions, files."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tcmgc.datasets import parse
from tcmgc.datasets.files import Videos, same_name
from tcmgc.datasets.rows import Clip, Corpus, Split

_REFUSED = {
    "Cc": "a control character",
    "Cs": "half of a character",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}
"""Unicode categories."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A video that an annotation lists."""

    where: str
    """File and line or key, for messages."""
    id: str
    captions: Sequence[Any]
    names: tuple[str, ...] = ()
    """Possible names of its file, the likeliest first; empty: its id."""
    end: float | None = None
    sources: Sequence[str] = ()
    """Position of each caption, for messages; empty: ``where``."""


def split(
    listed: Iterable[Listed],
    videos: Videos,
    expected_videos: int | None = None,
    expected_captions: int | None = None,
) -> Split:
    """Check the listed videos and find their files; those without a file are counted as missing.

    Raises:
        ValueError: an id that is not a valid name or occurs twice, a caption that is empty or not
            text, a video without one, two files for a video, a link that leads out.
    """
    clips, missing, seen = [], [], dict[str, str]()
    for item in listed:
        check_id(item.where, item.id)
        name = same_name(item.id)
        if name in seen:
            raise ValueError(
                f"{item.where}: the id {parse.short(item.id)} is there twice, first in {seen[name]}"
            )
        seen[name] = item.where
        captions = check_captions(item.where, item.id, item.captions, item.sources)
        path = videos.find(*item.names or (item.id,))
        if path is None:
            missing.append(item.id)
        else:
            clips.append(Clip(item.id, path, captions, end=item.end))
    return Split(tuple(clips), tuple(missing), expected_videos, expected_captions)


def corpus(root: str, splits: Corpus, videos: Videos | None = None) -> Corpus:
    """The splits, after checking that they share no id and that there are videos.

    Raises:
        ValueError: splits share an id, or there are no videos.
    """
    owner: dict[str, str] = {}
    shared: dict[str, tuple[str, str]] = {}
    for name, one in splits.items():
        for id in [*(clip.id for clip in one.clips), *one.missing]:
            if owner.setdefault(id, name) != name:
                shared[id] = (owner[id], name)
    if shared:
        id, (first, second) = next(iter(shared.items()))
        raise ValueError(
            f"{len(shared)} ids are in two splits, which must not share a video: {parse.short(id)} "
            f"is in {first} and in {second}; take them off one of the lists"
        )
    if not any(len(one) for one in splits.values()):
        names = [id for one in splits.values() for id in one.missing]
        raise ValueError(
            f"no video of the {len(names)} that are listed was found below {root} "
            f"(looked for {parse.listed(names[:3])}{', …' if len(names) > 3 else ''}); {_remedy(videos)}"
            if names
            else f"the annotations in {root} list no video"
        )
    return splits


def _remedy(videos: Videos | None) -> str:
    if videos is not None and videos.archives:
        packed = parse.listed(videos.archives, 3)
        return f"there is {packed}: unpack it into its folder videos/"
    return "put the files, or a link to their folder, into its folder videos/"


def check_id(where: str, id: Any) -> None:
    """Check that an id can be a file name: a single part of a path.

    Raises:
        ValueError: it cannot.
    """
    check_name(where, id, "expected a video id")
    if "/" in id or "\\" in id or id in (".", ".."):
        raise ValueError(
            f"{where}: the id {parse.short(id)} has a path separator in it; an id is a name, never a "
            "path, so that no file outside the data root is read"
        )


def check_name(where: str, name: Any, expected: str) -> None:
    """Check that a name is text that file systems and lists of names can store.

    Spaces, joiners and marks of every script are allowed; terminal controls, line ends and lone
    surrogates are not.

    Raises:
        ValueError: not text, blank, or with such a character; gives its code point and position.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{where}: {expected}; got {parse.short(name)}")
    for place, character in enumerate(name, 1):
        if unicodedata.category(character) in _REFUSED:
            kind = unicodedata.name(character, _REFUSED[unicodedata.category(character)])
            raise ValueError(
                f"{where}: {expected}; {parse.short(name)} has U+{ord(character):04X} "
                f"({kind}) at character {place}, which no name may have"
            )


def check_captions(
    where: str, id: str, captions: Sequence[Any], sources: Sequence[str] = ()
) -> tuple[str, ...]:
    """Captions without surrounding blanks.

    Raises:
        ValueError: there are none, or one is empty or not text.
    """
    name = parse.line(id, 80)
    if not captions:
        raise ValueError(f"{where}: {name} has no caption; give it one, or take it off the list")
    for number, caption in enumerate(captions, 1):
        if not isinstance(caption, str) or not caption.strip():
            kind = "empty" if isinstance(caption, str) else "not text"
            place = sources[number - 1] if sources else where
            raise ValueError(
                f"{place}: caption {number} of {name} is {kind}: {parse.short(caption)}"
            )
    return tuple(caption.strip() for caption in captions)


def paragraph(texts: Sequence[str]) -> list[str]:
    """All texts of a video as one caption, joined by spaces; no caption if all are empty."""
    joined = " ".join(text.strip() for text in texts if text.strip())
    return [joined] if joined else []


def by_id(label: str, data: bytes) -> Iterator[tuple[str, list[str]]]:
    """The items of a JSON object ``{id: [captions]}``, ids normalised by :func:`same_name`."""
    content = parse.as_kind(label, parse.read_json(label, data), dict, "an object")
    for id, captions in content.items():
        where = f"{label}, {parse.short(id)}"
        yield same_name(id), parse.as_kind(where, captions, list, "a list of captions")
