"""The README against the tree, and the commands that it and docs/cluster.md give."""

import ast
import re
from pathlib import Path

import pytest

from pipeline import cli, train

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def line(folder: Path, path: Path) -> str:
    """A file's place and the first line of its docstring, or of its opening comment."""
    text = path.read_text()
    if path.suffix == ".py":
        said = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0].rstrip(".")
    else:
        said = text.splitlines()[0].removeprefix("// ").rstrip(".,:")
    said = said.replace("``", "`")
    return f"{path.relative_to(folder).as_posix():27}{said}"


@pytest.mark.parametrize("name", ["pipeline", "tcmgc", "tune_spaces", "benchmarks"])
def test_the_tree_in_the_readme_is_the_tree(name: str) -> None:
    folder = ROOT / name
    files = [
        path
        for path in folder.rglob("*")
        if path.suffix in (".py", ".cpp", ".h")
        and (path.name != "__init__.py" or path.parent.name == "native")
    ]
    expected = "\n".join(sorted(line(folder, path) for path in files))
    found = re.search(rf"\*\*`{name}/`: [^\n]*\*\*\n\n```\n(.*?)\n```", README, re.DOTALL)
    assert found, f"README.md has no tree of {name}/"
    assert found[1] == expected, f"the tree of {name}/ in README.md should be:\n{expected}"


def test_links_in_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert not [
        link for link in links if not link.startswith("http") and not (ROOT / link).exists()
    ]


COMMANDS = [
    words
    for page in (README, (ROOT / "docs/cluster.md").read_text())
    for words in re.findall(r"python pipeline/train\.py ([a-z][^\n#`]*)", page.replace("\\\n", " "))
]


@pytest.mark.parametrize("words", COMMANDS)
def test_training_commands_are_ones_that_there_are(words: str) -> None:
    assert cli.parse(train.Arguments, words.split(), "train", "Trains.").config


def test_there_are_training_commands() -> None:
    assert len(COMMANDS) > 4
