"""Read a file's tensors by name, and describe what kind of file it is."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from tcmgc.towers.weights import archive

FOLDER = "local-dir:"
"""open_clip's prefix for the path of a folder."""
_IN_FOLDERS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Weights:
    """A file's tensors."""

    path: str
    container: str
    """Description of the kind of file."""
    tensors: dict[str, Tensor]


def read(path: Path | str) -> Weights:
    """The tensors of a file or folder, in the file's precision.

    The container is recognised by its content: safetensors, PyTorch's archive (a state dict, or one inside
    a training checkpoint), a TorchScript archive, PyTorch's older pickles. Prefixes that
    ``DistributedDataParallel`` and ``torch.compile`` put before every name are removed.

    Raises:
        ValueError: no weights, or damaged ones; says what the file is and what to do.
    """
    file = _file(Path(str(path).removeprefix(FOLDER)))
    container, value = _contents(file)
    found = _plain(_state_dict(file, value))
    if not found:
        raise ValueError(f"{file} is {container} that holds no weights at all; give another file")
    _finite(file, found)
    return Weights(str(file), container, found)


def exists(path: str) -> bool:
    """Whether a name is a local file or folder."""
    return Path(path.removeprefix(FOLDER)).exists()


def _file(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"there is no file or folder {path}")
    if not path.is_dir():
        return path
    for name in _IN_FOLDERS:
        if (path / name).is_file():
            return path / name
    raise ValueError(
        f"the folder {path} holds no weights; expected one of {', '.join(_IN_FOLDERS)} in it"
    )


def _contents(file: Path) -> tuple[str, Any]:
    with file.open("rb") as opened:
        head = opened.read(256)
    start = head.lstrip().lower()
    if not head:
        raise ValueError(f"{file} is empty (0 bytes); download it again")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{file} is a Git LFS pointer and not the weights themselves; run `git lfs pull` in its repository, "
            "or download the file itself"
        )
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(
            f"{file} is a web page and not weights, as downloads leave behind where the address is wrong or "
            "needs a login; open it in a browser to see, and download again"
        )
    if head[8:9] == b"{":
        return "a safetensors file", _safetensors(file)
    if head.startswith(b"PK\x03\x04"):
        return _zip(file)
    if head.startswith(b"\x80"):
        return "a pickle of an older PyTorch", _pickle(file)
    raise ValueError(
        f"{file} is no file of weights: it begins with {head[:16]!r}; expected safetensors, a state dict saved "
        "by torch.save, or OpenAI's TorchScript archive"
    )


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(
            f"{file} is a safetensors file that is damaged or cut off ({_line(error)}); download it again"
        ) from error


def _zip(file: Path) -> tuple[str, Any]:
    try:
        with zipfile.ZipFile(file) as opened:
            names = opened.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{file} is a PyTorch archive that is cut off or damaged ({file.stat().st_size} bytes are there); "
            "download it again"
        ) from error
    try:
        if any(name.endswith("/constants.pkl") for name in names):
            return "a TorchScript archive", dict(archive.tensors(archive.read(file)))
        try:
            return "a PyTorch file", _load(file)
        except pickle.UnpicklingError:
            # The file also contains an object of a class that PyTorch does not know.
            return "a PyTorch file", archive.read(file)
    except (ValueError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} is a PyTorch archive that is damaged ({_line(error)}); download it again"
        ) from error


def _pickle(file: Path) -> Any:
    try:
        return _load(file)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file} is a pickle of Python objects, which cannot be read without running code; load it where it "
            "was made and save its state_dict() with torch.save"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} is a pickle that is damaged or cut off ({_line(error)}); download it again"
        ) from error


def _load(file: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # on pickle protocols; what it cannot read raises
        return torch.load(file, map_location="cpu", weights_only=True)


def _state_dict(file: Path, value: Any) -> Mapping[str, Any]:
    while isinstance(value, Mapping):
        inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            return value
        value = inner
    if isinstance(value, archive.Thing):
        raise ValueError(
            f"{file} is a whole pickled model (of class {value.kind}), which cannot be used without running "
            "code; load it where it was made and save its state_dict() with torch.save"
        )
    raise ValueError(
        f"{file} holds a {type(value).__name__} and not a dict of weights by name; save a model's state_dict()"
    )


def _plain(state: Mapping[str, Any]) -> dict[str, Tensor]:
    found = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _finite(file: Path, found: dict[str, Tensor]) -> None:
    wrong = [
        name
        for name, value in found.items()
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    if wrong:
        raise ValueError(
            f"{file} has values that are not finite (NaN or infinite) in {', '.join(wrong[:4])}"
            f"{f' and {len(wrong) - 4} more' if len(wrong) > 4 else ''}; the training that wrote it diverged: take an earlier one"
        )


def _line(error: BaseException) -> str:
    """An error's first line."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
