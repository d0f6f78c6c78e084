"""The share of a step's time that its spans cover, and the cost of the spans.

    python benchmarks/spans.py [--steps 20] [--json FILE]

The demo's model and batch, synthetic pixels, one process. The cost is the time of as many empty spans as
a step has, without recording, over the step's time.
"""

import argparse
import json
import logging
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tcmgc import model, recipes
from tcmgc.retrieval.costs import made_up
from tcmgc.training import memory, optim
from tcmgc.training.spans import OTHER, STEP, Recording, format_parts, span
from tcmgc.training.step import How, backward
from tcmgc.training.threads import Threads


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # weights are random on purpose
    memory.keep_freed_memory()
    settings = recipes.demo()
    retriever = model.build(settings).train()
    optimiser = model.build_optimiser(settings, retriever)
    objective, batch = model.build_objective(settings), made_up(settings)
    pieces = settings.train.pieces
    threads = Threads(min(pieces, torch.get_num_threads()))
    torch.set_num_threads(max(1, torch.get_num_threads() // threads.count))

    def step() -> None:
        with span(STEP):
            with span("optimiser"):
                optimiser.zero_grad(set_to_none=True)
            backward(retriever, batch, len(batch), objective, How(0, pieces, threads))
            with span("optimiser"):
                optim.clip_gradients(retriever, settings.optim.clip_norm)
                optimiser.step()
                retriever.scale.clamp()

    for _ in range(3):
        step()
    times = []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    with Recording() as recording:
        for _ in range(arguments.steps):
            step()
    table = recording.table()
    count = recording.count / arguments.steps
    start = time.perf_counter()
    for _ in range(10_000):
        with span("empty"):
            pass
    one = (time.perf_counter() - start) / 10_000
    median = statistics.median(times)
    named = 1 - next(part.share for part in table if part.name == OTHER)
    print(format_parts(table))
    print(f"\nnamed: {100 * named:.1f} % of a step of {1000 * median:.0f} ms")
    print(
        f"cost:  {count:.0f} spans of {1e6 * one:.1f} us, {100 * count * one / median:.3f} % of a step"
    )
    if arguments.json:
        found = {"named": named, "spans": count, "span_seconds": one, "step_seconds": median}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
