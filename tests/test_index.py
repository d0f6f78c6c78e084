"""The commands that make an index and search it, with Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_cases import LENGTHS, make_videos, save_model

from pipeline import index as index_command
from pipeline import search as search_command
from pipeline.inputs import indexing
from pipeline.run_state import lock
from pipeline.serving import many
from pipeline.serving.answers import to_json
from tcmgc import datasets
from tcmgc.heads import score_tiled
from tcmgc.search import Answer, Index

QUICK = ["--settings.strip-frames", "2", "--settings.strip-height", "16"]
CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tower: str) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "checkpoint", tower)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, model: Path, cluster: None) -> tuple[Path, Path]:
    """Videos, one of them longer than a worker takes at once and one broken, and their index."""
    root = tmp_path_factory.mktemp("command")
    videos = make_videos(root / "videos", {**LENGTHS, "\N{DOG}/d e.mp4": 80})
    make_videos(videos, {"long.mp4": 61}, rate=1)
    (videos / "broken.mp4").write_bytes(b"no video" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexing, "WINDOWS", 2)
        code = index_command.main(
            [str(videos), "--out", str(root / "index"), "--checkpoint", str(model), *QUICK]
        )
    assert code == 1
    return videos, root / "index"


def test_every_video_is_indexed_and_the_broken_one_named(made: tuple[Path, Path]) -> None:
    _, out = made
    index = Index.open(str(out))
    assert len(index) == 8
    assert index.calibration is not None
    assert "broken.mp4\tnot a video" in (out / "broken.tsv").read_text()
    (long,) = [m for m in index.search("a ball")[0].matches if m.file.path.endswith("long.mp4")]
    assert index.windows_of(long.file.key).tolist() == sorted(index.windows_of(long.file.key))
    assert len(index.windows_of(long.file.key)) == 4


def test_nothing_to_do_starts_no_worker(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, out = made
    monkeypatch.setattr(index_command, "_index", None)
    assert index_command.main([str(videos), "--out", str(out)]) == 1
    assert "6 as they were, 0 new or changed, 0 gone" in capsys.readouterr().out


def test_the_answer_in_json_is_alone_on_standard_output(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(answer: Answer) -> dict[str, Any]:
        print("what Ray says, at any time")
        return to_json(answer)

    _, out = made
    monkeypatch.setattr(search_command.answers, "to_json", noisy)
    assert search_command.main([str(out), "a red ball", "--json", "True", "--top", "2"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["query"] == "a red ball"
    assert [one["rank"] for one in answer["results"]] == [1, 2]
    assert answer["results"][0].keys() >= {"score", "place", "path", "start", "end", "state"}
    assert answer["results"][0]["score"] >= answer["results"][1]["score"]


def test_the_table_and_its_csv(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    videos, out = made
    words = [str(out), "a red ball", "--not", "snow", "--csv", str(tmp_path / "found.csv")]
    assert search_command.main([*words, "--like", str(videos / "a.mp4")]) == 0
    shown = capsys.readouterr().out
    assert "b.mp4" in shown
    assert "a.mp4" not in shown
    assert (tmp_path / "found.csv").read_text().startswith("query,rank,score,place,path,start")
    assert search_command.main([str(out), "a", "--folder", str(tmp_path)]) == 1
    assert "no video passes the filters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{out}", " "], "the query is empty"),
        (["{out}", "a", "--after", "yesterday"], "--after is a day"),
        (["{videos}", "a"], "is no index"),
        (["{out}", "--like", "{videos}/broken.mp4"], "--like: .*not a video"),
    ],
)
def test_bad_searches_are_refused(made: tuple[Path, Path], words: list[str], message: str) -> None:
    given = [word.format(videos=made[0], out=made[1]) for word in words]
    with pytest.raises(ValueError, match=message):
        search_command.main(given)


def test_bad_indexing_is_refused(made: tuple[Path, Path], tower: str, tmp_path: Path) -> None:
    videos, out = made
    other = save_model(tmp_path / "other", tower, seed=1)
    (tmp_path / "empty").mkdir()
    cases = [
        ([str(videos), "--checkpoint", str(other)], "made with another model"),
        ([str(videos), "--settings.hop", "5"], "cannot be changed afterwards"),
        ([str(tmp_path / "empty")], "holds no videos"),
        ([str(tmp_path / "nowhere")], "is not there"),
        ([], "give the folder"),
    ]
    for words, message in cases:
        with pytest.raises(ValueError, match=message):
            index_command.main([*words, "--out", str(out)])
    with lock.held(str(out)), pytest.raises(ValueError, match="is being written by process"):
        index_command.main([str(videos), "--out", str(out)])
    with pytest.raises(ValueError, match="openai"):
        index_command.main(
            [
                str(videos),
                "--out",
                str(tmp_path / "new"),
                "--towers.name",
                tower,
                "--towers.pretrained",
                "openai",
            ]
        )


def test_actors_that_encode_give_the_same(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, out = made
    whole = Index.open(str(out))
    job = indexing.Job(
        index=str(out),
        model=whole.version.model["hash"],
        settings=whole.version.settings,
        timeout=60.0,
        known=indexing.sorted_keys([]),
        encode=False,
    )
    found = [
        (str(path), index_command.folder.scan(str(videos)).stamps[str(path)])
        for path in [videos / "a.mp4", videos / "broken.mp4"]
    ]
    good, bad = sorted(
        indexing.index_files(job, found, workers=1, encoders=1), key=lambda d: d.row.path
    )
    assert "not a video" in bad.row.error
    assert good.rows is not None
    row = whole.file_at(str(videos / "a.mp4"))
    assert row is not None
    segment, at = whole.at(int(whole.windows_of(row[1].key)[0]))
    assert (good.rows.tensors["records"][0] == segment.records()[at].numpy()).all()
    assert good.rows.strips[0] == segment.strip(at)


def test_a_file_that_kills_its_worker_is_named(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, out = made
    index = Index.open(str(out))
    job = indexing.Job(
        index=str(out),
        model=index.version.model["hash"],
        settings=index.version.settings,
        timeout=60.0,
        known=indexing.sorted_keys([]),
        encode=True,
    )
    stamps = index_command.folder.scan(str(videos)).stamps
    found = [(str(videos / name), stamps[str(videos / name)]) for name in ("a.mp4", "b.mp4")]

    def kills(job: indexing.Job, task: indexing.Task) -> indexing.Done:
        if task.path.endswith("b.mp4"):
            os.kill(os.getpid(), signal.SIGKILL)
        return process(job, task)

    process = indexing.process
    monkeypatch.setattr(indexing, "process", kills)
    good, killer = sorted(
        indexing.index_files(job, found, workers=1, encoders=0), key=lambda done: done.row.path
    )
    assert good.rows is not None
    assert len(good.rows) == 1
    assert "ended the process" in killer.row.error
    assert killer.rows is None


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(model: Path, tmp_path: Path) -> None:
    videos = make_videos(tmp_path / "videos", {f"{i}.mp4": 50 + i for i in range(12)})
    out = tmp_path / "index"
    code = "import sys; from pipeline import index; index.COMMIT = 0.0; index.main(sys.argv[1:])"
    words = [str(videos), "--out", str(out), "--checkpoint", str(model), *QUICK]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    run = subprocess.Popen([sys.executable, "-c", code, *words], env=environment)
    try:
        until = time.monotonic() + 200
        while time.monotonic() < until:
            time.sleep(0.05)
            if (out / "index.json").is_file() and len(Index.open(str(out))):
                break
        run.kill()
    finally:
        run.wait()
    some = len(Index.open(str(out)))
    assert 0 < some < 12
    index_command.main([str(videos), "--out", str(out)])
    index = Index.open(str(out))
    assert len(index) == 12
    keys = {bytes(key) for segment in index.segments for key in segment.keys}
    assert len(keys) == sum(len(segment) for segment in index.segments) == 12


def test_many_queries_over_the_cluster_are_answered_as_one_by_one(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, out = made
    texts = ["a red ball", "the sea at night", "snow"]
    (tmp_path / "queries.txt").write_text("\n".join([*texts, ""]))
    words = [str(out), "--queries", str(tmp_path / "queries.txt"), "--top", "3", "--json"]
    assert search_command.main([*words, "--workers", "2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = Index.open(str(out)).search(texts, 3, exact=True)
    assert [line["query"] for line in lines] == texts
    for line, answer in zip(lines, expected, strict=True):
        for one, other in zip(line["results"], to_json(answer)["results"], strict=True):
            assert one.pop("score") == pytest.approx(other.pop("score"), abs=1e-5)
            for moment in (*one["moments"], *other["moments"]):
                moment["score"] = pytest.approx(moment["score"], abs=1e-5)
            assert one == other


def test_a_split_is_measured_from_an_index_as_from_its_frames(
    made: tuple[Path, Path], model: Path, cluster: None, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "index"
    words = [str(corpus / "videos"), "--out", str(out), "--checkpoint", str(model), *QUICK]
    assert index_command.main(words) == 0
    split = datasets.read("demo", str(corpus))["test"]
    texts = [caption for _, caption in split.pairs()]
    index = Index.open(str(out))
    found = many.similarity(index, texts, split, workers=2)
    encoder = index.encoder
    with torch.inference_mode():
        frames = [
            encoder.sample(clip.path, (0.0, index.file_at(clip.path)[1].duration))  # type: ignore[index]
            for clip in split.clips
        ]
        record = encoder.head.record(encoder.video(frames))
        scores = score_tiled(encoder.head, encoder.texts(texts), record, encoder.model.scale())
    assert np.abs(found - scores.similarity.numpy()).max() < 2e-3
    with pytest.raises(ValueError, match=r"16 of the split's 16 clips are not in the index"):
        many.similarity(Index.open(str(made[1])), texts, split)
