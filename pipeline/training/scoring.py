"""Evaluation, run by evaluation workers and by training workers after every epoch."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import ray
import ray.train
import torch

from pipeline import cli
from pipeline.inputs import prepare
from pipeline.inputs.prefetch import prefetch
from pipeline.run_state import checkpoints
from tcmgc import model
from tcmgc.config import Config, HeadOptions, from_dict
from tcmgc.datasets import Clip, Split
from tcmgc.frames.cache import FrameReader
from tcmgc.heads import Head
from tcmgc.retrieval.evaluation import VIDEOS, batches_of, encode_texts, encode_videos, measure
from tcmgc.retrieval.metrics import Metrics
from tcmgc.towers import backbone
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training import checkpoint, memory
from tcmgc.training.threads import ONE, Threads


@dataclass(frozen=True)
class Encoder:
    """A model with the inputs of captions and videos."""

    config: Config
    retriever: model.Retriever
    reader: FrameReader
    tokenise: Callable[[Sequence[str]], torch.Tensor]
    device: torch.device
    threads: Threads

    def features(self, split: Split) -> tuple[TextFeatures, VideoFeatures]:
        """Features of all captions and videos of a split, the same on every worker."""
        self.retriever.eval()
        size = self.config.train.chunk_size or VIDEOS
        batches = (
            tuple(tensor.to(self.device) for tensor in pair)
            for pair in prefetch(
                _pixels(self.reader, split.clips[batch]) for batch in batches_of(len(split), size)
            )
        )
        threads = self.threads
        video = encode_videos(self.retriever, batches, len(split), batch_size=size, threads=threads)
        captions = [caption for _, caption in split.pairs()]
        text = encode_texts(
            self.retriever, captions, self.tokenise, device=self.device, threads=threads
        )
        return text, video

    def measure(
        self,
        split: Split,
        *,
        normalise: Sequence[str] = (),
        bank: Split | None = None,
        heads: Mapping[str, HeadOptions] = MappingProxyType({}),
    ) -> Metrics:
        """Retrieval metrics over all captions and videos of a split.

        Args:
            split: The split to evaluate.
            normalise: Score normalisations, whose metrics are added as ``dsl/t2v/R1``.
            bank: Training queries for those that need them.
            heads: Other heads for the same features, whose metrics are added as ``NAME/t2v/R1``.
        """
        text, video = self.features(split)
        known = None if bank is None else self.features(bank)
        owner = np.repeat(np.arange(len(split)), [len(clip.captions) for clip in split.clips])
        found: Metrics = {}
        own = self.retriever.head
        for name, head in {"": own, **self._built(heads)}.items():
            self.retriever.head = head
            metrics = measure(
                self.retriever,
                *(text, video, owner),
                normalise=normalise,
                bank=known,
                threads=self.threads,
            )
            found |= {f"{name}/{key}" if name else key: value for key, value in metrics.items()}
        self.retriever.head = own
        return found

    def _built(self, heads: Mapping[str, HeadOptions]) -> dict[str, Head]:
        width = self.retriever.head.dim
        return {
            name: model.build_head(replace(self.config, head=options), width).to(self.device).eval()
            for name, options in heads.items()
        }


def evaluate_worker(settings: dict[str, Any]) -> Metrics:
    """Metrics of a checkpoint, or of a model without training, on a split."""
    settle()
    folder, split = settings["checkpoint"], ray.get(settings["split"][0])
    bank = ray.get(settings["bank"][0]) if settings["bank"] else None
    config = from_dict(settings["config"])
    with nullcontext() if folder is None else checkpoints.local(folder) as place:
        if place is None:
            retriever = model.build(config)
        else:
            own, retriever = checkpoint.load(place)
            config = replace(config, towers=own.towers)
        reader = prepare.frame_cache(config).open([*split.clips, *(bank.clips if bank else ())])
        tokenise = backbone.tokenizer(config.towers.name, config.data.max_words)
    device = ray.train.torch.get_device()
    threads = side_by_side(config, device)
    encoder = Encoder(config, retriever.to(device), reader, tokenise, device, threads)
    return encoder.measure(
        split, normalise=settings["normalise"], bank=bank, heads=settings["heads"]
    )


def _pixels(
    reader: FrameReader, clips: Sequence[Clip]
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    def load() -> tuple[torch.Tensor, torch.Tensor]:
        pixels, mask = reader.read(clips)
        return torch.from_numpy(pixels), torch.from_numpy(mask)

    return load


def settle() -> None:
    """Set PyTorch's threads to the worker's CPUs (the default is one or all), and silence libraries."""
    cli.quiet()
    memory.keep_freed_memory()
    torch.set_num_threads(_cpus())


def side_by_side(config: Config, device: torch.device) -> Threads:
    """A thread for each of this worker's pieces of a batch, as far as it has CPUs.

    Each thread gets its share of the CPUs.
    """
    workers = ray.train.get_context().get_world_size()
    count = min(config.train.pieces_of(workers) // workers, _cpus())
    if count <= 1 or device.type != "cpu":
        return ONE
    torch.set_num_threads(_cpus() // count)
    return Threads(count)


def _cpus() -> int:
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
