"""docs/extending.md against the code: what it shows is what there is."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest
from head_cases import PEERS
from test_step import CASES

from tcmgc import config
from tcmgc.config import Kind
from tcmgc.recipes import METHODS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()
SHOWN = re.findall(r"`([\w/.]+\.py)`:\n\n```python\n(.*?)\n```", PAGE, re.DOTALL)
FAMILIES = re.findall(r"^\| [\w ]+ \| `(\w+)` \| `([\w/.]+)`", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("path", "code"), SHOWN, ids=[path for path, _ in SHOWN])
def test_code_on_the_page_is_in_the_file(path: str, code: str) -> None:
    assert code in (ROOT / path).read_text()


def test_all_of_the_new_file_is_shown() -> None:
    whole = (ROOT / "tcmgc/heads/mean_max.py").read_text()
    (shown,) = [code for path, code in SHOWN if path == "tcmgc/heads/mean_max.py"]
    assert shown + "\n" == whole
    assert len(SHOWN) == 6


def test_families_of_the_table_are_all_that_there_are() -> None:
    assert len(FAMILIES) == 4
    for name, path in FAMILIES:
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        family = getattr(module, name)
        assert Kind in family.__bases__
        for kind in family.kinds.values():
            assert dataclasses.is_dataclass(kind)
    assert {name for name, _ in FAMILIES} == {kind.__name__ for kind in Kind.__subclasses__()}


def test_the_example_is_a_method_like_any_other() -> None:
    assert isinstance(METHODS["mean_max"].head, config.MeanMaxHead)
    assert config.MeanMaxHead() in PEERS.values()
    assert any(case.get("head") == config.MeanMaxHead() for case in CASES.values())


def test_nothing_else_knows_the_head() -> None:
    """Its names stand in its own file, its entry, the lists of exports, and where zero-shot search takes it."""
    known = {
        "pipeline/training/zero_shot.py",
        "tcmgc/search/zero_shot.py",
        "tcmgc/config/__init__.py",
        "tcmgc/config/peers.py",
        "tcmgc/heads/__init__.py",
        "tcmgc/heads/mean_max.py",
        "tcmgc/recipes/methods.py",
    }
    folders = ("tcmgc", "pipeline", "tune_spaces")
    found = {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bMeanMax(Head)?\b", path.read_text())
    }
    assert found == known
