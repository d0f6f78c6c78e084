"""From what an annotation lists to checked splits: ids, captions, files."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tcmgc.datasets import parse
from tcmgc.datasets.files import Videos
from tcmgc.datasets.rows import Clip, Corpus, Split


@dataclass(frozen=True, slots=True)
class Listed:
    """A video that an annotation lists."""

    where: str
    """File and line or key, for messages."""
    id: str
    captions: Sequence[Any]
    names: tuple[str, ...] = ()
    """Names that its file may have, the likeliest first; empty: its id."""
    end: float | None = None


def split(
    listed: Iterable[Listed],
    videos: Videos,
    expected_videos: int | None = None,
    expected_captions: int | None = None,
) -> Split:
    """Check what is listed and find its files; what has no file is counted as missing.

    Raises:
        ValueError: an id that is no name or is there twice, a caption that is empty or not
            text, a video without one, two files for a video, a link that leads out.
    """
    clips, missing, seen = [], [], dict[str, str]()
    for item in listed:
        check_id(item.where, item.id)
        if item.id in seen:
            raise ValueError(
                f"{item.where}: the id {item.id!r} is there twice, first in {seen[item.id]}"
            )
        seen[item.id] = item.where
        captions = check_captions(item.where, item.id, item.captions)
        path = videos.find(*item.names or (item.id,))
        if path is None:
            missing.append(item.id)
        else:
            clips.append(Clip(item.id, path, captions, end=item.end))
    return Split(tuple(clips), tuple(missing), expected_videos, expected_captions)


def corpus(root: str, splits: Corpus) -> Corpus:
    """The splits, once it is sure that they share no id and that there is a video at all.

    Raises:
        ValueError: they do, or there is none.
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
            f"{len(shared)} ids are in two splits, which must not share a video: {id!r} is in "
            f"{first} and in {second}; take them off one of the lists"
        )
    if not any(len(one) for one in splits.values()):
        names = [id for one in splits.values() for id in one.missing]
        raise ValueError(
            f"no video of the {len(names)} that are listed was found below {root} "
            f"(looked for {', '.join(names[:3])}{', …' if len(names) > 3 else ''}); put the files, or a link "
            "to their folder, into its folder videos/"
            if names
            else f"the annotations in {root} list no video"
        )
    return splits


def check_id(where: str, id: Any) -> None:
    """Ids name files: they are one part of a path.

    Raises:
        ValueError: anything that is not.
    """
    if not isinstance(id, str) or not id.strip() or not id.isprintable():
        raise ValueError(f"{where}: expected a video id, printable text; got {id!r}")
    if "/" in id or "\\" in id or id in (".", ".."):
        raise ValueError(
            f"{where}: the id {id!r} has a path separator in it; an id is a name, never a path, "
            "so that no file outside the data root is read"
        )


def check_captions(where: str, id: str, captions: Sequence[Any]) -> tuple[str, ...]:
    """Captions without the blanks around them.

    Raises:
        ValueError: none, or one that is empty or not text.
    """
    if not captions:
        raise ValueError(f"{where}: {id} has no caption; give it one, or take it off the list")
    for number, caption in enumerate(captions, 1):
        if not isinstance(caption, str) or not caption.strip():
            kind = "empty" if isinstance(caption, str) else "not text"
            raise ValueError(f"{where}: caption {number} of {id} is {kind}: {caption!r}")
    return tuple(caption.strip() for caption in captions)


def paragraph(texts: Sequence[str]) -> list[str]:
    """All texts of a video as one caption, joined with a space; no caption where all are empty."""
    joined = " ".join(text.strip() for text in texts if text.strip())
    return [joined] if joined else []


def by_id(label: str, data: bytes) -> Iterator[tuple[str, list[str]]]:
    """The items of a JSON object ``{id: [captions]}``."""
    content = parse.as_kind(label, parse.read_json(label, data), dict, "an object")
    for id, captions in content.items():
        yield id, parse.as_kind(f"{label}, {id!r}", captions, list, "a list of captions")
