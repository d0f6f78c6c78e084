"""Show what training would do, without doing it: config, data, steps, memory. Nothing is written."""

import contextlib
import io
from pathlib import Path

from pipeline import cli
from pipeline.inputs import prepare
from pipeline.interface import describe, terminal
from tcmgc import datasets, model, storage
from tcmgc.config import Config, flatten
from tcmgc.datasets import demo_corpus
from tcmgc.towers import backbone
from tcmgc.training import order


def show(config: Config, place: str) -> None:
    """Print the rehearsal.

    Args:
        config: The experiment.
        place: The run's folder.

    Raises:
        ValueError: data, towers or words that training would also refuse.
    """
    for path, value in flatten(config).items():
        print(f"{path:32}{'' if value is None else value}")
    print()
    terminal.header("run", f"{describe.method(config)}, recipe {describe.recipe(config)}")
    terminal.header("results", place)
    backbone.tokenizer(config.towers.name, config.data.max_words)
    _data(config)
    _memory(config)
    print("\ndry run: nothing was written")


def _data(config: Config) -> None:
    root = cli.resolve(config.data.root)
    missing = config.data.dataset == "demo" and not storage.is_uri(root)
    if missing and not (Path(root) / demo_corpus.MARKER).is_file():
        terminal.header("data", f"the demo corpus is not there yet; training makes it in {root}")
        return
    corpus = prepare.splits(config)
    for line in datasets.describe(corpus).splitlines():
        terminal.header("data", line)
    pairs = len(list(corpus["train"].pairs()))
    each = order.steps_per_epoch(pairs, config.train.batch_size)
    epochs = config.train.epochs
    terminal.header("steps", f"{each * epochs}: {epochs} epochs of {each}")
    clips = [clip for name in ("train", "val") if name in corpus for clip in corpus[name].clips]
    cache = prepare.frame_cache(config)
    todo = len(cache.missing(clips))
    terminal.header("frames", f"{len(clips) - todo} of {len(clips)} videos in the cache")
    size = backbone.image_size(config.towers.name)
    raw = len(clips) * config.data.max_frames * 3 * size**2
    if config.data.frame_format == "raw":
        terminal.header("", f"{_gib(raw)} at most for all of them, raw")


def _memory(config: Config) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        weights = list(model.build(config).parameters())
    count = sum(weight.numel() for weight in weights)
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    # float32: all weights; gradients and Adam's two averages of trained weights.
    terminal.header("model", f"{count / 1e6:.2f} M weights, {trained / 1e6:.2f} M trained")
    terminal.header(
        "memory",
        f"{_gib(4 * count + 12 * trained)} a worker for weights, gradients and optimiser; "
        "activations come on top (benchmarks/step_memory.py measures them)",
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
