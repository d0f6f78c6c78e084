"""docs/extending.md against the code that it shows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()
SHOWN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FILES = ("tcmgc/heads/mean_max.py", "tcmgc/config/peers.py", "tcmgc/recipes/methods.py")


def test_there_is_a_block_a_file() -> None:
    assert len(SHOWN) == len(FILES)


@pytest.mark.parametrize(("block", "name"), list(zip(SHOWN, FILES, strict=True)), ids=FILES)
def test_what_the_page_shows_is_in_the_file(block: str, name: str) -> None:
    assert block.strip("\n") in (ROOT / name).read_text()


def test_no_other_module_names_the_head() -> None:
    # Zero-shot search and evaluation choose the head as a user would.
    users = {"tcmgc/search/zero_shot.py", "pipeline/training/zero_shot.py"}
    allowed = {*FILES, *users, "tcmgc/heads/__init__.py", "tcmgc/config/__init__.py"}
    naming = [
        path.relative_to(ROOT).as_posix()
        for folder in ("tcmgc", "pipeline", "tune_spaces")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bMeanMax(Head)?\(", path.read_text())
    ]
    assert set(naming) <= allowed, set(naming) - allowed
