"""Commands that are printed or written down: each is one that there is, with options that it takes."""

import importlib
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli, tracking
from pipeline.run_state import database

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "cluster.yaml", "deploy/rayjob.yaml"]
PAGES += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]


class ParsedError(Exception):
    """Raised in place of what a command would do after it has read its words."""


def written() -> list[tuple[str, str]]:
    """``script.py words`` of every command in the pages, and the page."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text().replace("\\\n", " ")
        text = re.sub(r"\n    +--", " --", text)  # a folded YAML line
        for script, words in re.findall(r"pipeline/(\w+\.py)( [^\n`#|]*)?", text):
            if "python" in text[: text.index(f"pipeline/{script}")][-60:] or words:
                found.append((page, f"{script}{words}".strip()))
    return list(dict.fromkeys(found))


def takes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sure that a script takes the words that follow its name."""
    script, *words = shlex.split(command)
    module = importlib.import_module(f"pipeline.{script.removesuffix('.py')}")
    real = cli.parse

    def parse(kind: Any, argv: Any, *arguments: Any, **named: Any) -> Any:
        real(kind, argv, *arguments, **named)
        raise ParsedError

    monkeypatch.setattr(cli, "parse", parse)
    with pytest.raises(ParsedError):
        module.main(words)


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("page", "command"), written())
def test_what_is_written_down_is_taken(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = command.split("…")[0] if "…" in command else command
    if re.search(r"\b[A-Z]{3,}\b(?!/)", command) or command.endswith(".py"):
        pytest.skip(f"{page} names it only, or leaves a word to fill in: {command}")
    if "--list" in command.split():  # it prints and ends
        with pytest.raises(SystemExit) as stopped:
            takes(command, monkeypatch)
        assert not stopped.value.code
        return
    takes(command, monkeypatch)


def test_there_are_commands_of_many_scripts() -> None:
    scripts = {command.split()[0] for _, command in written()}
    assert len(scripts) >= 8, scripts


def test_a_printed_command_works_from_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(cli.command("report.py", "alpha", "--folder", "a b"))
    assert words[1:] == ["pipeline/report.py", "alpha", "--folder", "a b"]
    assert Path(words[0]).name.startswith("python")
    monkeypatch.chdir(tmp_path)
    assert Path(shlex.split(cli.command("report.py"))[1]) == ROOT / "pipeline/report.py"
    # A job's checkout is thrown away; its results lie in its own folder.
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("TCMGC_HOME", str(tmp_path / "x y"))
    assert cli.command("report.py", "alpha") == (
        f"TCMGC_HOME={shlex.quote(str(tmp_path / 'x y'))} python pipeline/report.py alpha"
    )


def test_the_interpreter_is_named_as_the_user_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert cli.python() == "python"
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.chdir(tmp_path)
    assert Path(cli.python()) == Path(sys.executable)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of MLflow's own, about its types
def test_mlflows_pages_are_opened_over_the_database_that_was_written(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.cli import cli as mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _, *words = shlex.split(tracking.look())
    assert words[:3] == ["-m", "mlflow", "ui"]
    command = mlflow.get_command(None, "ui")
    assert command is not None
    context = command.make_context("ui", words[3:])
    assert context.params["backend_store_uri"] == f"sqlite:///{home}/mlflow.db" == tracking.uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert tracking.look() == "http://host:5000"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_deleted_experiment_is_restored_by_the_command_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner
    from mlflow.cli import cli as mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    number = tracking.experiment("demo")
    database.client().delete_experiment(number)
    with pytest.raises(ValueError, match="was deleted; restore it: ") as caught:
        tracking.experiment("demo")
    given = shlex.split(str(caught.value).split("restore it: ")[1])
    name, _, value = given[0].partition("=")
    assert given[2:4] == ["-m", "mlflow"]
    answer = CliRunner().invoke(mlflow, given[4:], env={name: value})
    assert answer.exit_code == 0, answer.output
    assert tracking.experiment("demo") == number
