"""The README against the tree, and the commands that it and docs/cluster.md give."""

import re
from pathlib import Path

import list_of_files
import pytest

from pipeline import cli, train

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_list_of_files_is_the_tree() -> None:
    assert list_of_files.PAGE.read_text() == list_of_files.page(), (
        "run `python tests/list_of_files.py`"
    )


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
