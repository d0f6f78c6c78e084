"""``tcmgc``, its completion, ``--help``, and what a terminal and a pipe are shown."""

import importlib
import io
import subprocess
import sys
from dataclasses import fields

import pytest

from pipeline import cli, train
from pipeline.interface import command, completion, front, rehearsal, terminal, usage
from pipeline.run_state import news
from tcmgc import recipes
from tcmgc.config import flatten


def candidates(*line: str) -> list[str]:
    """What may stand in place of the last word."""
    return completion.candidates([str(len(line) - 1), *line], list(command.commands()))


def test_every_script_is_a_command(capsys):
    with_main = {
        path.stem
        for path in command.HERE.glob("*.py")
        if "\nif __name__ ==" in path.read_text() and path.stem != "command"
    }
    assert {"train", "evaluate", "tune", "report", "inspect_run", "check_data"} <= with_main
    assert set(command.commands()) == with_main
    command.main(["--help"])
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in with_main)


def test_versions_and_lists(capsys):
    command.main(["--version"])
    assert capsys.readouterr().out.startswith("tcmgc ")
    command.main(["--list"])
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in recipes.RECIPES)
    assert "  joint " in said


def test_a_command_that_there_is_not(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["trian", "demo"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: there is no command 'trian'; near it: train\n"


def test_a_command_is_its_script(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tcmgc"])
    with pytest.raises(SystemExit) as stopped:
        command.main(["train", "demo", "--train.epocs", "3"])
    assert stopped.value.code == 2
    assert "there is no field --train.epocs; near it: --train.epochs" in capsys.readouterr().err
    assert sys.argv[0].endswith("pipeline/train.py")


def test_completion():
    assert candidates("tcmgc", "tr") == ["train"]
    assert "evaluate" in candidates("tcmgc", "")
    assert candidates("tcmgc", "train", "msrvtt_9k_x") == [
        name for name in recipes.RECIPES if name.startswith("msrvtt_9k_x")
    ]
    assert candidates("tcmgc", "tune", "keep_rate_v") == ["keep_rate_video_word"]
    assert "demo" in candidates("tcmgc", "tune", "joint", "")
    assert candidates("tcmgc", "train", "demo", "--train.ep") == ["--train.epochs"]
    assert candidates("tcmgc", "train", "demo", "--data.frame-format", "") == ["raw", "jpeg"]
    assert candidates("tcmgc", "train", "demo", "--data.augment", "T") == ["True"]
    assert candidates("tcmgc", "evaluate", "--checkpoint", "") == []  # the shell's own: files


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shells_script_asks_the_command(shell):
    assert "tcmgc __complete" in completion.script(shell)
    with pytest.raises(ValueError, match="completion for 'csh' is not known; known are bash"):
        completion.script("csh")


def test_bash_completes_with_it(tmp_path):
    run = tmp_path / "tcmgc"
    run.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline.interface.command "$@"\n')
    run.chmod(0o755)
    words = "COMP_WORDS=(tcmgc train demo --train.epo) COMP_CWORD=3"
    script = f'{completion.script("bash")}\n{words}\n_tcmgc\necho "${{COMPREPLY[@]}}"'
    said = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(cli.CHECKOUT)},
    )
    assert said.stdout.split() == ["--train.epochs"]


def test_help_is_a_line_a_field(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.parse(train.Arguments, ["demo", "--help"], "train", "Trains.")
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for path in flatten(recipes.recipe("demo")):
        if not path.endswith(".kind"):
            found = [line for line in lines if line.startswith(f"  --{path.replace('_', '-')} ")]
            assert len(found) == 1, path
    epochs = next(line for line in lines if line.startswith("  --train.epochs "))
    assert epochs.split("  ")[1:] != []
    assert "INT = 4" in epochs
    assert epochs.endswith("Times that training goes through all pairs of caption and video.")


@pytest.mark.parametrize("name", command.commands())
def test_help_is_made_without_the_imports_of_a_script(name):
    """The same fields with the same values as the script's own class has."""
    kind, about = front.arguments(command.HERE / f"{name}.py")
    own = importlib.import_module(f"pipeline.{name}")
    assert about == own.__doc__.strip()
    shown = [[(f.name, f.default) for f in fields(one)] for one in (kind, own.Arguments)]
    assert shown[0] == shown[1]
    assert usage.field_docs(kind) == usage.field_docs(own.Arguments)


def test_help_comes_before_torch_ray_and_mlflow():
    code = """
import runpy, sys
sys.argv = [sys.argv[1], "demo", "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stopped:
    assert not stopped.code
heavy = {"torch", "ray", "mlflow"} & set(sys.modules)
assert not heavy, heavy
"""
    said = subprocess.run(
        [sys.executable, "-c", code, str(command.HERE / "train.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert "--train.epochs INT = 4" in said.stdout


def test_types_as_a_person_reads_them():
    hints = {"a": int, "b": str | None, "c": tuple[str, ...], "d": tuple[float, float], "e": bool}
    assert {name: usage.spelled(kind) for name, kind in hints.items()} == {
        "a": "INT",
        "b": "STR",
        "c": "STR …",
        "d": "FLOAT FLOAT",
        "e": "{True,False}",
    }


def test_switches_need_no_value():
    said = cli.parse(train.Arguments, ["demo", "--dry-run", "--quiet", "False"], "train", "Trains.")
    assert said.dry_run is True
    assert said.quiet is False


def test_a_dry_run_shows_everything_and_writes_nothing(quick, home, capsys):
    before = {str(path) for path in home.rglob("*")}
    assert train.main(["demo", *quick, "--run.name", "dry", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert {str(path) for path in home.rglob("*")} == before
    assert "steps    20: 2 epochs of 10" in said
    assert "32 of 32 videos" in said
    assert "train.epochs                    2" in said
    assert "GiB" in said or "MiB" in said


def test_a_dry_run_does_not_make_the_demo_corpus(tmp_path, capsys):
    place = tmp_path / "demo"
    rehearsal.show(
        cli.parse(train.Arguments, ["demo", "--data.root", str(place)], "t", "").config, "/runs/x"
    )
    assert "the demo corpus is not there yet" in capsys.readouterr().out
    assert not place.exists()


class Wire:
    """News as workers leave them."""

    def __init__(self) -> None:
        self.said = {"count": 0, "lines": [], "now": None}

    def say(self, text: str, step: bool = False) -> None:
        self.said["count"] += 1
        self.said["lines"].append({"text": text, "step": step})

    def news(self) -> list[dict]:
        return [self.said]


NOW = {"step": 5, "steps": 10, "loss": 1.25, "rate": 32.0, "steps_a_second": 2.0}


def test_a_pipe_gets_every_line_once_and_no_colour(capsys):
    wire = Wire()
    with terminal.following(wire):
        wire.say("step 1 of 10: loss 2.000", step=True)
        wire.said["now"] = NOW
    with terminal.following(wire):
        wire.say("epoch 1 of 1: validation SumR 200.0")
    said = capsys.readouterr()
    assert said.out.count("step 1 of 10") == 2  # once for each who follows
    assert said.out.count("epoch 1 of 1") == 1
    assert "\x1b" not in said.out + said.err
    assert "\r" not in said.out + said.err


def test_a_terminal_has_a_live_line_in_place_of_lines_of_steps(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "live", lambda: True)
    wire = Wire()
    with terminal.following(wire):
        wire.say("step 1 of 10: loss 2.000", step=True)
        wire.say("epoch 1 of 1: validation SumR 200.0")
        wire.said["now"] = {**NOW, "last": 200.0, "best": 210.0}
    said = capsys.readouterr()
    assert "step 1 of 10" not in said.out
    assert "epoch 1 of 1: validation SumR 200.0" in said.out
    assert "step 5 of 10" in said.err
    assert "loss 1.250, 32 pairs a second, 2 s left, validation SumR 200.0 (best 210.0)" in said.err


def test_lines_that_came_too_fast_are_not_said_twice():
    screen = terminal._Screen()
    out = io.StringIO()
    screen._write = lambda text: out.write(f"{text}\n")  # type: ignore[method-assign]
    lines = [{"text": str(n), "step": False} for n in range(3)]
    screen.show([{"count": 3, "lines": lines, "now": None}])
    screen.show([{"count": 3, "lines": lines, "now": None}])
    screen.show([{"count": 300, "lines": lines, "now": None}])
    assert out.getvalue().split() == ["0", "1", "2", "0", "1", "2"]


def test_what_a_worker_says_reaches_the_driver_also_after_a_restart(cluster):
    wire = news.Wire("tcmgc/test")
    first = news.Teller("tcmgc/test", news.WORKER)
    assert first.due()
    first.say("one")
    assert first.due()  # lines do not keep the live line back
    first.state(step=1)
    assert not first.due()
    again = news.Teller("tcmgc/test", news.WORKER)  # the process was lost, another goes on
    again.say("two")
    news.Report("tcmgc/test").after_exception(None, {1: RuntimeError("a\nnode died")})
    worker, controller = wire.news()
    assert [line["text"] for line in worker["lines"]] == ["one", "two"]
    assert worker["now"] == {"step": 1}
    assert [line["text"] for line in controller["lines"]] == ["lost worker 1: node died"]
    wire.wipe()
    assert [said["count"] for said in wire.news()] == [0, 0]


@pytest.mark.parametrize(
    ("seconds", "said"), [(45, "45 s"), (185.9, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds, said):
    assert terminal.duration(seconds) == said


def test_progress_in_a_pipe_is_a_line_now_and_then(capsys):
    bar = terminal.Progress("videos", 3)
    for bad in (False, True, False):
        bar.step(bad=bad)
    assert capsys.readouterr().out.splitlines()[-1].startswith("  3 of 3 videos, ")


def test_quiet_leaves_the_result_and_errors(capsys):
    with terminal.silent(True):
        print("progress")
    print("result")
    assert capsys.readouterr().out == "result\n"
