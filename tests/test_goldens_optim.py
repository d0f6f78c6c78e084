"""Optimisers and schedules against eight steps of their authors' published code."""

import json
from pathlib import Path
from typing import Any

import golden_files
import pytest
from safetensors import safe_open
from torch import Tensor, nn

from tcmgc.config import Optim
from tcmgc.training import optim

NAMES = {
    "clip.visual.": "visual.",
    "clip.logit_scale": "scale.log",
    "clip.": "text.",
    "transformerClip.": "temporal.",
    "": "head.",
}
"""Where the model here keeps what their names begin with."""


def options(config: dict[str, Any]) -> Optim:
    rates = {"lr_clip": config.get("clip_lr"), "lr_new": config.get("noclip_lr")}
    if "lr" in config:
        rates = {"lr_clip": config["lr"] * config["coef_lr"], "lr_new": config["lr"]}
    common: dict[str, Any] = {"weight_decay": config["wd"], "warmup": config["warmup"], **rates}
    rules: dict[str, dict[str, Any]] = {
        "bertadam": {"kind": "adam", "schedule": "warmup_cosine"},
        "centerclip": {"kind": "adamw", "schedule": "centerclip"},
        "xpool": {
            "kind": "hf_adamw",
            "schedule": "hf_cosine",
            "decay": "all",
            "betas": (0.9, 0.999),
        },
    }
    return Optim(**common, **rules[config["kind"]])


def ours(name: str) -> str:
    start = next(start for start in NAMES if name.startswith(start))
    return NAMES[start] + name[len(start) :]


def put(model: nn.Module, name: str, value: Tensor) -> None:
    """A parameter at a dotted name."""
    *path, last = name.split(".")
    for part in path:
        if part not in dict(model.named_children()):
            model.add_module(part, nn.Module())
        model = model.get_submodule(part)
    model.register_parameter(last, nn.Parameter(value))


@pytest.mark.parametrize("path", golden_files.found("optim/*.safetensors"), ids=golden_files.label)
def test_steps_are_the_authors(path: Path) -> None:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])
    model = nn.Module()
    for name in config["shapes"]:
        put(model, ours(name), tensors[f"param.{name}"].clone())
    weights, chosen = dict(model.named_parameters()), options(config)
    optimiser = optim.build_optimiser(model, chosen)
    for step in range(config["steps"]):
        optim.set_rate(optimiser, optim.rate(step, config["total"], chosen))
        for name in config["shapes"]:
            weights[ours(name)].grad = tensors[f"input.grad{step}.{name}"].clone()
        optim.clip_gradients(model, chosen.clip_norm)
        optimiser.step()
        for name in config["shapes"]:
            expected = tensors[f"output.step{step}.{name}"]
            found = weights[ours(name)].detach()
            assert (found - expected).abs().max() <= 1e-6 * expected.abs().max(), (step, name)
