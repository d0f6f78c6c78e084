"""Costs of a method: weights, multiply-adds, memory and time of a training step and of retrieval.

Counts depend on the config alone; times and memory are measured with synthetic pixels, on the
model's device. Some counts are also given as the field's papers count: their coarser counter
(as in the paper's Table 14) includes linear, convolution and recurrent layers only, and neither
`nn.MultiheadAttention` nor embeddings, norms and single parameters.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from tcmgc import model
from tcmgc.config import Config
from tcmgc.heads import score_tiled
from tcmgc.model import Retriever
from tcmgc.towers.backbone import image_size, tokenizer
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training import optim
from tcmgc.training.batch import Batch
from tcmgc.training.spans import STEP, span
from tcmgc.training.step import How, backward

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase)
"""Layers included by the papers' counter."""


@dataclass(frozen=True)
class Parameters:
    """Parameter counts of a model."""

    all: int
    trained: int
    counted: int
    """Those included by the papers' counter."""


@dataclass(frozen=True)
class MultiplyAdds:
    """Multiply-adds, each of which is two floating-point operations."""

    text: int
    """For a caption: its tower, and the head's preparation of it."""
    video: int
    """For a video: its tower, temporal encoder, record, and the head's preparation of it."""
    pair: int
    """For a pair in addition to these, in matrix products; sums, maxima and softmaxes are excluded."""
    counted: int
    """For a caption, a video and their similarity, by the papers' counter."""


@dataclass(frozen=True)
class Step:
    """A training step: towers, head, loss, backward pass and optimiser."""

    seconds: float
    bytes: int
    """Peak memory of tensors during the step, in addition to weights and the optimiser's averages."""


def layers(module: nn.Module) -> list[nn.Module]:
    """The layers included by the papers' counter."""
    hidden = {
        inner
        for outer in module.modules()
        if isinstance(outer, nn.MultiheadAttention)
        for inner in outer.modules()
    }
    return [one for one in module.modules() if isinstance(one, _LAYERS) and one not in hidden]


def parameters(module: nn.Module) -> Parameters:
    """Counts of a model's parameters; the model may be on the meta device."""
    counted = {p for layer in layers(module) for p in layer.parameters()}
    weights = list(module.parameters())
    return Parameters(
        all=sum(p.numel() for p in weights),
        trained=sum(p.numel() for p in weights if p.requires_grad),
        counted=sum(p.numel() for p in counted),
    )


def made_up(settings: Config, pairs: int | None = None) -> Batch:
    """Pairs of noise and different captions, with all frames real; by default one batch of the config."""
    data, side = settings.data, image_size(settings.towers.name)
    size = settings.train.batch_size if pairs is None else pairs
    random = torch.Generator().manual_seed(0)
    shape = (size, data.max_frames, 3, side, side)
    captions = [f"a red circle moves over picture {i}" for i in range(size)]
    return Batch(
        tokenizer(settings.towers.name, data.max_words)(captions),
        torch.randint(256, shape, dtype=torch.uint8, generator=random),
        torch.ones(size, data.max_frames, dtype=torch.bool),
    )


@torch.no_grad()
def multiply_adds(settings: Config, retriever: Retriever) -> MultiplyAdds:
    """Counts of one pair at the config's sizes; the model is run once, in evaluation mode.

    Every matrix product, convolution and attention counts, regardless of its module's class.
    """
    retriever.eval()
    batch = made_up(settings, 1).to(_device(retriever))
    with _layer_counter(retriever) as counted, _without_fast_paths():
        with FlopCounterMode(display=False) as texts:
            text = retriever.encode_text(batch.tokens)
        with FlopCounterMode(display=False) as videos:
            record = retriever.head.record(retriever.encode_video(batch.pixels, batch.frame_mask))
        one = _scoring(retriever, text, record)
    # Terms that grow with both numbers belong to the pair; terms that grow with one are preparation.
    doubled = [type(items).cat([items, items]) for items in (text, record)]
    with _without_fast_paths():
        more_texts, more_videos, both = (
            _scoring(retriever, *items)
            for items in ((doubled[0], record), (text, doubled[1]), doubled)
        )
    pair = both - more_texts - more_videos + one
    return MultiplyAdds(
        text=texts.get_total_flops() // 2 + more_texts - one - pair,
        video=videos.get_total_flops() // 2 + more_videos - one - pair,
        pair=pair,
        counted=sum(counted),
    )


def _scoring(retriever: Retriever, text: TextFeatures, record: Any) -> int:
    """Multiply-adds of the scores of some texts with some videos."""
    with FlopCounterMode(display=False) as counter:
        score_tiled(retriever.head, text, record, retriever.scale(), compile=False)
    return counter.get_total_flops() // 2


@contextmanager
def _layer_counter(module: nn.Module) -> Iterator[list[int]]:
    """Multiply-adds of every call of a layer that the papers' counter includes."""
    found: list[int] = []

    def count(layer: Any, inputs: Any, output: Any) -> None:
        if isinstance(layer, nn.RNNBase):
            given = inputs[0].data
            steps = given.numel() // given.shape[-1]
            each = sum(w.numel() for name, w in layer.named_parameters() if "weight" in name)
            found.append(steps * each)
        else:  # each output is a product with the weights of one of its channels
            found.append(output.numel() * layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in layers(module)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _without_fast_paths() -> Iterator[None]:
    """Disable fused encoder layers and attention, whose products no counter includes."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def training_step(settings: Config, retriever: Retriever, *, repeats: int = 3) -> Step:
    """Time (the median) and memory of a step at the config's batch; changes the weights.

    On a CPU, memory is that requested from PyTorch's allocator, not that of the process.
    """
    device = _device(retriever)
    batch = made_up(settings).to(device)
    optimiser = model.build_optimiser(settings, retriever)
    objective, total = model.build_objective(settings), len(batch)
    how = How(settings.train.chunk_size, settings.train.pieces)
    retriever.train()

    def step() -> None:
        with span(STEP):
            optimiser.zero_grad(set_to_none=True)
            backward(retriever, batch, total, objective, how)
            with span("optimiser"):
                optim.clip_gradients(retriever, settings.optim.clip_norm)
                optimiser.step()
                retriever.scale.clamp()

    step()
    seconds = timed(step, device, repeats)
    optimiser.zero_grad(set_to_none=True)
    return Step(seconds, most_memory(step, device))


def timed(function: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """The median time of a call in seconds."""
    found = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        function()
        _wait(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def most_memory(function: Callable[[], Any], device: torch.device) -> int:
    """Peak bytes of tensors created in a call, in addition to those that existed before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    result = profiler.profiler.kineto_results
    sizes = [event.nbytes() for event in result.events() if event.name() == "[memory]"]
    return max(itertools.accumulate(sizes), default=0)


@torch.no_grad()
def encoding_time(
    settings: Config, retriever: Retriever, *, videos: int = 16, repeats: int = 3
) -> float:
    """Seconds per video from pixels to its record, encoded in batches, in evaluation mode."""
    retriever.eval()
    batch = made_up(settings, videos).to(_device(retriever))

    def encode() -> None:
        retriever.head.record(retriever.encode_video(batch.pixels, batch.frame_mask))

    encode()
    return timed(encode, _device(retriever), repeats) / videos


@torch.no_grad()
def similarity_time(
    settings: Config,
    retriever: Retriever,
    texts: int,
    videos: int,
    *,
    repeats: int = 3,
) -> float:
    """Seconds of all similarities of a test set, from features and records, in evaluation mode.

    Features are random; only their size matters.
    """
    retriever.eval()
    device, head = _device(retriever), retriever.head
    batch = made_up(settings, 1).to(device)
    text = alike(retriever.encode_text(batch.tokens), texts)
    video = alike(retriever.encode_video(batch.pixels, batch.frame_mask), videos)
    record, scale = head.record(video), retriever.scale()

    def score() -> None:
        score_tiled(head, text, record, scale, grains=False)

    score()
    return timed(score, device, repeats)


def alike(one: Any, count: int) -> Any:
    """Random features of ``count`` items with the shapes of one; masks and seeds are repeated."""
    random = torch.Generator().manual_seed(0)

    def draw(tensor: Tensor) -> Tensor:
        shape = (count, *tensor.shape[1:])
        if not tensor.is_floating_point():
            return tensor.expand(shape).contiguous()
        return torch.randn(shape, generator=random).to(tensor)

    assert isinstance(one, TextFeatures | VideoFeatures)
    return one.map(draw)


def _device(retriever: Retriever) -> torch.device:
    return next(retriever.parameters()).device


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
