"""Ray Data's part in indexing: files in, rows of windows out.

Where there are no GPUs, a worker decodes a video and encodes it at once, so that no core waits and
no frame leaves its process. With GPUs, workers decode, and actors with a GPU each encode what comes
from them through the object store.
"""

import collections
import functools
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from pipeline import cli
from pipeline.inputs.stages import KILLED
from pipeline.inputs.survive import map_surviving
from tcmgc import storage
from tcmgc.search import files
from tcmgc.search.encoder import Encoder
from tcmgc.search.files import FileRow
from tcmgc.search.index import model_folder
from tcmgc.search.manifest import Settings
from tcmgc.search.place import Place
from tcmgc.search.segment import Rows
from tcmgc.video import DecodeError, Frames

WINDOWS = 32
"""Windows of a video that are decoded together; a longer one is dealt out to several workers."""
Span = tuple[float, float]


@dataclass(frozen=True)
class Task:
    """A file to look at, or windows of one that was."""

    path: str
    stamp: storage.FileStamp
    row: FileRow | None = None
    """Known once the file was looked at."""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Done:
    """What came of a task."""

    row: FileRow
    rows: Rows | None = None
    """Windows that could be decoded."""
    todo: tuple[Span, ...] = ()
    """Windows that are still to be dealt out."""
    lost: tuple[str, ...] = ()
    """Why windows could not be decoded, a reason each."""
    spans: tuple[Span, ...] = ()
    frames: tuple[Frames, ...] = ()
    """Windows on their way to a GPU."""


@dataclass(frozen=True)
class Job:
    """What every worker needs to know."""

    index: str
    """The index's folder: the model is there."""
    model: str
    """Its hash, so that a worker process never takes another index's."""
    settings: Settings
    timeout: float
    known: Any
    """Keys of contents that are indexed: a sorted array of 16 bytes each, or Ray's reference to one."""
    encode: bool
    """Encode where it is decoded."""


def index_files(
    job: Job,
    found: Sequence[tuple[str, storage.FileStamp]],
    *,
    workers: int,
    encoders: int,
    node: str | None = None,
    on_lost: Callable[[int], None] = lambda count: None,
) -> Iterator[Done]:
    """Every file's row and windows, as they are done.

    A file that kills its worker, alone and more than once, comes with that as its error.

    Args:
        job: what to make.
        found: paths and stamps.
        workers: decoding processes, one CPU each.
        encoders: actors that encode, on a GPU each where there are any; 0 where ``job.encode``.
        node: value of the label ``node-role`` of the nodes to decode on.
        on_lost: told how many tasks are tried again because their process died.
    """
    finish = functools.partial(Finish, job) if encoders else None

    def run(tasks: list[Task]) -> Iterator[tuple[Task, Done | None]]:
        batch = max(1, min(16, len(tasks) // (workers * 4)))
        results = map_surviving(
            functools.partial(process, job),
            tasks,
            workers=workers,
            batch=batch,
            node=node,
            on_lost=on_lost,
            finish=finish,
            finishers=encoders,
        )
        for index, done in results:
            yield tasks[index], done

    parts: list[Task] = []
    for task, done in run([Task(path, stamp) for path, stamp in found]):
        if done is None:
            yield Done(_row(task, error=KILLED))
        elif done.todo:
            cuts = range(0, len(done.todo), WINDOWS)
            parts += [replace(task, row=done.row, spans=done.todo[a : a + WINDOWS]) for a in cuts]
        else:
            yield _judged(done.row, [done])
    if parts:
        yield from _long(parts, run(parts))


def _long(parts: list[Task], results: Iterator[tuple[Task, Done | None]]) -> Iterator[Done]:
    """Long videos, each when all of its parts are there."""
    left = collections.Counter(task.path for task in parts)
    got: dict[str, list[Done]] = {path: [] for path in left}
    for task, done in results:
        assert task.row is not None
        lost = Done(task.row, lost=(KILLED,) * len(task.spans))
        got[task.path].append(done or lost)
        if len(got[task.path]) == left[task.path]:
            yield _judged(task.row, got.pop(task.path))


def _judged(row: FileRow, parts: Sequence[Done]) -> Done:
    """The file's windows in their order, and what could not be read of it in its row."""
    lost = [reason for part in parts for reason in part.lost]
    given = [part.rows for part in parts if part.rows is not None]
    if not given:
        return Done(replace(row, error=row.error or lost[0])) if lost else Done(row)
    rows = Rows.cat(sorted(given, key=lambda rows: rows.tensors["span"][0, 0]))
    note = f"{len(lost)} of {len(lost) + len(rows)} windows: {lost[0]}" if lost else ""
    return Done(replace(row, note=note), rows)


def process(job: Job, task: Task) -> Done:
    """In a worker: look at a file, and decode and encode its windows if they are few."""
    cli.quiet()
    row, spans = task.row, task.spans
    if row is None:
        try:
            row = files.look(task.path, task.stamp)
        except (DecodeError, OSError) as error:
            reason = error.reason if isinstance(error, DecodeError) else str(error)
            return Done(_row(task, error=reason))
        if _is_known(job, row.key):
            return Done(row)
        spans = job.settings.windowing.cut(row.duration)
        if len(spans) > WINDOWS:
            return Done(row, todo=spans)
    encoder = _encoder(job.index, job.model, "cpu")
    kept, frames, lost = encoder.windows(row.path, spans, job.timeout)
    done = Done(row, lost=tuple(lost), spans=tuple(kept), frames=tuple(frames))
    return _encoded(encoder, done, job.settings) if job.encode else done


class Finish:
    """An actor that encodes what others decoded, on its GPU."""

    def __init__(self, job: Job) -> None:
        cli.quiet()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.encoder = _encoder(job.index, job.model, device)
        self.settings = job.settings

    def __call__(self, done: Done) -> Done:
        """The same with rows instead of frames."""
        return _encoded(self.encoder, done, self.settings)


def _encoded(encoder: Encoder, done: Done, settings: Settings) -> Done:
    if not done.frames:
        return replace(done, spans=())
    rows = encoder.rows(done.row.key, done.spans, done.frames, settings)
    return replace(done, rows=rows, spans=(), frames=())


def _row(task: Task, **values: Any) -> FileRow:
    if task.row is not None:
        return replace(task.row, **values)
    return FileRow(path=task.path, size=task.stamp.size, modified=task.stamp.modified, **values)


def sorted_keys(keys: Sequence[bytes]) -> np.ndarray:
    """Keys as :func:`process` looks them up."""
    return np.sort(np.array(list(keys), dtype=f"S{files.KEY_BYTES}"))


def _is_known(job: Job, key: bytes) -> bool:
    known = job.known if isinstance(job.known, np.ndarray) else _fetched(job.known)
    wanted = np.array([key], dtype=known.dtype)
    at = np.searchsorted(known, wanted)[0]
    return bool(at < len(known) and known[at] == wanted[0])


@functools.lru_cache(maxsize=1)
def _fetched(reference: Any) -> np.ndarray:
    return ray.get(reference)


@functools.lru_cache(maxsize=1)
def _encoder(index: str, model: str, device: str) -> Encoder:
    """The index's model, once a process."""
    place = Place(index)
    if not place.remote and not Path(place.folder).is_dir():
        raise ValueError(
            f"{index} is not there on {socket.gethostname()}, where a worker runs; with several nodes, --out "
            "must be on a file system that all of them mount, or a URI such as s3://bucket/videos.index"
        )
    logging.getLogger().setLevel(logging.ERROR)
    return Encoder.load(model_folder(place), device)
