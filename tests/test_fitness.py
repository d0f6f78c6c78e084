"""What training says and refuses before it starts."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import cache_frames, check_data
from pipeline.inputs import prepare
from tcmgc import recipes
from tcmgc.config import Config, fingerprint
from tcmgc.datasets import demo_corpus
from tcmgc.retrieval.metrics import format_chance


@pytest.fixture
def config(tmp_path: Path) -> Config:
    root = demo_corpus.make(tmp_path / "demo", videos=9, test=3)
    made = recipes.recipe("demo")
    return replace(made, data=replace(made.data, root=str(root), val_videos=2))


def test_whole_data_get_notes_alone(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.look(config, prepare.splits(config))
    said = capsys.readouterr().out
    assert "note: test has 3 videos, fewer than 100: R@1 is 33.3 % by chance" in said
    assert "cut at data.max_words" not in said
    short = replace(config, data=replace(config.data, max_words=10))
    prepare.look(short, prepare.splits(short))
    assert re.search(
        r"note: train: \d+ of 20 captions looked at \(.*%\) are cut at data\.max_words 10",
        capsys.readouterr().out,
    )


@pytest.mark.parametrize("fault", ["a copy", "a hole"])
def test_what_is_not_fit_stops_training_unless_allowed(
    config: Config, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = Path(config.data.root) / "videos/all"
    if fault == "a copy":
        (videos / "video8.mp4").write_bytes((videos / "video1.mp4").read_bytes())
        word = "1 videos are in two splits"
    else:
        (videos / "video8.mp4").unlink()
        word = r"test lacks 1 videos \(1 missing, 0 unreadable\)"
    found = prepare.splits(config)
    with pytest.raises(ValueError, match=rf"not fit for training: {word}; .*--data\.allow-unfit"):
        prepare.look(config, found)
    if fault == "a copy":
        assert "test video8 has the same content as" in capsys.readouterr().out
    allowed = replace(config, data=replace(config.data, allow_unfit=True))
    prepare.look(allowed, found)
    assert "NOT fit, and allowed" in capsys.readouterr().out
    assert fingerprint(allowed) == fingerprint(config)


def test_one_test_video_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = demo_corpus.make(tmp_path / "demo", videos=6, test=2)
    rows = [
        {"video": f"videos/all/video{n}.mp4", "caption": f"number {n}", "split": split}
        for n, split in enumerate(["train", "train", "train", "val", "val", "test"])
    ]
    (root / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = recipes.recipe("demo")
    data = replace(made.data, dataset="table", root=str(root), val_videos=0)
    config = replace(made, data=data)
    prepare.look(config, prepare.splits(config))
    assert "note: test has one video: it is found by whatever is asked" in capsys.readouterr().out


def test_some_holes_in_training_are_allowed_by_their_own_setting(config: Config) -> None:
    (Path(config.data.root) / "videos/all/video0.mp4").unlink()
    with pytest.raises(ValueError, match=r"train lacks 1 videos|val lacks 1 videos"):
        prepare.look(config, prepare.splits(config))
    lenient = replace(config, data=replace(config.data, max_unreadable=0.5))
    prepare.look(lenient, prepare.splits(lenient))


def test_chance_beside_the_table() -> None:
    many = {"t2v/candidates": 1000.0, "v2t/candidates": 1000.0}
    assert format_chance(many) == (
        "chance, 1000 videos: R@1 0.1, R@5 0.5, R@10 1.0, median rank 500.5"
    )
    other = format_chance({"t2v/candidates": 8.0, "v2t/candidates": 4.0})
    assert other.splitlines()[1] == (
        "chance, 4 videos' texts: R@1 25.0, R@5 100.0, R@10 100.0, median rank 2.5"
    )


def test_frames_of_a_folder_without_a_table(
    cluster: None, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["demo", "--data.dataset", "folder", "--data.root", config.data.root]
    assert check_data.main([*words, "--list", str(tmp_path / "list.tsv")]) == 0
    seen = capsys.readouterr()
    assert "looking at the videos alone: data.dataset folder has videos and no captions" in seen.out
    assert seen.out.endswith("whole; without captions it is not fit for training\n")
    assert cache_frames.main([*words, "--data.cache", str(tmp_path / "cache")]) == 0
    assert "in the cache: 9 of 9 videos" in capsys.readouterr().out
