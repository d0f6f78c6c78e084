"""What an evaluating worker runs, and a training worker after every epoch."""

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from tcmgc.config import Config, from_dict
from tcmgc.datasets import Clip, Split
from tcmgc.frames.cache import FrameReader
from tcmgc.retrieval.evaluation import VIDEOS, batches_of, encode_texts, encode_videos, similarity
from tcmgc.retrieval.metrics import retrieval_metrics
from tcmgc.towers import backbone
from tcmgc.training import checkpoint, memory
from tcmgc.training.threads import ONE, Threads


def evaluate_worker(settings: dict[str, Any]) -> dict[str, float]:
    """Metrics of a checkpoint on a split."""
    settle()
    folder, split = settings["checkpoint"], ray.get(settings["split"][0])
    config = from_dict(settings["config"])
    device = ray.train.torch.get_device()
    with checkpoints.local(folder) as place:
        own, retriever = checkpoint.load(place)
        config = replace(config, towers=own.towers)
        reader = prepare.frame_cache(config).open(split.clips)
        tokenise = backbone.tokenizer(config.towers.name, config.data.max_words)
    threads = side_by_side(config, device)
    return evaluate_split(config, retriever.to(device), reader, split, tokenise, device, threads)


def evaluate_split(
    config: Config,
    retriever: model.Retriever,
    reader: FrameReader,
    split: Split,
    tokenise: Callable[[Sequence[str]], torch.Tensor],
    device: torch.device,
    threads: Threads,
) -> dict[str, float]:
    """Retrieval metrics over all captions and videos of a split, the same on every worker."""
    retriever.eval()
    size = config.train.chunk_size or VIDEOS
    batches = (
        tuple(tensor.to(device) for tensor in pair)
        for pair in prefetch(
            _pixels(reader, split.clips[batch]) for batch in batches_of(len(split), size)
        )
    )
    video = encode_videos(retriever, batches, len(split), batch_size=size, threads=threads)
    captions = [caption for _, caption in split.pairs()]
    owners = np.repeat(np.arange(len(split)), [len(clip.captions) for clip in split.clips])
    text = encode_texts(retriever, captions, tokenise, device=device, threads=threads)
    scores = similarity(retriever, text, video, threads=threads)
    return retrieval_metrics(scores.cpu().numpy(), owners)


def _pixels(
    reader: FrameReader, clips: Sequence[Clip]
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    def load() -> tuple[torch.Tensor, torch.Tensor]:
        pixels, mask = reader.read(clips)
        return torch.from_numpy(pixels), torch.from_numpy(mask)

    return load


def settle() -> None:
    """Ray gives a worker its CPUs; PyTorch would take one thread or all of them. And no chatter."""
    cli.quiet()
    memory.keep_freed_memory()
    torch.set_num_threads(_cpus())


def side_by_side(config: Config, device: torch.device) -> Threads:
    """A thread for each piece of a batch that falls to this worker, as far as its CPUs go.

    Each has its share of the CPUs.
    """
    workers = ray.train.get_context().get_world_size()
    count = min(config.train.pieces_of(workers) // workers, _cpus())
    if count <= 1 or device.type != "cpu":
        return ONE
    torch.set_num_threads(_cpus() // count)
    return Threads(count)


def _cpus() -> int:
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
