"""What people get wrong on a command line: one sentence, exit code 2, and nothing done before."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import (
    cache_frames,
    check_cluster,
    check_data,
    cli,
    evaluate,
    inspect_run,
    make_demo,
    report,
    train,
    tune,
)
from pipeline.cluster import placement
from pipeline.inputs import stages
from tcmgc import config, model, recipes
from tcmgc.training import checkpoint

TRAIN = [
    # Words and values.
    ("msrvtt", "there is no recipe 'msrvtt'; known are demo"),
    ("demo extra", "unrecognized options: extra"),
    ("demo --train.epocs 3", r"no field --train\.epocs; near it: --train\.epochs"),
    ("demo --train.epochs", r"missing value for argument '--train\.epochs'"),
    ("demo --train.epochs three", r"train\.epochs: expected a whole number; got 'three'"),
    ("demo --train.epochs 2.5", r"train\.epochs: expected a whole number; got '2\.5'"),
    ("demo --optim.lr-new fast", r"optim\.lr-new: expected a number; got 'fast'"),
    ("demo --optim.lr-new inf", r"optim\.lr-new must be a finite number; got inf"),
    ("demo --data.augment maybe", "data.augment'; expected one of .*True.*False"),
    ("demo --train.gpus some", "expected one of .*auto.*always.*never"),
    ("demo --optim.betas 0.9", "optim.betas'; expected 2"),
    # The run.
    ("demo --train.epochs 0", r"train\.epochs must be at least 1; got 0"),
    ("demo --train.batch-size 1", r"train\.batch_size must be at least 2"),
    ("demo --train.batch-size 100000", r"training has \d+ pairs.*lower it to at most"),
    ("demo --train.workers 0", r"train\.workers must be at least 1; got 0"),
    ("demo --train.workers -1", r"train\.workers must be at least 1; got -1"),
    ("demo --train.workers 32", r"train\.batch_size|train\.pieces|train\.workers"),
    ("demo --train.workers 2 --train.min-workers 3", r"train\.min_workers \(3\) must lie between"),
    ("demo --train.chunk-size -1", r"train\.chunk_size must not be negative"),
    ("demo --train.pieces 3", r"train\.pieces must be 0 or a power of two; got 3"),
    ("demo --train.seed -1", r"train\.seed must lie in \[0, 2\*\*32\); got -1"),
    ("demo --train.seed 12345678901", r"train\.seed must lie in \[0, 2\*\*32\)"),
    ("demo --train.keep-checkpoints 0", r"train\.keep_checkpoints must be at least 1"),
    ("demo --train.checkpoint-minutes -1", "must not be negative"),
    ("demo --train.max-failures -2", r"train\.max_failures must be at least -1"),
    ("demo --cluster.cpus-per-worker -1", r"cluster\.cpus_per_worker must not be negative"),
    ("demo --cluster.decode-workers -1", r"cluster\.decode_workers must not be negative"),
    # The optimiser and the loss.
    ("demo --optim.lr-new -1", r"optim\.lr_new must not be negative"),
    ("demo --optim.warmup 1.5", r"optim\.warmup is a share of the steps in \[0, 1\)"),
    ("demo --optim.clip-norm 0", r"optim\.clip_norm must be above 0"),
    ("demo --optim.betas 0.9 1.5", r"optim\.betas must lie in \[0, 1\)"),
    ("demo --optim.eps -1", r"optim\.eps must be above 0"),
    ("demo --loss.scale 0", r"loss\.scale must be above 0"),
    # The model.
    ("demo --towers.name ViT-B-33", "open_clip has no model 'ViT-B-33'; near it"),
    ("demo --towers.name gone.json", r"there is no file .*/gone\.json"),
    ("demo --towers.name {words}", "open_clip has no model '.*words'"),
    ("demo --towers.name {tower}", r"tower\.json cannot be read as JSON"),
    ("demo --towers.pretrained laion", "'laion' is neither a file nor a tag"),
    ("demo --towers.pretrained weights/gone.pt", r"weights/gone\.pt"),
    ("demo --temporal.heads 5", "heads|divi"),
    ("demo --head.attention.heads 5", "heads|divi"),
    ("demo --head.reorganise.keep-rate 0", r"keep_rate must be in \(0, 1\]"),
    ("demo --head.reorganise.keep-rate 0.001", "keeps no word"),
    ("demo --head.grains video_sentence", "one score: nothing to decorrelate"),
    ("demo --head.grains video_video", "video_video"),
    # The data.
    ("demo --data.dataset msrvtt_10k", "no data set 'msrvtt_10k'; known are demo"),
    ("msrvtt_9k --data.root nowhere", "nowhere"),
    ("demo --data.max-words 2", r"data\.max_words must be at least 3"),
    ("demo --data.max-words 64", "has positions for 32 words at most"),
    ("demo --data.max-frames 0", r"data\.max_frames must be at least 1"),
    ("demo --data.fps 0", r"data\.fps must be above 0"),
    ("demo --data.val-videos -1", r"data\.val_videos must not be negative"),
    ("demo --data.val-videos 0", "no validation split"),
    ("demo --data.val-videos 5000", r"data\.val_videos|training videos"),
    ("demo --data.max-unreadable 2", r"data\.max_unreadable is a share between 0 and 1"),
    ("demo --data.cache {words}", "--data.cache .*words: .* is not a folder"),
    # Places.
    ("--config", "--config needs the file"),
    ("--config gone.json", r"there is no file .*/gone\.json \(relative paths are relative to"),
    ("--config {words}", "is not a config"),
    ("--config {config} --loss.alpha x", "loss.alpha: expected a number"),
    ("demo --config {config}", "not both"),
    ("--config {unknown}", "unknown field nonsense"),
    ("--resume", "--resume needs a run"),
    ("--resume runs/gone", "neither a run's folder nor an id"),
    ("demo --resume runs/gone", "with the run's own config"),
    ("demo --run.name ..", r"--run\.name '\.\.' cannot be a folder's name"),
    ("demo --run.name a/b", r"--run\.name 'a/b' cannot be a folder's name"),
    ("demo --run.folder ftp://host/runs", "cannot reach ftp://host/runs"),
    ("demo --run.folder {words}", "--run.folder .*words: .* is not a folder"),
    ("demo --data.root s3://key:secret@bucket/x", "with a password in it"),
]

OTHERS: list[tuple[Callable[..., int], str, str]] = [
    (evaluate.main, "", "missing|required"),
    (evaluate.main, "--checkpoint gone", "is not a checkpoint"),
    (evaluate.main, "--checkpoint {made} --workers 0", "--workers must be at least 1; got 0"),
    (evaluate.main, "--checkpoint {made} --workers -1", "--workers must be at least 1; got -1"),
    (evaluate.main, "--checkpoint {made} --workers 17", "has 16 videos"),
    (evaluate.main, "--checkpoint {made} --split dev", "has train, val, test"),
    (evaluate.main, "--checkpoint {made} --allow-unreadable -1", "must not be negative"),
    (evaluate.main, "--checkpoint {made} --json {made}", "is a folder"),
    (evaluate.main, "--checkpoint {made} --spilt val", "spilt"),
    (evaluate.main, "--checkpoint {cut}", r"model\.safetensors cannot be read"),
    (evaluate.main, "--checkpoint {half}", "is missing in the file"),
    (evaluate.main, "--checkpoint {nan}", "values that are not finite"),
    (evaluate.main, "--checkpoint {other}", "of shape .* in the file and .* in the model"),
    (evaluate.main, "--checkpoint {broken}", "is not a config"),
    (inspect_run.main, "--checkpoint {made} --pairs 0", "--pairs must be at least 1"),
    (inspect_run.main, "--checkpoint {made} --split train", "expected one of"),
    (inspect_run.main, "--checkpoint {cut}", r"model\.safetensors cannot be read"),
    (inspect_run.main, "--checkpoint {made} --out {made}", "is a folder"),
    (tune.main, "", "name a space; known are"),
    (tune.main, "keep_rates demo", "there is no space 'keep_rates'"),
    (tune.main, "keep_rate nothing", "there is no recipe 'nothing'"),
    (tune.main, "keep_rate demo --epochs 0", "--epochs is 0"),
    (tune.main, "keep_rate demo --epochs 2 --train.epochs 3", "give one of them"),
    (tune.main, "keep_rate demo --seeds 0", "--seeds must be at least 1"),
    (tune.main, "keep_rate demo --samples 3", "a table of 9 variants"),
    (tune.main, "keep_rate demo --max-concurrent -1", "--max-concurrent at least 0"),
    (tune.main, "keep_rate demo --run.name mine", r"no field --run\.name"),
    (tune.main, "joint demo --seeds 2", "is sampled"),
    (tune.main, "keep_rate demo --towers {made}", "--towers goes with --frozen"),
    (tune.main, "keep_rate demo --frozen --towers runs/gone", "is not a checkpoint"),
    (tune.main, "keep_rate demo --frozen --pairs 3", r"--pairs 3: .* a batch of 16 pairs or more"),
    (tune.main, "keep_rate demo --train.batch-size 100000", "lower it to at most"),
    (report.main, "", "name one or more spaces"),
    (report.main, "keep_rates", "there is no space 'keep_rates'"),
    (report.main, "alpha", "has no sweep of space alpha"),
    (report.main, "alpha heads --run x", "--run is one sweep"),
    (report.main, "alpha --run nothing", "nothing"),
    (cache_frames.main, "demo --splits dev", "--splits dev: demo has train, val, test"),
    (cache_frames.main, "demo --list {made}", "is a folder"),
    (check_data.main, "demo --list {made}", "is a folder"),
    (check_data.main, "demo --allow-missing -1", "must not be negative"),
    (make_demo.main, "--videos 3 --test 3", "test must be between 1 and videos - 2"),
    (check_cluster.main, "--file gone.yaml", "gone.yaml"),
]

COMMANDS = [(train.main, *case) for case in TRAIN] + OTHERS


@pytest.fixture(scope="module")
def places(quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint that was never trained, and the same with every kind of damage; other files."""
    folder = tmp_path_factory.mktemp("wrong")
    settings = cli.parse(train.Arguments, ["demo", *quick], "train", "").config
    made = folder / "made"
    made.mkdir()
    training = {"step": 0, "score": 1.0, "history": []}
    checkpoint.save(made, settings, model.build(settings), None, training)
    weights = made / checkpoint.WEIGHTS

    def damaged(name: str) -> Path:
        return Path(shutil.copytree(made, folder / name))

    (damaged("cut") / checkpoint.WEIGHTS).write_bytes(weights.read_bytes()[:100_000])
    tensors = load_file(weights)
    half = dict(list(tensors.items())[: len(tensors) // 2])
    save_file(half, damaged("half") / checkpoint.WEIGHTS)
    first = next(name for name, value in tensors.items() if value.is_floating_point())
    wrong = tensors | {first: torch.full_like(tensors[first], float("nan"))}
    save_file(wrong, damaged("nan") / checkpoint.WEIGHTS)
    another = config.replace(settings, {"head.reorganise.keep_rate": 0.5})
    config.save(another, damaged("other") / checkpoint.CONFIG)
    (damaged("broken") / checkpoint.CONFIG).write_text('{"data": {')
    for name in ("words", "tower.json"):
        (folder / name).write_text("neither JSON nor a folder\n")
    config.save(recipes.demo(), folder / "config")
    unknown = config.to_dict(recipes.demo()) | {"nonsense": 1}
    (folder / "unknown").write_text(json.dumps(unknown))
    names = ("made", "cut", "half", "nan", "other", "broken", "words", "config", "unknown")
    return {name: folder / name for name in names} | {"tower": folder / "tower.json"}


@pytest.fixture
def nothing_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither Ray nor decoding may start."""

    def never(*arguments: Any, **named: Any) -> None:
        raise AssertionError("the command went on to start Ray or to decode")

    monkeypatch.setattr(placement, "connect", never)
    monkeypatch.setattr(stages, "decode", never)


def test_there_are_sixty_of_them() -> None:
    assert len(COMMANDS) >= 60


@pytest.mark.usefixtures("nothing_begins")
@pytest.mark.parametrize(
    ("main", "words", "message"),
    COMMANDS,
    ids=[f"{main.__module__.rpartition('.')[2]} {words}" for main, words, _ in COMMANDS],
)
def test_one_sentence_and_exit_code_2(
    main: Callable[..., int],
    words: str,
    message: str,
    places: dict[str, Path],
    quick: list[str],
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = words.format(**places).split()
    if "demo" in line:  # of the small corpus and the small tower, unless the words say otherwise
        at = line.index("demo") + 1
        small = dict(zip(quick[::2], quick[1::2], strict=True))
        if "--epochs" in line:
            small.pop("--train.epochs")
        line[at:at] = [word for pair in small.items() if pair[0] not in line for word in pair]
    before = sorted(path for path in home.glob("runs/**/*") if "wrong" not in str(path))
    with pytest.raises(SystemExit) as stopped:
        cli.run(lambda: main(line))
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len([part for part in said if part.startswith("error: ")]) == 1, said
    assert re.search(message, said[-1] if len(said) == 1 else "\n".join(said)), said
    assert not any("Traceback" in part for part in said)
    assert sorted(path for path in home.glob("runs/**/*") if "wrong" not in str(path)) == before
