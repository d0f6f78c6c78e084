"""Memory and time of a training step by batch size: directly, in chunks, with checkpointed towers.

    python benchmarks/step_memory.py [--json FILE] [--batches 16 32 64 128]

The demo's model on one worker, synthetic pixels, one thread. Every line is from a separate process:
memory is the peak of PyTorch's tensors during a step, in excess of that before it. (The
process's own memory is not meaningful: it keeps what earlier steps freed.)
"""

import argparse
import json
import logging
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tcmgc import config, model, recipes
from tcmgc.retrieval.costs import made_up, most_memory
from tcmgc.training.step import How, backward

WAYS: dict[str, dict[str, Any]] = {
    "all at once": {},
    "all at once, activations recomputed": {"towers.checkpoint_activations": True},
    "chunks of 16": {"train.chunk_size": 16},
}


def measure(changes: dict[str, Any], size: int, pipe: Any) -> None:
    """Send seconds and bytes of a step through the pipe."""
    logging.disable(logging.WARNING)  # weights are random on purpose
    torch.set_num_threads(1)
    settings = config.replace(recipes.demo(), {"train.batch_size": size, **changes})
    batch = made_up(settings)
    retriever, objective = model.build(settings).train(), model.build_objective(settings)

    def step() -> None:
        retriever.zero_grad(set_to_none=True)
        backward(retriever, batch, size, objective, How(settings.train.chunk_size))

    step()
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    retriever.zero_grad(set_to_none=True)
    pipe.send((seconds, most_memory(step, torch.device("cpu"))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64, 128])
    arguments = parser.parse_args()
    # The profiler logs each time that it starts, stops, and finds no GPU.
    os.environ |= {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    context, rows = multiprocessing.get_context("spawn"), []
    print(f"{'':38}{'batch':>6}{'MB':>9}{'seconds':>9}")
    for way, changes in WAYS.items():
        for size in arguments.batches:
            mine, theirs = context.Pipe()
            process = context.Process(target=measure, args=(changes, size, theirs))
            process.start()
            theirs.close()
            seconds, memory = mine.recv()
            process.join()
            rows.append({"way": way, "batch": size, "mb": memory / 1e6, "seconds": seconds})
            print(f"{way:38}{size:6}{memory / 1e6:9.0f}{seconds:9.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
