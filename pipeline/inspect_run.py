"""Inspect a checkpoint: what it retrieves, what it attends to, how it weights its scores."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import numpy as np
import torch

from pipeline import cli, tracking
from pipeline.cluster import placement as cluster
from pipeline.inputs import prepare
from pipeline.interface import describe
from pipeline.run_state import checkpoints
from tcmgc import model, storage
from tcmgc.config import Config
from tcmgc.datasets import Split
from tcmgc.frames.cache import FrameReader
from tcmgc.reports.pages import measures, page, pairs
from tcmgc.reports.pages.subject import Subject
from tcmgc.retrieval.evaluation import VIDEOS, batches_of, encode_texts, encode_videos
from tcmgc.towers import backbone
from tcmgc.training import checkpoint

SMALL_VIDEOS = 48
"""Number of videos on the page that training writes at its end."""
ARTIFACTS = "inspection"
"""The pages' folder among a run's artifacts."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    checkpoint: str
    """Folder of a checkpoint, or of a run, whose best one by validation score is used."""
    split: Literal["val", "test"] = "val"
    """Split to inspect. What you learn from the test split must not decide anything."""
    against: str | None = None
    """Another checkpoint, to compare similarities with: the same training without SDR."""
    pairs: int = 6
    """Number of queries of each kind: found, not found, attention."""
    seed: int = 0
    """Seed for drawing pairs."""
    out: str | None = None
    """File to write; None: next to the checkpoint."""
    root: str | None = None
    """Folder of the data, if it is not the one of training."""
    cache: str | None = None
    """Folder of the frame cache, if it is not the one of training."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    arguments = cli.parse(
        Arguments, argv, "python pipeline/inspect_run.py", str(__doc__), default_recipe=None
    )
    if arguments.pairs < 1:
        raise ValueError(f"--pairs must be at least 1; got {arguments.pairs}")
    folder = checkpoints.chosen(cli.resolve(arguments.checkpoint))
    name = Path(storage.plain(folder)).name
    # Next to the checkpoint, or in a folder of reports if the checkpoint is on a URI.
    beside = f"reports/{name}" if storage.is_uri(folder) else folder
    out = arguments.out or f"{beside}-{arguments.split}.html"
    cli.refuse_output("--out", out)
    with contextlib.ExitStack() as stack:
        return _inspect(arguments, folder, out, stack)


def _inspect(arguments: Arguments, shown: str, out: str, stack: contextlib.ExitStack) -> int:
    """Make the page.

    Args:
        arguments: Of the command line.
        shown: The checkpoint's name for the user.
        out: Path or URI of the page.
        stack: Owns local copies of checkpoints on URIs.
    """
    folder = stack.enter_context(checkpoints.local(shown))
    # Problems with the checkpoint are found here, before anything is decoded.
    config, retriever = checkpoint.load(folder)
    config = _moved(config, arguments)
    split = _split(config, arguments.split)
    split, reader = _readable(config, split, arguments.split)
    subject = look(config, retriever, split, reader)
    other = None
    if arguments.against is not None:
        named = checkpoints.chosen(cli.resolve(arguments.against))
        against = stack.enter_context(checkpoints.local(named))
        other = _other(config, against, split, arguments)
        subject = replace(subject, name=f"checkpoint, {subject.name}")
    parts = [
        *pairs.retrieval(subject, reader, arguments.pairs, arguments.seed),
        pairs.attention(subject, reader, arguments.pairs, arguments.seed),
        measures.similarities(subject, other),
        measures.aggregation(subject),
        measures.clouds(subject, arguments.seed),
    ]
    facts = _facts(config, folder, split, arguments.split) | {"checkpoint": storage.plain(shown)}
    if arguments.against is not None:
        facts["compared with"] = storage.plain(named)
    run_id = tracking.find(shown)
    with cli.output(out) as place:
        page.write(page.page(f"Inside {_title(storage.plain(shown))}", facts, parts), place)
        if run_id is not None:
            tracking.attach(run_id, place, ARTIFACTS)
    print(f"page:        {cli.resolve(out)}")
    if run_id is None:
        where = f"no run at {tracking.shown()} has made {shown}; the page is not logged"
    else:
        where = f"{tracking.look()}, run {run_id}, {ARTIFACTS}/{place.name}"
    print(f"MLflow:      {where}")
    return 0


def small_page(
    config: Config, folder: str, split: Split, out: Path, *, shown: str | None = None
) -> Path:
    """Write the page at the end of training: a few pairs of the validation split, in seconds.

    Args:
        config: The run's.
        folder: The checkpoint.
        split: Videos whose frames are in the cache; 48 of them are looked at.
        out: File to write.
        shown: The checkpoint's original location, if ``folder`` is a copy of it.
    """
    places = np.random.default_rng(0).permutation(len(split))[:SMALL_VIDEOS]
    few = replace(split, clips=tuple(split.clips[place] for place in np.sort(places)))
    reader = prepare.frame_cache(config).open(few.clips)
    subject = look(config, checkpoint.load(folder)[1], few, reader)
    parts = [
        *pairs.retrieval(subject, reader, 3, 0),
        pairs.attention(subject, reader, 2, 0),
        measures.similarities(subject, None),
        measures.aggregation(subject),
    ]
    facts = _facts(config, folder, few, "val")
    facts["note"] = (
        f"a small page, over {len(few)} of {len(split)} validation videos drawn at random; the whole: "
        f"{cli.command('inspect_run.py', '--checkpoint', shown or folder)}"
    )
    return page.write(page.page(f"A look into {_title(folder)}", facts, parts), out)


def look(config: Config, retriever: model.Retriever, split: Split, reader: FrameReader) -> Subject:
    """Encode a split with a checkpoint's model, in this process, on its GPU if it has one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    retriever = retriever.to(device).eval()
    captions = [caption for _, caption in split.pairs()]
    words = config.data.max_words
    text = encode_texts(
        retriever, captions, backbone.tokenizer(config.towers.name, words), device=device
    )
    video = encode_videos(retriever, _batches(reader, split, device), len(split))
    alpha = config.loss.alpha
    return Subject(
        name=f"with SDR (α = {alpha:g})" if alpha else "without SDR (α = 0)",
        head=retriever.head,
        scale=retriever.scale().item(),
        clips=split.clips,
        captions=captions,
        owner=np.repeat(np.arange(len(split)), [len(clip.captions) for clip in split.clips]),
        spell=backbone.spelling(config.towers.name, words),
        words=words,
        text=text,
        video=video,
    )


def _batches(
    reader: FrameReader, split: Split, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for batch in batches_of(len(split), VIDEOS):
        pixels, mask = reader.read(split.clips[batch])
        yield torch.from_numpy(pixels).to(device), torch.from_numpy(mask).to(device)


def _moved(config: Config, arguments: Arguments) -> Config:
    data = replace(
        config.data,
        root=arguments.root or config.data.root,
        cache=arguments.cache or config.data.cache,
    )
    return cli.placed(replace(config, data=data))


def _split(config: Config, name: str) -> Split:
    found = prepare.splits(config)
    if name not in found or not len(found[name]):
        raise ValueError(f"--split {name}: {config.data.dataset} has {', '.join(found)}")
    return found[name]


def _readable(config: Config, split: Split, name: str) -> tuple[Split, FrameReader]:
    """The split without its unreadable videos, and the frames of the others."""
    cache = prepare.frame_cache(config)
    if cache.missing(split.clips):
        cluster.connect()
        prepare.fill(config, split.clips, name)
    reader = cache.open(split.clips)
    failures = [clip.id for clip in split.clips if clip.id in reader.failures]
    if lost := len(failures) + len(split.missing):
        whole = len(split) + len(split.missing)
        print(f"{lost} of {whole} videos are missing or unreadable and are left out")
    if len(failures) == len(split):
        raise ValueError(
            f"no video of the {name} split can be read; `pipeline/check_data.py` lists what is wrong"
        )
    return split.without(failures), reader


def _other(config: Config, folder: str, split: Split, arguments: Arguments) -> Subject:
    """The checkpoint to compare with, on the same clips.

    Raises:
        ValueError: it was trained on other data, or has one score.
    """
    other, retriever = checkpoint.load(folder)
    other = _moved(other, arguments)
    if other.data.dataset != config.data.dataset:
        raise ValueError(
            f"--against {folder} was trained on {other.data.dataset}, --checkpoint on "
            f"{config.data.dataset}; compare trainings on the same data"
        )
    same, reader = _readable(other, split, arguments.split)
    subject = look(other, retriever, same, reader)
    if len(subject.head.grains) == 1:
        raise ValueError(
            f"--against {folder} has one score (its head is {type(subject.head).__name__}), and "
            "similarities of several contrasts are what is compared; leave --against out"
        )
    return replace(subject, name=f"compared, {subject.name}")


def _facts(config: Config, folder: str, split: Split, name: str) -> dict[str, str]:
    training = checkpoint.read_training(folder)
    captions = sum(len(clip.captions) for clip in split.clips)
    return {
        "checkpoint": folder,
        "data": f"{config.data.dataset}, {name} split: {len(split)} videos, {captions} captions",
        "model": f"{describe.method(config)}, towers {config.towers.name}",
        "training": f"step {training['step']}, α = {config.loss.alpha:g}, seed {config.train.seed}",
    }


def _title(folder: str) -> str:
    return "/".join(Path(folder).parts[-2:])


if __name__ == "__main__":
    cli.run(main)
