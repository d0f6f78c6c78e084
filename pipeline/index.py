"""Make a search index of a folder of videos, or update one.

Only new and changed files are read; moved ones are recognised by their content, and deleted files
are removed. To continue a killed run, run the same command again."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import ray
import tyro

from pipeline import cli
from pipeline.cluster import placement as cluster
from pipeline.inputs import indexing
from pipeline.run_state import checkpoints, lock
from tcmgc import storage
from tcmgc.config import IndexSettings, Pooling, Towers
from tcmgc.search import Index, Writer, calibration, check, folder, manifest
from tcmgc.search.encoder import identity
from tcmgc.search.place import Place
from tcmgc.search.writer import SEGMENT
from tcmgc.search.zero_shot import make

COMMIT = 60.0
"""Approximate seconds of work that a killed run may lose."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    folder: Annotated[str | None, tyro.conf.Positional] = None
    """Folder or URI with videos, at any depth; not needed with --check."""
    out: str | None = None
    """The index: a folder or URI, created if it does not exist."""
    checkpoint: str | None = None
    """Checkpoint to index with, or a run, whose best one is used; None: the index's own, or bare towers."""
    towers: Towers = field(default_factory=lambda: Towers(freeze="all"))
    """Bare towers for a new index without a checkpoint."""
    pooling: Pooling = "mean"
    """How bare towers score: the sentence with the `mean` of frames, or `mean-max`: each word with its best frame."""
    settings: IndexSettings = field(default_factory=IndexSettings)
    """Windows, precision, strips: fixed when an index is created."""
    workers: int = 0
    """Decoding processes; 0 takes all CPUs of the cluster."""
    gpus: int = -1
    """GPUs that encode; -1 uses all of the cluster; 0 encodes on the CPUs that decode."""
    timeout: float = 120.0
    """Seconds that decoding one window may take."""
    retry: bool = False
    """Try files again that could not be decoded before, though they have not changed."""
    allow_empty: bool = False
    """Remove an indexed folder's videos even if it no longer contains any."""
    check: bool = False
    """Check every file of the index against its checksum, and measure what candidates miss."""


def main(argv: list[str] | None = None) -> int:
    """The command: 0 if every video is indexed, 1 if some cannot be decoded or files are damaged."""
    arguments = cli.parse(
        Arguments, argv, "python pipeline/index.py", str(__doc__), default_recipe=None
    )
    if arguments.out is None:
        raise ValueError("give --out, the folder or URI of the index")
    out = cli.resolve(arguments.out)
    if arguments.folder is None:
        if not arguments.check:
            raise ValueError("give the folder that holds the videos, or --check True")
        return report(out)
    found = folder.scan(cli.resolve(arguments.folder))
    code = update(arguments, out, found)
    return max(code, report(out)) if arguments.check else code


def update(arguments: Arguments, out: str, found: folder.Found) -> int:
    """Update the index with the files found; 1 if some videos cannot be decoded.

    Raises:
        ValueError: a folder without videos, an index of another model, or one that is being written.
    """
    place = Place(out)
    is_new = place.read(manifest.NAME) is None
    if not found.stamps and (is_new or not arguments.allow_empty):
        kinds = " ".join(sorted(folder.SUFFIXES))
        more = "" if is_new else "; --allow-empty True takes its videos out of the index"
        raise ValueError(
            f"{storage.plain(found.root)} holds no videos (files that end in {kinds}){more}"
        )
    with lock.held(out):
        writer = _writer(arguments, place, is_new)
        for problem in writer.damaged:
            print(f"damaged:     {problem}; what it held is indexed again")
        writer.note_root(found.root)
        gone = _gone(writer, found)
        todo = [
            (path, stamp)
            for path, stamp in sorted(found.stamps.items())
            if not writer.current(path, stamp)
            or (arguments.retry and (writer.files[path].error or writer.files[path].note))
        ]
        print(
            f"videos:      {len(found.stamps)} in {storage.plain(found.root)}: "
            f"{len(found.stamps) - len(todo)} as they were, {len(todo)} new or changed, {len(gone)} gone"
        )
        if found.links:
            print(f"             {found.links} links not followed; index what they lead to")
        for path, reason in found.unreadable.items():
            print(f"             {path} cannot be listed: {reason}; what is known of it stays")
        if todo:
            cluster.connect()
            _index(arguments, writer, todo)
        for path in gone:
            writer.forget(path)
        writer.commit()
        _finish(writer)
    return _say(writer, out)


def _index(arguments: Arguments, writer: Writer, todo: list[tuple[str, storage.FileStamp]]) -> None:
    """Decode and encode files, committing as it goes."""
    resources = ray.cluster_resources()
    workers = arguments.workers or int(resources.get("CPU", 1))
    there = int(resources.get("GPU", 0))
    encoders = there if arguments.gpus < 0 else arguments.gpus
    if encoders > there:
        raise ValueError(f"--gpus {encoders}: the cluster has {there}")
    begun = said = saved = time.monotonic()
    count = failed = 0
    size = max(64, min(4096, workers * 64))
    for start in range(0, len(todo), size):
        known = {key for row in writer.files.values() if writer.has(key := row.key)}
        job = indexing.Job(
            index=writer.place.folder,
            model=writer.version.model["hash"],
            settings=writer.version.settings,
            timeout=arguments.timeout,
            known=ray.put(indexing.sorted_keys(sorted(known))),
            encode=not encoders,
        )
        results = indexing.index_files(
            job, todo[start : start + size], workers=min(workers, size), encoders=encoders
        )
        for done in results:
            if done.rows is not None:
                writer.add(done.row.key, done.rows)
            writer.put(done.row)
            count += 1
            failed += bool(done.row.error)
            now = time.monotonic()
            if now - saved > COMMIT or writer.waiting >= SEGMENT:
                writer.commit()
                saved = time.monotonic()
            if now - said > 5 or count == len(todo):
                said = now
                print(
                    f"  {count} of {len(todo)} files, {count / (now - begun):.1f} a second, {failed} unreadable",
                    flush=True,
                )


def _writer(arguments: Arguments, place: Place, is_new: bool) -> Writer:
    if not is_new:
        writer = Writer.open(place)
        if arguments.checkpoint is not None:
            with checkpoints.local(checkpoints.chosen(cli.resolve(arguments.checkpoint))) as chosen:
                _refuse_other(
                    place, writer, identity(chosen), f"--checkpoint {arguments.checkpoint}"
                )
        elif arguments.towers != Arguments().towers or arguments.pooling != "mean":
            with _bare(arguments) as chosen:
                _refuse_other(
                    place, writer, identity(chosen), f"--towers.name {arguments.towers.name}"
                )
        _refuse_settings(place, writer, arguments.settings)
        return writer
    if arguments.checkpoint is not None:
        with checkpoints.local(checkpoints.chosen(cli.resolve(arguments.checkpoint))) as chosen:
            return Writer.create(place, Path(chosen), arguments.settings)
    with _bare(arguments) as chosen:
        return Writer.create(place, Path(chosen), arguments.settings)


@contextmanager
def _bare(arguments: Arguments) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as aside:
        make(arguments.towers, arguments.pooling, aside)
        yield aside


def _refuse_other(place: Place, writer: Writer, given: str, what: str) -> None:
    model = writer.version.model
    if given != model["hash"]:
        raise ValueError(
            f"{place} was made with another model ({model['name']}, {model['head']}, {model['hash']}) than {what} "
            f"({given}); records of two models cannot be compared: choose another --out for it"
        )


def _refuse_settings(place: Place, writer: Writer, given: IndexSettings) -> None:
    there = writer.version.settings
    if given not in (there, IndexSettings()):
        raise ValueError(
            f"{place} was made with {there}; --settings cannot be changed afterwards: "
            "leave them out, or choose another --out"
        )


def _gone(writer: Writer, found: folder.Found) -> list[str]:
    """Indexed files below the folder that no longer exist; other folders are not checked."""
    return [
        path
        for path in writer.files
        if folder.below(path, found.root)
        and path not in found.stamps
        and not any(folder.below(path, closed) for closed in found.unreadable)
    ]


def _finish(writer: Writer) -> None:
    """Write the files that a search of the complete index needs in addition to its rows."""
    writer.compact()
    writer.encode()
    index = Index.open(writer.place.folder)
    known = index.calibration
    if len(index) and (known is None or known.stale(len(index))):
        print("calibrating the scores with everyday queries")
        found = calibration.calibrate(index)
        if found is not None:
            writer.calibrate(found.to_dict())
    writer.write_broken()


def _say(writer: Writer, out: str) -> int:
    version = writer.version
    windows = sum(part.rows for part in version.segments)
    size = sum(part.bytes for part in version.segments)
    usable = sum(not row.error for row in writer.files.values())
    each = f", {size / windows / 1024:.1f} KiB a window" if windows else ""
    print(f"index:       {storage.plain(out)}")
    print(
        f"             {usable} videos, {windows} windows{each}; {version.model['name']}, {version.model['head']}"
    )
    broken = writer.broken
    if broken:
        print(
            f"unreadable:  {len(broken)} files, wholly or in part: {storage.plain(out)}/broken.tsv"
        )
    return 1 if broken else 0


def report(out: str) -> int:
    """Check the index's files, and print how much of the exact result the candidates contain."""
    index = Index.open(out)
    problems = check.damage(index)
    for problem in problems:
        print(f"damaged:     {problem}")
    if not problems:
        print(f"files:       all {len(index.version.segments)} segments are what was written")
    if len(index) > check.TOP:
        results, each = check.recall(index)
        print(f"exact:       {len(index)} windows, {each * 1e3:.0f} ms a query of 64 together")
        for one in results:
            print(
                f"candidates:  {one.candidates}: recall@{check.TOP} {one.recall:.4f}, {one.seconds * 1e3:.0f} ms a query"
            )
        if not results:
            print("candidates:  so few windows are all scored exactly")
    return 1 if problems else 0


if __name__ == "__main__":
    cli.run(main)
