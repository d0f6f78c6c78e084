"""Search an index of videos: a sentence finds the moment."""

import contextlib
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import tyro

from pipeline import cli
from pipeline.serving import answers
from tcmgc import storage
from tcmgc.search import Filters, Index, Like, like_file
from tcmgc.video import DecodeError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    index: Annotated[str | None, tyro.conf.Positional] = None
    """Folder or URI of the index."""
    text: Annotated[str | None, tyro.conf.Positional] = None
    """What should be seen; may be left out with --like or --queries."""
    top: int = 10
    """Videos shown."""
    like: str | None = None
    """A video, indexed or not, that results should look like."""
    without: str | None = None
    """What should not be seen; --not for short."""
    folder: str | None = None
    """Only videos in this folder or below it."""
    longer_than: float | None = None
    """Only videos of more seconds."""
    shorter_than: float | None = None
    """Only videos of fewer seconds."""
    after: str | None = None
    """Only files changed on this day (YYYY-MM-DD) or later."""
    before: str | None = None
    """Only files changed before this day."""
    exact: bool | None = None
    """Score every window exactly; None does so in indexes of up to 10,000 windows."""
    candidates: int | None = None
    """Windows scored exactly in larger ones: more find more and take longer; None: 2000."""
    json: bool = False
    """Print JSON and nothing else on standard output."""
    csv: str | None = None
    """File to write the results to as well."""
    queries: str | None = None
    """File with a query a line: all are asked over the cluster, every window scored exactly."""
    evaluate: str | None = None
    """Recipe whose captions are asked, to measure retrieval among the videos of its split."""
    split: str = "test"
    """Split for --evaluate."""
    root: str | None = None
    """Folder of the recipe's data, where it is not where the recipe has it."""
    workers: int = 0
    """Processes for --queries and --evaluate, one CPU each; 0 takes all of the cluster."""


def main(argv: list[str] | None = None) -> int:
    """The command: 0 when something was found, 1 when no video passes the filters."""
    words = [
        "--without" + word.removeprefix("--not") if word.partition("=")[0] == "--not" else word
        for word in (sys.argv[1:] if argv is None else argv)
    ]
    arguments = cli.parse(
        Arguments, words, "python pipeline/search.py", str(__doc__), default_recipe=None
    )
    if arguments.index is None:
        raise ValueError("give the index, a folder or URI, and what should be seen")
    # What Ray and its workers say goes to standard error, whenever it comes: standard output holds
    # answers alone.
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        return _run(arguments, arguments.index, out)


def _run(arguments: Arguments, place: str, out: TextIO) -> int:
    index = Index.open(cli.resolve(place))
    for problem in index.problems:
        print(f"damaged: {problem}", file=sys.stderr)
    if not len(index):
        raise ValueError(f"{index.place} holds no videos")
    if arguments.evaluate is not None:
        return _evaluate(arguments, index, out)
    if arguments.queries is not None:
        return _ask_all(arguments, index, out)
    found = index.search(
        arguments.text,
        arguments.top,
        like=None if arguments.like is None else _like(index, cli.resolve(arguments.like)),
        without=arguments.without,
        filters=filters(arguments),
        exact=arguments.exact,
        candidates=arguments.candidates,
    )
    if arguments.csv:
        answers.write_csv(cli.resolve(arguments.csv), found)
    if arguments.json:
        print(json.dumps(answers.to_json(found[0])), file=out)
    else:
        print(answers.table(found[0], shutil.get_terminal_size().columns), file=out)
    return 0 if found[0].matches else 1


def _ask_all(arguments: Arguments, index: Index, out: TextIO) -> int:
    """Answer every line of a file; one JSON object a line, or a table each."""
    from pipeline.cluster import placement as cluster
    from pipeline.serving.many import search_many

    place = Path(cli.resolve(str(arguments.queries)))
    if arguments.text is not None or arguments.like is not None or arguments.without is not None:
        raise ValueError(
            "--queries takes its queries from the file; leave the text, --like and --not out"
        )
    texts = [line for line in place.read_text().splitlines() if line.strip()]
    cluster.connect()
    found = list(
        search_many(
            index, texts, arguments.top, filters=filters(arguments), workers=arguments.workers
        )
    )
    for answer in found:
        if arguments.json:
            print(json.dumps(answers.to_json(answer)), file=out)
        elif not arguments.csv:
            print(f"\n{answer.query}", file=out)
            print(answers.table(answer, shutil.get_terminal_size().columns), file=out)
    if arguments.csv:
        answers.write_csv(cli.resolve(arguments.csv), found)
    return 0


def _evaluate(arguments: Arguments, index: Index, out: TextIO) -> int:
    """Retrieval metrics of a split from the index's records."""
    import numpy as np

    from pipeline.cluster import placement as cluster
    from pipeline.inputs import prepare
    from pipeline.serving.many import similarity
    from tcmgc import recipes
    from tcmgc.config import replace
    from tcmgc.retrieval.metrics import format_table, retrieval_metrics

    config = recipes.recipe(str(arguments.evaluate))
    if arguments.root is not None:
        config = replace(config, {"data.root": arguments.root})
    corpus = prepare.splits(config)
    if arguments.split not in corpus:
        raise ValueError(
            f"--split {arguments.split}: {config.data.dataset} has {', '.join(corpus)}"
        )
    split = corpus[arguments.split]
    captions = [caption for _, caption in split.pairs()]
    owners = np.repeat(np.arange(len(split)), [len(clip.captions) for clip in split.clips])
    cluster.connect()
    scores = similarity(index, captions, split, workers=arguments.workers)
    metrics = retrieval_metrics(scores, owners)
    print(json.dumps(metrics) if arguments.json else format_table(metrics), file=out)
    return 0


def filters(arguments: Arguments) -> Filters:
    """What the command line says of which videos may be found.

    Raises:
        ValueError: a date that is none.
    """
    folder = arguments.folder
    if folder is not None:
        folder = cli.resolve(folder)
        folder = folder if storage.is_uri(folder) else os.path.realpath(folder)
    return Filters(
        folder=folder,
        longer_than=arguments.longer_than,
        shorter_than=arguments.shorter_than,
        after=_day("--after", arguments.after),
        before=_day("--before", arguments.before),
    )


def _day(name: str, given: str | None) -> float | None:
    if given is None:
        return None
    try:
        return time.mktime(time.strptime(given, "%Y-%m-%d"))
    except ValueError:
        raise ValueError(f"{name} is a day as 2026-01-31; got {given!r}") from None


def _like(index: Index, path: str) -> Like:
    path = path if storage.is_uri(path) else os.path.realpath(path)
    try:
        return like_file(index, path)
    except DecodeError as error:
        raise ValueError(f"--like: {error}") from error


if __name__ == "__main__":
    cli.run(main)
