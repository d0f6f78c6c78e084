"""All GPU measurements, with torch only, in less than eight minutes.

    python benchmarks/gpu.py [--json FILE] [--methods all] [--small]

* agreement: similarities of every method and the gradients of a complete training step, on the GPU in
  float32 without TF32 and on the CPU.
* similarity: all texts with all videos (1,000 x 1,000) from features, for every method: float32, TF32
  and bfloat16, eager and compiled, compared with the method's own matrix products replayed alone; and
  with larger tiles than are good for a CPU.
* head step: forward and backward pass of head and loss at the batch.
* whole step: ViT-B/32 at batch 128, with its parts' times and its peak memory.

Measurements that exceed the time (``--budget``, seconds) are listed as left out. Without a GPU, or with
``--small``, everything runs at the demo's sizes, as a test.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from methods import by_head, configs

from tcmgc import model
from tcmgc.config import Config, replace
from tcmgc.heads import base, native, score_tiled
from tcmgc.retrieval import costs
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training import spans
from tcmgc.training.step import backward

Row = dict[str, Any]
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
LARGER = {"TEXTS": 256, "VIDEOS": 256, "TILE": 2**30}
"""Tiles large enough that a GPU's launches cost little."""


class Shapes(TorchDispatchMode):
    """Counts the matrix products that run inside, by the shapes and types of their factors."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[tuple[Any, ...], int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, given: tuple[Any, ...] = (), options: Any = None
    ) -> Any:
        if function._schema.name in PRODUCTS:
            one, other = given[-2:]
            key = (tuple(one.shape), tuple(other.shape), one.dtype)
            self.found[key] = self.found.get(key, 0) + 1
        return function(*given, **(options or {}))


def replay(shapes: dict[tuple[Any, ...], int], device: torch.device) -> Callable[[], None]:
    """Run the same products with other numbers, and nothing else."""
    work = [
        (torch.randn(one, device=device).to(dtype), torch.randn(other, device=device).to(dtype), n)
        for (one, other, dtype), n in shapes.items()
    ]

    def run() -> None:
        for one, other, count in work:
            for _ in range(count):
                one @ other

    return run


@contextmanager
def tiles(**sizes: int) -> Iterator[None]:
    """Use limits of a tile other than those for a CPU's caches."""
    before = {name: getattr(base, name) for name in sizes}
    for name, size in sizes.items():
        setattr(base, name, size)
    try:
        yield
    finally:
        for name, size in before.items():
            setattr(base, name, size)


class Benchmark:
    """The measurements, their device and their time limit."""

    def __init__(self, device: torch.device, *, small: bool, budget: float) -> None:
        self.device, self.small = device, small
        self.end = time.perf_counter() + budget
        self.rows: list[Row] = []
        self.size = 24 if small else 1000
        self.batch = 8 if small else 128
        self.repeats = 1 if small else 3

    def add(self, part: str, method: str, **numbers: Any) -> None:
        """Store a row and print it."""
        self.rows.append({"part": part, "method": method, **numbers})
        shown = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())  # fmt: skip
        print(f"{part:12} {method:22} {shown}", flush=True)

    def seconds(self, function: Callable[[], Any]) -> float:
        """The median time, after one call to warm up."""
        function()
        return costs.timed(function, self.device, self.repeats)

    def over(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() > self.end

    def guarded(
        self, part: str, method: str, measure: Callable[..., None], *arguments: Any
    ) -> None:
        """Measure, if there is time; a failure becomes a row and does not stop the others."""
        if self.over():
            self.add(part, method, left_out="no time left")
            return
        try:
            measure(method, *arguments)
        except (RuntimeError, ValueError) as error:
            self.add(part, method, failed=str(error).splitlines()[0][:200])
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def features(self, config: Config, retriever: model.Retriever, count: int) -> tuple[Any, Any]:
        """Random texts and videos with the shapes of the towers' outputs; the same on any device."""
        with torch.no_grad():
            pair = costs.made_up(config, 1).to(self.device)
            text = retriever.encode_text(pair.tokens)
            video = retriever.encode_video(pair.pixels, pair.frame_mask)
        return costs.alike(text, count), costs.alike(video, count)

    def machine(self) -> None:
        """The device, and how fast it multiplies large square matrices."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        self.add("machine", name, torch=torch.__version__, threads=torch.get_num_threads())
        side = 512 if self.small else 8192
        for precision in ("float32", "tf32", "bf16"):
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            one = torch.randn(side, side, device=self.device).to(dtype)
            with tf32(precision == "tf32"):
                seconds = self.seconds(lambda one=one: one @ one)
            self.add("machine", f"{side} x {side}", precision=precision, tflops=2e-12 * side**3 / seconds)  # fmt: skip

    def agreement(self, name: str, config: Config) -> None:
        """Similarities here and on the CPU from the same features; likewise complete steps."""
        here = model.build(config).to(self.device).eval()
        there = model.build(config).eval()
        text, video = self.features(config, here, 32)
        found = []
        for retriever, place in ((here, self.device), (there, torch.device("cpu"))):
            with torch.no_grad(), tf32(False):
                record = retriever.head.record(video.to(place))
                scores = score_tiled(retriever.head, text.to(place), record, retriever.scale())
            found.append(scores.similarity.cpu())
        one, other = found
        largest = other.abs().max()
        same = (one.argmax(1) == other.argmax(1)).double().mean()
        self.add("agreement", name, similarity=float((one - other).abs().max() / largest), first_video_same=float(same))  # fmt: skip

    def agreement_of_step(self, name: str, config: Config) -> None:
        """Gradients of a complete small step here and on the CPU, relative to the largest."""
        found, losses = [], []
        for place in (self.device, torch.device("cpu")):
            retriever = model.build(config).to(place).train()
            batch = costs.made_up(config, 8).to(place)
            with tf32(False):
                terms = backward(retriever, batch, len(batch), model.build_objective(config))
            losses.append(float(terms["loss"]))
            found.append([None if w.grad is None else w.grad.cpu() for w in retriever.parameters()])
        pairs = [(a, b) for a, b in zip(*found, strict=True) if a is not None and b is not None]
        largest = max(float(b.abs().max()) for _, b in pairs)
        worst = max(float((a - b).abs().max()) for a, b in pairs)
        self.add("agreement", name, gradient=worst / largest, loss=losses[0], loss_on_cpu=losses[1])

    def similarity(self, name: str, config: Config, compile: bool) -> None:
        """All pairs of a test set, against the products that they take."""
        retriever = model.build(config).to(self.device).eval()
        text, video = self.features(config, retriever, self.size)
        head, scale, pairs = retriever.head, retriever.scale(), self.size**2
        ways: list[tuple[str, str, dict[str, int]]] = [("float32", "", {}), ("tf32", "", {})]
        ways += [("float32", " larger tiles", LARGER), ("tf32", " larger tiles", LARGER)]
        ways += [("bf16", " larger tiles", LARGER)]
        with torch.no_grad():
            record = head.record(video)

            def score(bf16: bool = False) -> None:
                score_tiled(head, text, record, scale, grains=False, compile=compile, bf16=bf16)

            for precision, how, limits in ways:
                low = precision == "bf16"
                if low and not _has_bf16(head, text):
                    continue
                with tiles(**limits), tf32(precision == "tf32"):
                    seconds = self.seconds(lambda low=low: score(low))
                    with Shapes() as shapes, native.off():
                        score_tiled(head, text, record, scale, grains=False, compile=False, bf16=low)  # fmt: skip
                    alone = self.seconds(replay(shapes.found, self.device))
                mode = "compiled" if compile else "eager"
                self.add("similarity", name, way=f"{mode} {precision}{how}", us_per_pair=1e6 * seconds / pairs, of_products=seconds / alone)  # fmt: skip
                if self.over():
                    return

    def head_step(self, name: str, config: Config) -> None:
        """Forward and backward pass of head and loss from features."""
        retriever = model.build(config).to(self.device).train()
        texts, videos = self.features(config, retriever, self.batch)
        objective = model.build_objective(config)
        seeds = torch.arange(self.batch, device=self.device)
        text = TextFeatures(**{**_leaves(texts), "seeds": seeds})
        video = VideoFeatures(**_leaves(videos))

        def step() -> None:
            retriever.zero_grad(set_to_none=True)
            record = retriever.head.record(video)
            scores = retriever.head.score(text, record, retriever.scale())
            terms = objective(scores, retriever.scale(), slice(0, self.batch))
            terms["loss"].backward()

        for precision in ("float32", "tf32"):
            with tf32(precision == "tf32"):
                seconds = self.seconds(step)
            memory = costs.most_memory(step, self.device)
            self.add("head step", name, precision=precision, batch=self.batch, milliseconds=1000 * seconds, memory_mb=memory / 1e6)  # fmt: skip

    def whole_step(self, name: str, config: Config, precision: str) -> None:
        """Towers, head, loss, backward pass and optimiser; then the times of the parts."""
        config = replace(
            config,
            {
                "train.batch_size": self.batch,
                "train.pieces": 0,
                "train.precision": "bf16" if precision == "bf16" else "float32",
            },
        )
        retriever = model.build(config).to(self.device)
        with tf32(precision == "tf32"):
            step = costs.training_step(config, retriever, repeats=self.repeats)
            self.add("whole step", name, precision=precision, batch=self.batch, milliseconds=1000 * step.seconds, pairs_a_second=self.batch / step.seconds, memory_mb=step.bytes / 1e6)  # fmt: skip
            with spans.Recording() as recording:
                costs.training_step(config, retriever, repeats=1)
        for part in recording.table():
            self.add("whole step", name, precision=precision, span=part.name, milliseconds=1000 * part.seconds, share=part.share)  # fmt: skip


def _leaves(features: Any) -> dict[str, Tensor]:
    return {
        name: value.detach().requires_grad_(value.is_floating_point())
        for name, value in features.tensors.items()
    }


def _has_bf16(head: base.Head, text: TextFeatures) -> bool:
    try:
        head.rounded(head.prepare_texts(text[:1]))
    except ValueError:
        return False
    return True


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Compute float32 matrix products with ten bits of mantissa, or exactly."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--methods", nargs="+", default=["all"], metavar="NAME")
    parser.add_argument("--small", action="store_true", help="the demo's sizes, as without a GPU")
    parser.add_argument("--budget", type=float, default=440, help="seconds")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # weights are random on purpose
    warnings.filterwarnings("ignore", message=".*TensorFloat32.*")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = arguments.small or device.type == "cpu"
    work = Benchmark(device, small=small, budget=arguments.budget)
    methods = configs(arguments.methods, small=small)
    smallest = configs(arguments.methods, small=True)
    first = "tcmgc" if "tcmgc" in methods else next(iter(methods))
    started = time.perf_counter()
    work.machine()
    for name, config in smallest.items():
        work.guarded("agreement", name, work.agreement, config)
        work.guarded("agreement", name, work.agreement_of_step, config)
    for precision in ("float32", "tf32", "bf16"):
        work.guarded("whole step", first, work.whole_step, methods[first], precision)
    heads = by_head(methods)
    for name, config in heads.items():
        work.guarded("similarity", name, work.similarity, config, False)
        work.guarded("head step", name, work.head_step, config)
    # Compiling is slow: on a GPU for all methods, as time permits.
    for name, config in heads.items() if not small else [(first, methods[first])]:
        work.guarded("similarity", name, work.similarity, config, True)
    print(f"{time.perf_counter() - started:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": work.rows}, indent=2) + "\n")
    return 1 if any("failed" in row for row in work.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
