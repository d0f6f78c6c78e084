"""What Ray, a second worker and checkpoints cost a step of training, side by side in one run.

    python benchmarks/overhead.py [--json FILE]

* Through Ray (``pipeline.train.fit``: frames from the cache, metrics, reports) against a bare PyTorch
  loop over the same batches held in memory; the same model, the same one thread.
* Two workers with a core each against one worker with one.
* A checkpoint of the model and Adam's state, as a share of the time of 50 steps.

The demo's model and batch. Medians over steps: on a busy machine the figures mean little.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


import itertools

import torch

from pipeline import cluster, prepare, train
from tcmgc import backbone, checkpoint, config, demo, model, optim, order, recipes
from tcmgc.config import Config
from tcmgc.datasets import Corpus
from tcmgc.step import Batch, backward

EVERY = 50
"""Steps between checkpoints that the share is given for."""


def bare(settings: Config, corpus: Corpus, steps: int) -> list[float]:
    """Seconds of each step of a plain loop on one thread over batches in memory."""
    torch.set_num_threads(1)
    train_split = corpus["train"]
    reader = prepare.frame_cache(settings).open(train_split.clips)
    tokenise = backbone.tokenizer(settings.towers.name, settings.data.max_words)
    pairs = list(train_split.pairs())
    size = settings.train.batch_size
    chosen = order.epoch_order(len(pairs), settings.train.seed, 0)
    batches = []
    for step in range(order.steps_per_epoch(len(pairs), size)):
        mine = [pairs[i] for i in order.batch_of(chosen, step, size)]
        pixels, mask = reader.read([clip for clip, _ in mine])
        tokens = tokenise([caption for _, caption in mine])
        batches.append(Batch(tokens, torch.from_numpy(pixels), torch.from_numpy(mask)))
    retriever = model.build(settings).train()
    optimiser = model.build_optimiser(settings, retriever)
    objective = model.build_objective(settings)
    seconds = []
    for step in range(steps):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        backward(retriever, batches[step % len(batches)], size, objective)
        optim.clip_gradients(retriever, settings.optim.clip_norm)
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def through_ray(
    settings: Config, corpus: Corpus, name: str, folder: str, workers: int
) -> dict[str, Any]:
    """Seconds of each step, of each checkpoint and of everything else of a run through Ray."""
    changes = {"train.workers": workers, "cluster.cpus_per_worker": 1.0}
    start = time.perf_counter()
    result = train.fit(config.replace(settings, changes), train.shared(corpus), name, folder, [])
    whole = time.perf_counter() - start
    with result.checkpoint.as_directory() as last:
        rows = checkpoint.read_training(last)["history"]
    steps = [row for row in rows if "train/loss" in row]
    size, every = settings.train.batch_size, settings.train.checkpoint_steps
    seconds = [size / row["train/samples_per_second"] for row in steps]
    # From the end of one step to the end of the next lies the checkpoint, where there was one.
    per_epoch = len(steps) // settings.train.epochs
    checkpoints = [
        after["time"] - before["time"] - size / after["train/samples_per_second"]
        for before, after in itertools.pairwise(steps)
        if every and before["step"] % every == 0 and before["step"] % per_epoch != 0
    ]
    return {"steps": seconds, "checkpoints": checkpoints, "besides": whole - sum(seconds)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--videos", type=int, default=168, help="training videos of the corpus")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tcmgc-overhead-") as home:
        os.environ["TCMGC_HOME"] = home
        demo.make(Path(home) / "data/demo", videos=arguments.videos + 32, test=16)
        settings = config.replace(
            recipes.demo(),
            {
                "data.val_videos": 16,
                "train.epochs": arguments.epochs,
                "train.batch_size": arguments.batch,
                "train.checkpoint_steps": 4,
            },
        )
        corpus = prepare.corpus(settings)
        cluster.connect()
        prepare.fill(settings, [*corpus["train"].clips, *corpus["val"].clips], "all")
        half = max(8, 13 * arguments.epochs // 2)
        before = bare(settings, corpus, half)
        # A checkpoint is written beside the next steps, and would be felt in their times.
        steady = config.replace(settings, {"train.checkpoint_steps": 0})
        one = through_ray(steady, corpus, "one", f"{home}/runs", workers=1)
        after = bare(settings, corpus, half)
        two = through_ray(steady, corpus, "two", f"{home}/runs", workers=2)
        saving = through_ray(settings, corpus, "saving", f"{home}/runs", workers=1)
    # The first steps of each warm up.
    plain = statistics.median([*before[2:], *after[2:]])
    ray_one = statistics.median(one["steps"][2:])
    ray_two = statistics.median(two["steps"][2:])
    saved = statistics.median(saving["checkpoints"])
    size = arguments.batch
    figures = {
        "bare loop, samples a second": size / plain,
        "through Ray, samples a second": size / ray_one,
        "Ray's cost of a step, percent": 100 * (ray_one / plain - 1),
        "two workers, samples a second": size / ray_two,
        "two workers against one": ray_one / ray_two,
        "a checkpoint, seconds": saved,
        f"a checkpoint every {EVERY} steps, percent": 100 * saved / (EVERY * ray_one),
        "start-up, validation and end of the run, seconds": one["besides"],
        "bare loop, spread between its halves, percent": 100
        * (statistics.median(after[2:]) / statistics.median(before[2:]) - 1),
    }
    for name, value in figures.items():
        print(f"{name:50}{value:10.2f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
