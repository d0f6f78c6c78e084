"""Cost of computing a batch in pieces for a training step, compared with the same step at once.

    python benchmarks/pieces.py [--cores 1 2] [--json FILE]

The demo's model and batch, synthetic pixels, one process. All variants take turns, step by step; a
ratio is the median of each step's time over that of the adjacent step at once. `threads` is how
`pipeline/train.py` runs pieces on a CPU: in parallel, each with its share of the cores.
"""

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tcmgc import model, recipes
from tcmgc.config import Config
from tcmgc.retrieval.costs import made_up
from tcmgc.training import memory, optim
from tcmgc.training.step import How, backward
from tcmgc.training.threads import ONE, Threads


def stepper(settings: Config) -> Callable[[int, Threads], float]:
    """A function that runs a step in a given number of pieces and returns its seconds."""
    retriever = model.build(settings).train()
    optimiser = model.build_optimiser(settings, retriever)
    objective, batch = model.build_objective(settings), made_up(settings)

    def step(pieces: int, threads: Threads) -> float:
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        backward(retriever, batch, len(batch), objective, How(0, pieces, threads))
        optim.clip_gradients(retriever, settings.optim.clip_norm)
        optimiser.step()
        return time.perf_counter() - start

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--pieces", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # weights are random on purpose
    memory.keep_freed_memory()
    step, rows = stepper(recipes.demo()), []
    print(f"{'cores':>5}{'pieces':>8}{'':>14}{'ms':>8}{'of the step at once':>22}")
    for cores in arguments.cores:
        ways = [(0, 1), *[(pieces, 1) for pieces in arguments.pieces]]
        ways += [(pieces, min(pieces, cores)) for pieces in arguments.pieces if cores > 1]
        found: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
        threads = {count: Threads(count) if count > 1 else ONE for _, count in ways}
        for turn in range(arguments.steps + 3):
            for pieces, count in ways:
                torch.set_num_threads(cores // count)
                seconds = step(pieces, threads[count])
                if turn >= 3:  # the first steps warm up
                    found[pieces, count].append(seconds)
        for (pieces, count), seconds in found.items():
            pairs = zip(seconds, found[0, 1], strict=True)
            ratio = statistics.median(one / whole for one, whole in pairs)
            row = {"cores": cores, "pieces": pieces, "threads": count}
            rows.append({**row, "seconds": statistics.median(seconds), "ratio": ratio})
            how = "" if pieces == 0 else "in turn" if count == 1 else f"{count} threads"
            ms = 1000 * statistics.median(seconds)
            print(f"{cores:5}{pieces or 'none':>8}{how:>14}{ms:8.0f}{ratio:22.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
