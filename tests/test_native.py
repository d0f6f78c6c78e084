"""The C++ library: how it is checked when it is loaded, and its threads."""

import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from tcmgc.heads import native
from tcmgc.heads.native import structs
from tcmgc.heads.native.library import library
from tcmgc.heads.parts.interactions import max_interaction

pytestmark = pytest.mark.skipif(not native.available(torch.empty(0)), reason="needs a C++ compiler")


class Swapped(structs.Struct):
    """Pairs with two members the other way round."""

    _fields_: ClassVar = [*structs.Pairs._fields_[1::-1], *structs.Pairs._fields_[2:]]


class Shorter(structs.Struct):
    """Pairs without its last member."""

    _fields_: ClassVar = structs.Pairs._fields_[:-1]


@pytest.mark.parametrize(
    ("wrong", "named"), [(Swapped, r"Pairs\.words"), (Shorter, r"Pairs: .*\(0, 64\) there")]
)
def test_structs_that_differ_are_an_error(
    wrong: type[structs.Struct], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = library()
    assert found is not None
    structs.check(found, "native.so")
    wrong.__name__ = "Pairs"
    others = [struct for struct in structs.STRUCTS if struct is not structs.Pairs]
    monkeypatch.setattr(structs, "STRUCTS", (*others, wrong))
    with pytest.raises(RuntimeError, match=rf"native\.so .* {named}.*delete the file"):
        structs.check(found, "native.so")


def test_a_struct_that_the_library_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unknown(structs.Struct):
        _fields_: ClassVar = [("size", ctypes.c_int64)]

    found = library()
    assert found is not None
    monkeypatch.setattr(structs, "STRUCTS", (*structs.STRUCTS, Unknown))
    with pytest.raises(RuntimeError, match=r"Unknown: .* None there"):
        structs.check(found, "native.so")


def work(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    words = torch.randn(20, 6, 32, generator=generator)
    frames = torch.randn(300, 5, 32, generator=generator)
    with torch.no_grad():
        return max_interaction(words, torch.full((20, 6), 1 / 6), frames)


def test_calls_from_many_threads_at_once_give_what_each_gives_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = [work(seed) for seed in range(8)]
    torch.set_num_threads(4)
    try:

        def repeated(seed: int) -> bool:
            torch.set_num_threads(3)
            return all(torch.equal(work(seed), alone[seed]) for _ in range(30))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(repeated, range(8)))
    finally:
        torch.set_num_threads(before)


FORKED = """
import os, sys, torch
sys.path.insert(0, "tests")
torch.set_num_threads(3)
from test_native import work
expected = work()
child = os.fork()
if not child:
    # No helper of the parent's lives here: they have to be begun anew.
    same = all(torch.equal(work(), expected) for _ in range(5))
    tasks = "/proc/self/task"
    os._exit(0 if same and (not os.path.exists(tasks) or len(os.listdir(tasks)) == 3) else 1)
assert torch.equal(work(), expected)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_has_helpers_of_its_own() -> None:
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], cwd=root, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
