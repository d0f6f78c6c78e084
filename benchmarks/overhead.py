"""Costs of Ray, a second worker and checkpoints per training step, measured in turn in one run.

    python benchmarks/overhead.py [--json FILE]

* Through Ray (``pipeline.train.fit``: frames from the cache, metrics, reports) compared with a bare PyTorch
  loop over the same batches in memory; the same model, allocator and one thread.
* Two workers with a core each compared with one worker with one: through Ray, and as two bare loops
  connected by gloo, before Ray is started. On two cores Ray's own processes compete with the workers.
* A checkpoint of the model and Adam's state, as a share of the time of 50 steps.

The demo's model, 64 pairs per step in its two pieces (``--batch``, ``--pieces``). All take turns in rounds,
and a run is compared only with its neighbours in the same round; the output is the median over rounds,
and their range.
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

import ray
import torch
import torch.distributed as dist

from pipeline import train
from pipeline.cluster import placement as cluster
from pipeline.inputs import prepare
from tcmgc import config, model, recipes
from tcmgc.config import Config
from tcmgc.datasets import Corpus, demo_corpus
from tcmgc.towers import backbone
from tcmgc.training import checkpoint, memory, optim, order
from tcmgc.training.batch import Batch
from tcmgc.training.distributed import share
from tcmgc.training.step import How, Whole, backward

EVERY = 50
"""Steps between checkpoints for which the share is stated."""


MEANING = {
    "bare": "bare loop, samples a second",
    "one_worker": "through Ray, samples a second",
    "two_workers": "two workers, samples a second",
    "cost": "Ray's cost of a step, percent",
    "gain": "two workers against one",
    "bare_gain": "two bare workers against one, no Ray",
    "drift": "bare loop, second against first of a round, percent",
    "besides": "start-up, validation and end of a run, seconds",
    "checkpoint": "a checkpoint, seconds",
    "checkpoint_share": f"a checkpoint every {EVERY} steps, percent",
}


class Round:
    """One turn of all three, and their ratios.

    Args:
        before: Seconds of the bare loop's steps, before.
        one: One worker's run.
        after: Seconds of the bare loop's steps, after.
        two: Two workers' run.
        last: One worker's run once more.
        batch: Pairs in a step.
    """

    def __init__(
        self,
        before: list[float],
        one: dict[str, Any],
        after: list[float],
        two: dict[str, Any],
        last: dict[str, Any],
        batch: int,
    ) -> None:
        # The first steps of each warm up.
        plain = statistics.median([*before[2:], *after[2:]])
        first, both, second = (statistics.median(run["steps"][2:]) for run in (one, two, last))
        self.bare, self.one_worker, self.two_workers = batch / plain, batch / first, batch / both
        self.cost = 100 * (first / plain - 1)
        self.gain = (first + second) / 2 / both
        self.drift = 100 * (statistics.median(after[2:]) / statistics.median(before[2:]) - 1)
        self.besides = one["besides"]


def bare(
    settings: Config, corpus: Corpus, steps: int, rank: int = 0, workers: int = 1
) -> list[float]:
    """Seconds of each step of a plain loop on one thread over batches in memory."""
    torch.set_num_threads(1)
    memory.keep_freed_memory()
    train_split = corpus["train"]
    reader = prepare.frame_cache(settings).open(train_split.clips)
    tokenise = backbone.tokenizer(settings.towers.name, settings.data.max_words)
    pairs = list(train_split.pairs())
    size = settings.train.batch_size
    chosen = order.epoch_order(len(pairs), settings.train.seed, 0)
    batches = []
    for step in range(order.steps_per_epoch(len(pairs), size)):
        everyone = [pairs[i] for i in order.batch_of(chosen, step, size)]
        tokens = tokenise([caption for _, caption in everyone])
        mine = share(size, rank, workers)
        pixels, mask = reader.read([clip for clip, _ in everyone[mine]])
        batch = Batch(tokens[mine], torch.from_numpy(pixels), torch.from_numpy(mask))
        batches.append((batch, tokens.unique()))
    retriever = model.build(settings).train()
    optimiser = model.build_optimiser(settings, retriever)
    objective = model.build_objective(settings)
    seconds = []
    for step in range(steps):
        start = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        batch, words = batches[step % len(batches)]
        how = How(pieces=settings.train.pieces)
        backward(retriever, batch, size, objective, how, whole=Whole(words))
        optim.clip_gradients(retriever, settings.optim.clip_norm)
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def bare_pair(settings: Config, corpus: Corpus, steps: int) -> list[float]:
    """The same on two processes connected only by gloo."""
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as place:
        processes = [
            context.Process(
                target=_one_of_pair, args=(rank, settings, corpus, steps, f"{place}/met", results)
            )
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        seconds = results.get()
        for process in processes:
            process.join()
    return seconds


def _one_of_pair(
    rank: int, settings: Config, corpus: Corpus, steps: int, meeting: str, results: Any
) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    seconds = bare(settings, corpus, steps, rank, 2)
    if rank == 0:
        results.put(seconds)
    dist.destroy_process_group()


def _gain_alone(settings: Config, corpus: Corpus, steps: int) -> float:
    """Speed of two bare workers relative to one, with no Ray on the machine."""
    before = bare(settings, corpus, steps)
    pair = bare_pair(settings, corpus, steps)
    after = bare(settings, corpus, steps)
    return statistics.median([*before[2:], *after[2:]]) / statistics.median(pair[2:])


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
    # The time between the ends of two steps includes the checkpoint, if there was one.
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--pieces", type=int, default=recipes.demo().train.pieces, help="train.pieces of all runs"
    )
    parser.add_argument(
        "--bare", action="store_true", help="only the bare loops: one worker, and two"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tcmgc-overhead-") as home:
        os.environ["TCMGC_HOME"] = home
        demo_corpus.make(Path(home) / "data/demo", videos=arguments.videos + 32, test=16)
        settings = config.replace(
            recipes.demo(),
            {
                "data.val_videos": 16,
                "train.epochs": arguments.epochs,
                "train.batch_size": arguments.batch,
                "train.pieces": arguments.pieces,
                "train.checkpoint_steps": 4,
            },
        )
        corpus = prepare.corpus(settings)
        cluster.connect()
        prepare.fill(settings, [*corpus["train"].clips, *corpus["val"].clips], "all")
        ray.shutdown()
        half = max(8, 13 * arguments.epochs // 2)
        alone = [_gain_alone(settings, corpus, half) for _ in range(arguments.rounds)]
        if arguments.bare:
            _show({"bare_gain": alone}, arguments.json)
            return
        cluster.connect()
        # A checkpoint is written during the next steps, and would affect their times.
        steady = config.replace(settings, {"train.checkpoint_steps": 0})
        rounds = []
        for number in range(arguments.rounds):
            before = bare(settings, corpus, half)
            one = through_ray(steady, corpus, f"one{number}", f"{home}/runs", workers=1)
            after = bare(settings, corpus, half)
            two = through_ray(steady, corpus, f"two{number}", f"{home}/runs", workers=2)
            last = through_ray(steady, corpus, f"last{number}", f"{home}/runs", workers=1)
            rounds.append(Round(before, one, after, two, last, arguments.batch))
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        saving = through_ray(settings, corpus, "saving", f"{home}/runs", workers=1)
    figures = {
        name: [getattr(one, name) for one in rounds]
        for name in (
            "bare",
            "one_worker",
            "two_workers",
            "cost",
            "gain",
            "drift",
            "besides",
        )
    }
    figures["bare_gain"] = alone
    saved = statistics.median(saving["checkpoints"])
    step = statistics.median(saving["steps"][2:])
    figures |= {"checkpoint": [saved], "checkpoint_share": [100 * saved / (EVERY * step)]}
    _show(figures, arguments.json)


def _show(figures: dict[str, list[float]], file: str | None) -> None:
    for name, values in figures.items():
        spread = f"   {min(values):.2f} to {max(values):.2f}" if len(values) > 1 else ""
        print(f"{MEANING[name]:56}{statistics.median(values):10.2f}{spread}")
    if file:
        Path(file).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
