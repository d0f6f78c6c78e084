"""Adam's step on weights whose averages are a multiple of 256 MB away, as in heaps of threads.

    python benchmarks/heaps.py [--json FILE]

glibc's heaps for threads begin at multiples of 64 MB, and a large tensor at the beginning of one. AMD's
L1 cache finds its lines by a hash of bits 12 to 27 of an address (Lipp et al., "Take A Way", 2020), so
two tensors a multiple of 256 MB apart evict each other. `pipeline.cluster.placement.WORKERS` gives
training workers one heap. Measured with the demo's word embedding on one thread; all distances take
turns, and ratios are to a distance of 16 KB more.
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

FAR, APART = 2**28, 2**14
DISTANCES = {"64 MB": FAR // 4, "128 MB": FAR // 2, "256 MB": FAR, "512 MB": 2 * FAR}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # weights are random on purpose
    weight = model.build(recipes.demo()).text.token_embedding.weight.detach()
    size = weight.nbytes
    # Reserved, and touched only where tensors are placed.
    room = torch.empty(2 * FAR + 2 * size + APART, dtype=torch.uint8)

    def at(offset: int) -> torch.Tensor:
        return room[offset : offset + size].view(torch.float32).view_as(weight)

    here, gradient, mean = at(0).copy_(weight), torch.rand_like(weight), torch.zeros_like(weight)
    steps = torch.tensor(1.0)

    def seconds(distance: int) -> float:
        square = at(distance).zero_()
        start = time.perf_counter()
        torch._fused_adamw_(
            [here],
            [gradient],
            [mean],
            [square],
            [],
            [steps],
            lr=1e-6,
            beta1=0.9,
            beta2=0.98,
            weight_decay=0.2,
            eps=1e-6,
            amsgrad=False,
            maximize=False,
        )
        return time.perf_counter() - start

    found: dict[str, list[float]] = {name: [] for name in DISTANCES}
    for turn in range(arguments.rounds + 2):
        for name, distance in DISTANCES.items():
            seconds(distance + APART)  # so that both follow the same
            pair = [seconds(place) for place in (distance, distance + APART)[:: (-1) ** turn]]
            at_distance, beside = pair[:: (-1) ** turn]
            if turn >= 2:  # the first touch memory
                found[name].append(at_distance / beside)
    figures = {name: statistics.median(ratios) for name, ratios in found.items()}
    for name, ratio in figures.items():
        print(f"{name:>8} apart: {ratio:5.2f} times the step with 16 KB more between them")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
