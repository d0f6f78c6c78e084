"""Costs of each method of a comparison, measured one after the other without parallel work."""

from typing import Any

import ray
import torch

from pipeline import cli
from pipeline.cluster import placement as cluster
from pipeline.run_state import run_folder
from pipeline.sweeps.comparison import Comparison
from tcmgc import model
from tcmgc.config import Config, from_dict, replace, to_dict
from tcmgc.datasets import Split
from tcmgc.datasets.splits import captions
from tcmgc.retrieval import costs

FILE = "costs.json"
"""File in the comparison's folder."""
_QUIET = {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""PyTorch's profiler logs each time that it starts, stops, and finds no GPU."""


def measure(comparison: Comparison, test: Split) -> dict[str, dict[str, float]]:
    """Costs by method; those already in the comparison's folder are not measured again.

    Args:
        comparison: Its methods and their configs.
        test: Its numbers of captions and videos are those scored.
    """
    found = run_folder.read(comparison.place, FILE) or {}
    left = [method for method in comparison.methods if method not in found]
    if not left:
        return found
    config = replace(comparison.of(left[0]), {"train.workers": 1, "train.min_workers": 0})
    where = cluster.placement(config)
    task = ray.remote(num_cpus=where.cpus, num_gpus=1 if where.gpu else 0)(_measure)
    task = task.options(runtime_env={"env_vars": _QUIET})
    for method in left:
        settings = to_dict(comparison.of(method))
        found[method] = ray.get(task.remote(settings, captions(test), len(test)))
        run_folder.write(comparison.place, FILE, found)
        print(f"  costs of {method}: {said(found[method])}", flush=True)
    return found


def said(cost: dict[str, float]) -> str:
    """A line of progress output."""
    return (
        f"{cost['parameters'] / 1e6:.2f} M parameters, {cost['encoding_ms']:.2f} ms a video to encode, "
        f"{cost['similarity_ms']:.3f} ms for its similarities"
    )


def _measure(settings: dict[str, Any], texts: int, videos: int) -> dict[str, float]:
    cli.quiet()
    assigned = ray.get_runtime_context().get_assigned_resources()
    torch.set_num_threads(max(1, int(assigned.get("CPU", 1))))
    config: Config = from_dict(settings)
    retriever = model.build(config)
    numbers = costs.parameters(retriever)
    products = costs.multiply_adds(config, retriever)
    retriever.to("cuda" if ray.get_gpu_ids() else "cpu")
    step = costs.training_step(config, retriever)
    return {
        "parameters": numbers.all,
        "trained": numbers.trained,
        "counted_parameters": numbers.counted,
        "multiply_adds_text": products.text,
        "multiply_adds_video": products.video,
        "multiply_adds_pair": products.pair,
        "counted_multiply_adds": products.counted,
        "step_ms": 1000 * step.seconds,
        "step_mb": step.bytes / 1e6,
        "encoding_ms": 1000 * costs.encoding_time(config, retriever),
        "similarity_ms": 1000 * costs.similarity_time(config, retriever, texts, videos) / videos,
        "batch": config.train.batch_size,
    }
