"""The command on a corpus with every fault, and what a worker's death costs."""

import csv
import os
import signal
from pathlib import Path

import pytest

from pipeline import check_data, make_demo
from pipeline.inputs.survive import map_surviving
from tcmgc.datasets import demo_corpus


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    root = demo_corpus.make(tmp_path / "demo", videos=12, test=4)
    videos = root / "videos/all"
    (videos / "video1.mp4").unlink()
    (videos / "video2.mp4").write_bytes(b"no video")
    (videos / "video9.mp4").write_bytes((videos / "video3.mp4").read_bytes())
    return root


def test_a_whole_corpus_is_fit(
    cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = demo_corpus.make(tmp_path / "demo", videos=6, test=2)
    words = ["--data.root", str(root), "--data.val-videos", "1"]
    assert check_data.main([*words, "--list", str(tmp_path / "list.tsv")]) == 0
    page = capsys.readouterr().out
    assert "train: 3 of 3 videos, 15 of 15 captions, as published" in page
    assert "leaks: 0" in page
    assert page.endswith("fit for training\n")
    assert (tmp_path / "list.tsv").read_text() == "split\tid\tproblem\tdetails\n"


def test_every_fault_is_listed_and_counts_against_it(
    cluster: None, faulty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "lists" / "list.tsv"
    words = ["--data.root", str(faulty), "--data.val-videos", "0", "--list", str(place)]
    assert check_data.main(words) == 1
    page = capsys.readouterr().out
    assert "NOT fit: train lacks 2 videos (1 missing, 1 unreadable); --allow-missing 2" in page
    assert "NOT fit: 1 videos are in two splits; --allow-leaks 1 accepts that" in page
    with place.open(newline="") as file:
        rows = [row[:3] for row in csv.reader(file, delimiter="\t")]
    assert rows == [
        ["split", "id", "problem"],
        ["train", "video1", "missing"],
        ["train", "video2", "unreadable"],
        ["test", "video9", "leak"],
    ]
    assert (
        check_data.main([*words, "--look", "headers", "--allow-missing", "2", "--allow-leaks", "1"])
        == 0
    )
    assert capsys.readouterr().out.endswith("fit for training, as far as headers tell\n")


def test_a_worker_that_dies_costs_its_batch_a_retry(cluster: None) -> None:
    def square(number: int) -> int:
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2

    found = dict(map_surviving(square, range(12), workers=2, batch=4))
    assert found == {n: None if n == 5 else n**2 for n in range(12)}


def test_an_error_in_the_function_is_no_death(cluster: None) -> None:
    def refuse(number: int) -> int:
        raise KeyError(number)

    with pytest.raises(KeyError):
        dict(map_surviving(refuse, range(3), workers=2, batch=2))


def test_make_demo_says_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--root", str(tmp_path / "demo"), "--videos", "4", "--test", "1"]
    assert make_demo.main(words) == 0
    assert capsys.readouterr().out == f"3 training and 1 test videos are in {tmp_path / 'demo'}\n"
    with pytest.raises(ValueError, match="delete it or choose another folder"):
        make_demo.main([*words, "--seed", "1"])
