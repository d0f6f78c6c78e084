"""Reads PyTorch's zip archives as data: nothing that a pickle names is imported or called.

``torch.load(weights_only=True)`` refuses TorchScript archives, which OpenAI published, and
any archive that contains objects of other classes in addition to the weights. Here every such object
becomes a :class:`Thing` that keeps its class's name and state.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Thing:
    """Placeholder for an object of any class; keeps its class's name and its state."""

    kind = "?"

    def __init__(self, *given: Any, **named: Any) -> None:
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Drop an item that a pickled list would append."""

    def extend(self, items: Any) -> None:
        """Drop several items."""

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(self.state, dict):
            self.state[key] = value


def read(path: Path) -> Any:
    """The content of the archive's ``data.pkl``; objects of classes become :class:`Thing`.

    Raises:
        ValueError: a member is missing or damaged; names it.
    """
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        inner = next((name for name in names if name.endswith("/data.pkl")), None)
        if inner is None:
            raise ValueError("it has no data.pkl")
        try:
            return _Reader(file, inner.removesuffix("data.pkl")).load()
        except (pickle.UnpicklingError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(str(error) or type(error).__name__) from error


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a module tree, by their dotted names."""
    if isinstance(value, Tensor):
        yield path.removesuffix("."), value
    elif isinstance(value, Thing) and isinstance(value.state, dict):
        for name, part in value.state.items():
            yield from tensors(part, f"{path}{name}.")


class _Reader(pickle.Unpickler):
    def __init__(self, file: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(file.read(f"{folder}data.pkl")))
        self.file, self.folder = file, folder
        self.storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        harmless = _HARMLESS.get((module, name))
        if harmless is not None:
            return harmless
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _DTYPES[name]
        return type("Thing", (Thing,), {"kind": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"a storage of an unknown kind: {pid!r:.80}")
        if key not in self.storages:
            data = bytearray(self.file.read(f"{self.folder}data/{key}"))
            self.storages[key] = (
                torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            )
        return self.storages[key]


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1
    if min(size, default=1) > 0 and not 0 < reach <= len(storage):
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _first(value: Any, *_: Any) -> Any:
    return value


_HARMLESS: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
}
"""The only names that are interpreted."""
