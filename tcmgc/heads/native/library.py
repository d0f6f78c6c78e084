"""Build the C++ library on first use, and load it.

It is compiled in a few seconds into the user's cache folder, for the present processor.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tcmgc.heads.native import structs

_SOURCE = Path(__file__).with_name("library.cpp")
_FLAGS = (
    *("-O3", "-march=native", "-std=gnu++17", "-fopenmp", "-pthread", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
_off = False


def available(like: Tensor) -> bool:
    """Whether :mod:`tcmgc.heads.native` can be used on tensors like this one."""
    if _off or like.device.type != "cpu" or like.dtype != torch.float32:
        return False
    return library() is not None


@contextmanager
def off() -> Iterator[None]:
    """Disable the library inside this context, for comparisons."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


@functools.cache
def lanes() -> int:
    """Number of videos that are processed side by side."""
    found = library()
    assert found is not None
    return int(found.tcmgc_lanes())


@functools.cache
def library() -> ctypes.CDLL | None:
    """The library; None, with a warning, if it cannot be built or loaded.

    Raises:
        RuntimeError: its structs are not those of :mod:`tcmgc.heads.native.structs`.
    """
    if os.environ.get("TCMGC_NATIVE", "1") == "0":
        return None
    try:
        path = str(_built())
        found = ctypes.CDLL(path)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        warnings.warn(
            "the C++ part of TC-MGC's similarity cannot be built or loaded, so it runs in torch: the "
            f"same result, more slowly. A C++ compiler (g++) is what is usually missing. {detail.strip()[:400]}",
            stacklevel=2,
        )
        return None
    structs.check(found, path)
    return found


def call(name: str, *arguments: Any) -> None:
    """Call a function of the library with tensors, structs and numbers.

    Raises:
        MemoryError: the function could not allocate its working memory.
    """
    given = [
        ctypes.c_void_p(argument.data_ptr())
        if isinstance(argument, Tensor)
        else ctypes.byref(argument)
        if isinstance(argument, ctypes.Structure)
        else argument
        for argument in arguments
    ]
    if getattr(library(), name)(*given):
        raise MemoryError("no memory left for the similarity of a text and a few videos")


def _built() -> Path:
    """Path of the library for this source, compiler and processor; built if it does not exist."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or "c++"
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True
    ).stdout
    sources = [path.read_text() for path in sorted(_SOURCE.parent.glob("*.[ch]*"))]
    key = "\0".join([*sources, *_FLAGS, version, _processor()])
    cache = _cache()
    target = cache / f"native-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            aside = Path(folder) / target.name
            subprocess.run(
                [compiler, *_FLAGS, str(_SOURCE), "-o", str(aside)],
                capture_output=True,
                text=True,
                check=True,
            )
            aside.replace(target)
    return target


def _cache() -> Path:
    """The user's cache folder; without a writable home, a folder of this user among temporary files."""
    try:
        above = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        cache = Path(above) / "tcmgc"
        if "~" not in above:
            cache.mkdir(parents=True, exist_ok=True)
            if os.access(cache, os.W_OK):
                return cache
    except OSError:
        pass
    cache = Path(tempfile.gettempdir()) / f"tcmgc-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid != os.getuid():  # code is loaded from here: it must be ours
        raise PermissionError(f"{cache} belongs to another user; set XDG_CACHE_HOME")
    return cache


def _processor() -> str:
    """Description of the processor, which decides the instructions that ``-march=native`` uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(
        line
        for line in dict.fromkeys(lines)
        if line.startswith(("flags", "Features", "model name"))
    )
