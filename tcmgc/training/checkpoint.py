"""A checkpoint is a folder that can be read without executing anything.

| file                    | content                                                      |
|-------------------------|--------------------------------------------------------------|
| `config.json`           | the complete config                                          |
| `model.safetensors`     | every weight, by its name in the model                       |
| `optimiser.safetensors` | Adam's two averages per weight, and the states of the generators |
| `training.json`         | the run's state: epoch, step, metrics, history               |
| `tower.json`            | the towers' open_clip JSON, if the config names a file       |
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tcmgc import config, model, storage

WEIGHTS, OPTIMISER, TRAINING, CONFIG, TOWER = (
    "model.safetensors",
    "optimiser.safetensors",
    "training.json",
    "config.json",
    "tower.json",
)
_OTHER = "take another checkpoint of the run; training goes on from the one before when this folder is deleted"


def save(
    folder: Path | str,
    settings: config.Config,
    retriever: nn.Module,
    optimiser: torch.optim.Optimizer | None,
    training: dict[str, Any],
) -> None:
    """Write a checkpoint into an existing folder; ``training`` is plain JSON.

    Raises:
        OSError: a file cannot be written, as on a full disk.
    """
    folder = Path(folder)
    config.save(settings, folder / CONFIG)
    if settings.towers.name.endswith(".json"):
        (folder / TOWER).write_text(Path(settings.towers.name).read_text())
    _write(_contiguous(retriever.state_dict()), folder / WEIGHTS)
    if optimiser is not None:
        _write(_optimiser_tensors(retriever, optimiser), folder / OPTIMISER)
    (folder / TRAINING).write_text(json.dumps(training))


def load(folder: Path | str) -> tuple[config.Config, model.Retriever]:
    """The config and the model with the checkpoint's weights, on the CPU.

    Raises:
        ValueError: not a checkpoint, damaged, or not of the shape that its config describes.
    """
    settings = read_config(folder)
    retriever = model.build(settings, load=False)
    load_weights(folder, retriever)
    return settings, retriever


def read_config(folder: Path | str) -> config.Config:
    """The checkpoint's config alone; a tower that was given as a file is the checkpoint's own copy.

    Raises:
        ValueError: the folder is not a checkpoint; names what is missing.
    """
    folder = Path(folder)
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} is not a checkpoint: {' and '.join(missing)} missing; "
            "give the folder that training named at its end"
        )
    settings = config.load(folder / CONFIG)
    if (folder / TOWER).is_file():
        settings = config.replace(settings, {"towers.name": str((folder / TOWER).absolute())})
    return settings


def read_training(folder: Path | str) -> dict[str, Any]:
    """The run's state when the checkpoint was written.

    Raises:
        ValueError: the file cannot be read.
    """
    path = Path(folder) / TRAINING
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {_OTHER}") from error


def load_weights(folder: Path | str, retriever: nn.Module) -> None:
    """Load the checkpoint's weights into a model.

    Raises:
        ValueError: names the first weight that is missing, left over, of another shape or not finite.
    """
    found = _read(Path(folder) / WEIGHTS)
    wanted = retriever.state_dict()
    for name in sorted(set(found) | set(wanted)):
        have, want = found.get(name), wanted.get(name)
        if have is None or want is None or have.shape != want.shape:
            raise ValueError(
                f"checkpoint {folder}: weight {name} is {_shape(have)} in the file and {_shape(want)} in the model; "
                "the config must be the one that the checkpoint was trained with"
            )
        if have.is_floating_point() and not bool(have.isfinite().all()):
            raise ValueError(
                f"checkpoint {folder}: weight {name} has values that are not finite; {_OTHER}"
            )
    retriever.load_state_dict(found)


def load_optimiser(
    folder: Path | str, retriever: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """Restore Adam's averages and the generators' states."""
    tensors = _read(Path(folder) / OPTIMISER)
    names = {parameter: name for name, parameter in retriever.named_parameters()}
    for group in optimiser.param_groups:
        # Device of Adam's step counter: with the weights if fused, else the CPU.
        counts_beside = group.get("fused", False)
        for parameter in group["params"]:
            start = f"state.{names[parameter]}."
            state = {
                key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)
            }
            if state:
                optimiser.state[parameter] = {
                    key: value.to(parameter.device) if key != "step" or counts_beside else value
                    for key, value in state.items()
                }
    torch.set_rng_state(tensors["generator.cpu"])
    if "generator.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["generator.cuda"])


def _optimiser_tensors(retriever: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {p: name for name, p in retriever.named_parameters()}
    tensors = {
        f"state.{names[parameter]}.{key}": torch.as_tensor(value)
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
    }
    tensors["generator.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["generator.cuda"] = torch.cuda.get_rng_state()
    return _contiguous(tensors)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        with storage.usual_rights(path):
            save_file(tensors, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())  # some file systems report a full disk only here
    except safetensors.SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}); {_OTHER}") from error


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
