import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli, evaluate, tracking, train
from tcmgc import config, recipes, storage
from tcmgc.config import flatten

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path for path in (ROOT / "pipeline").glob("*.py") if "__main__" in path.read_text()
)


def parse(*words):
    return cli.parse(train.Arguments, list(words), "train", "Trains.")


def test_a_recipe_with_changed_fields():
    arguments = parse(
        "msrvtt_7k", "--train.epochs", "3", "--head.attention.heads", "2", "--run.name", "mine"
    )
    assert arguments.config == config.replace(
        recipes.recipe("msrvtt_7k"), {"train.epochs": 3, "head.attention.heads": 2}
    )
    assert arguments.run.name == "mine"
    assert parse().config == recipes.recipe("demo")


def test_a_config_file_in_place_of_a_recipe(tmp_path):
    path = tmp_path / "c.json"
    config.save(recipes.recipe("vatex"), path)
    assert parse("--config", str(path), "--train.seed", "7").config == config.replace(
        recipes.recipe("vatex"), {"train.seed": 7}
    )
    with pytest.raises(ValueError, match="not both"):
        parse("vatex", "--config", str(path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["msrvtt"], "no recipe 'msrvtt'; known are demo, msrvtt_9k"),
        (
            ["--train.epocs", "3"],
            r"no field --train\.epocs; near it: --train\.epochs, [^;]{,60}$",
        ),
        (["--zzzz", "3"], r"no field --zzzz; --help lists them all$"),
        (["--config"], "--config needs the file"),
    ],
)
def test_unknown_words_list_the_known(words, message):
    with pytest.raises(ValueError, match=message):
        parse(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train.epochs", "three"], "--train.epochs: expected a whole number; got 'three'"),
        (["--train.epochs", "0"], "train.epochs must be at least 1; got 0"),
        (["--train.gpus", "some"], "invalid choice 'some' for argument '--train.gpus'"),
    ],
)
def test_values_of_the_wrong_type_are_one_sentence(words, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        parse(*words)
    assert "\n" not in str(caught.value)


def test_help_has_every_field(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse("--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    fields = [
        path.replace("_", "-")
        for path in flatten(recipes.recipe("demo"))
        if not path.endswith(".kind")
    ]
    assert [field for field in fields if f"--{field}" not in shown] == []


def test_every_command_has_help_from_a_bare_checkout():
    # From another folder, with nothing of the project on the path but each script's own folder.
    code = """
import contextlib, io, os, runpy, sys
for script in sys.argv[1:]:
    sys.argv, sys.path[0] = [script, "--help"], os.path.dirname(script)
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as stopped:
        assert not stopped.code, (script, stopped.code)
    assert "usage" in shown.getvalue(), script
    print(script)
"""
    shown = subprocess.run(
        [sys.executable, "-c", code, *map(str, SCRIPTS)],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.split() == [str(script) for script in SCRIPTS]


def test_errors_are_one_sentence_and_an_exit_code(capsys):
    def fail():
        raise ValueError("data.root is nowhere; give another")

    with pytest.raises(SystemExit) as stopped:
        cli.run(fail)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: data.root is nowhere; give another\n"


@pytest.mark.parametrize("word", ["--data.root", "--run.folder="])
@pytest.mark.parametrize("secret", ["secret", "se/cret"])
def test_a_password_in_an_address_is_refused(word, secret):
    address = f"s3://key:{secret}@bucket/a?region=eu"
    words = [word + address] if word.endswith("=") else [word, address]
    with pytest.raises(ValueError, match=r"s3://\.\.\. was .* AWS_ACCESS_KEY_ID") as caught:
        train.main(["demo", *words])
    assert "cret@" not in str(caught.value)
    assert not storage.has_password("s3://bucket/a:b@c")
    assert not storage.has_password("gs://anonymous@bucket/a?endpoint_override=host:1&scheme=http")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:5000/mlflow", "https://host:5000/mlflow"),
        ("postgresql://me:secret@host/db", "postgresql://host/db"),
        ("sqlite:////a/mlflow.db", "sqlite:////a/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///{home}/mlflow.db"),
    ],
)
def test_mlflows_address_is_shown_without_its_password(uri, shown, home, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking.shown() == shown.format(home=home)


def test_relative_paths_are_relative_to_home(home):
    assert cli.resolve("runs") == f"{home}/runs"
    assert cli.resolve("/elsewhere/runs") == "/elsewhere/runs"
    assert cli.resolve("s3://bucket/runs") == "s3://bucket/runs"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data.root", "nowhere", "--data.dataset", "msrvtt_9k"], "nowhere"),
        (["--towers.name", "ViT-B-33"], "open_clip has no model 'ViT-B-33'"),
        (["--data.max-words", "64"], "has positions for 32"),
        (["--data.val-videos", "0"], "no validation split"),
        (["--data.dataset", "msrvtt_10k"], "no data set 'msrvtt_10k'; known are demo"),
        (["--train.gpus", "always"], "the cluster has 0"),
    ],
)
def test_bad_input_ends_training_before_it_begins(words, message, quick, request):
    if "always" in words:
        request.getfixturevalue("cluster")
    with pytest.raises(ValueError, match=message):
        train.main(["demo", *quick, *words])


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(
        ValueError, match=r"is not a checkpoint: config\.json and model\.safetensors missing"
    ):
        evaluate.main(["--checkpoint", str(tmp_path)])


def test_the_library_stays_in_its_room():
    """Imports go tune_spaces → pipeline → tcmgc, and importing the library does nothing."""
    code = "import pkgutil, sys, tcmgc, importlib\n" + "\n".join(
        f"importlib.import_module({name!r})" for name in _library_modules()
    )
    code += "\nbad = {'ray', 'mlflow', 'pipeline', 'tune_spaces'} & set(sys.modules)\nassert not bad, bad"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    reaching = [
        path.name
        for path in (ROOT / "pipeline").glob("*.py")
        if any(
            line.startswith(("from tune_spaces", "import tune_spaces"))
            for line in path.read_text().splitlines()
        )
    ]
    assert set(reaching) <= {"compare.py", "report.py", "tune.py"}


def _library_modules():
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "tcmgc").rglob("*.py")
        if path.name != "__init__.py"
    )


def test_a_method_on_any_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    found = parse("msrvtt_9k", "--method", "xclip", "--train.epochs", "3").config
    wanted = config.replace(
        recipes.applied(recipes.recipe("msrvtt_9k"), "xclip"), {"train.epochs": 3}
    )
    assert found == wanted
    assert capsys.readouterr().err == "xclip: its authors' settings for msrvtt\n"
    assert found.train.batch_size == 300
    fair = parse("msrvtt_9k", "--method=xclip", "--fair").config
    assert fair.head == found.head
    assert fair.train == recipes.recipe("msrvtt_9k").train
    assert "recipe's, as for every method" in capsys.readouterr().err
    # Fields of the method's parts can be set.
    assert parse("demo", "--method", "drl", "--head.layers", "1").config.head.layers == 1
    with pytest.raises(ValueError, match="there is no method 'xpol'; near it: xpool"):
        parse("demo", "--method", "xpol")
    with pytest.raises(ValueError, match="--method needs one of clip4clip_meanp, "):
        parse("demo", "--method")
    with pytest.raises(ValueError, match="there is no field --fair"):
        parse("demo", "--fair")


def test_recipes_and_methods_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--list")
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (*recipes.RECIPES, *recipes.METHODS):
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line.split()) > 3
