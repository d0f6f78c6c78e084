"""Draw the demo corpus: small real videos in MSR-VTT's layout, in about half a minute."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro

from tcmgc import demo


def main(
    root: str = "data/demo",
    videos: int = 1200,
    test: int = 200,
    seed: int = 0,
    shuffle_captions: bool = False,
) -> None:
    """Draw the demo corpus; one that is there already, from the same settings, is left as it is.

    Args:
        root: Folder to make; its parent need not be there.
        videos: Videos in all.
        test: How many of them form the test split.
        seed: Decides scenes, words and noise.
        shuffle_captions: Permute the training videos' captions: the negative control.
    """
    try:
        path = demo.make(root, videos, test, seed, shuffle_captions, progress=show)
    except ValueError as error:
        sys.exit(f"make_demo: {error}")
    print(f"{videos - test} training and {test} test videos are in {path}")


def show(done: int, total: int) -> None:
    """One line on stderr, rewritten on a terminal, every tenth elsewhere."""
    if sys.stderr.isatty() or done * 10 // total != (done - 1) * 10 // total:
        end = "\r" if sys.stderr.isatty() and done < total else "\n"
        print(f"drawing {done} of {total} videos", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
