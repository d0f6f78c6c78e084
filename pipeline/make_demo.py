"""Draw the demo corpus: small real videos in MSR-VTT's layout, in about half a minute."""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

from pipeline import cli
from tcmgc.datasets import demo_corpus


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    root: str = "data/demo"
    """Folder to create; an existing corpus with the same settings is kept."""
    videos: int = 1200
    """Videos in all."""
    test: int = 200
    """Number of videos in the test split."""
    seed: int = 0
    """Seed of scenes, words and noise."""
    shuffle_captions: bool = False
    """Permute the training videos' captions: the negative control."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    arguments = cli.parse(
        Arguments, argv, "python pipeline/make_demo.py", str(__doc__), default_recipe=None
    )
    root = demo_corpus.make(
        cli.resolve(arguments.root),
        arguments.videos,
        arguments.test,
        arguments.seed,
        arguments.shuffle_captions,
        progress=show,
    )
    train = arguments.videos - arguments.test
    print(f"{train} training and {arguments.test} test videos are in {root}")
    return 0


def show(done: int, total: int) -> None:
    """Print one line to stderr, rewritten on a terminal; otherwise every tenth only."""
    terminal = sys.stderr.isatty()
    if terminal or done * 10 // total != (done - 1) * 10 // total:
        end = "\r" if terminal and done < total else "\n"
        print(f"drawing {done} of {total} videos", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main)
