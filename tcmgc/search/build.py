"""A small index made in one process, without Ray: for a handful of videos."""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from tcmgc import storage
from tcmgc.search import files, folder
from tcmgc.search.encoder import Encoder, identity
from tcmgc.search.files import FileRow
from tcmgc.search.index import Index
from tcmgc.search.manifest import Settings
from tcmgc.search.place import Place
from tcmgc.search.writer import Writer
from tcmgc.video import DecodeError

TIMEOUT = 120.0
"""Seconds that decoding one window may take."""


def stamps(paths: Sequence[str]) -> dict[str, storage.FileStamp]:
    """Size and time of last change of videos, and of all that lie in folders, by absolute path or URI.

    Raises:
        ValueError: a path that leads to nothing, or no video at all.
    """
    found: dict[str, storage.FileStamp] = {}
    for path in paths:
        if not storage.is_uri(path):
            path = os.path.realpath(storage.without_scheme(path))
            if os.path.isdir(path):
                found |= folder.scan(path).stamps
                continue
        elif not folder.is_video(path):
            found |= folder.scan(path).stamps
            continue
        stamp = files.stamp(path)
        if stamp is None:
            raise ValueError(
                f"{storage.plain(path)} is not there; give videos, or folders of videos"
            )
        found[path] = stamp
    if not found:
        raise ValueError(f"no videos in {', '.join(map(storage.plain, paths)) or 'an empty list'}")
    return found


def build(
    out: str,
    videos: Sequence[str],
    checkpoint: Path | str,
    settings: Settings | None = None,
    encoder: Encoder | None = None,
) -> Index:
    """A new index of a few videos.

    Args:
        out: Folder or URI of the index.
        videos: Paths or URIs of videos, or of folders of videos.
        checkpoint: Folder of the model.
        settings: Windows, precision, strips.
        encoder: The checkpoint's model, if it is loaded already.

    Returns:
        The index. What cannot be decoded is warned of by name, and is not in it.

    Raises:
        ValueError: a path that leads to nothing; no video, or none that can be decoded.
    """
    found = stamps(videos)
    settings = settings or Settings()
    encoder = encoder or Encoder.load(checkpoint)
    writer = Writer.create(Place(out), Path(checkpoint), settings)
    for path, stamp in sorted(found.items()):
        writer.put(_add(writer, encoder, path, stamp, settings))
    broken = writer.broken
    if all(row.error for row in writer.files.values()):
        raise ValueError(f"none of {len(broken)} videos can be decoded: {_reason(broken[0])}")
    for row in broken:
        warnings.warn(f"left out: {_reason(row)}", stacklevel=2)
    writer.commit()
    index = Index.open(out)
    index.use(encoder)
    return index


def check_model(index: Index, checkpoint: Path | str) -> None:
    """Make sure that an index was made with a checkpoint's model.

    Raises:
        ValueError: it was made with another; records of two models cannot be compared.
    """
    there, given = index.version.model, identity(checkpoint)
    if there["hash"] != given:
        raise ValueError(
            f"{index.place} was made with another model ({there['name']}, {there['head']}, {there['hash']}) than this one ({given}); "
            "index the videos with this model, or ask the model that made the index"
        )


def _add(
    writer: Writer, encoder: Encoder, path: str, stamp: storage.FileStamp, settings: Settings
) -> FileRow:
    try:
        row = files.look(path, stamp)
    except (DecodeError, OSError) as error:
        reason = error.reason if isinstance(error, DecodeError) else str(error)
        return FileRow(path=path, size=stamp.size, modified=stamp.modified, error=reason)
    if writer.has(row.key):
        return row
    spans = settings.windowing.cut(row.duration)
    kept, frames, lost = encoder.windows(path, spans, TIMEOUT)
    if not kept:
        return dataclasses.replace(row, error=lost[0])
    writer.add(row.key, encoder.rows(row.key, kept, frames, settings))
    note = f"{len(lost)} of {len(spans)} windows: {lost[0]}" if lost else ""
    return dataclasses.replace(row, note=note)


def _reason(row: FileRow) -> str:
    return f"{storage.plain(row.path)}: {row.error or row.note}"
