"""The command on real checkpoints: every section, every head, what is logged and what is refused."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline import inspect_run, tracking
from pipeline.inputs import prepare
from pipeline.run_state import checkpoints
from tcmgc import config as configs
from tcmgc import model, recipes
from tcmgc.config import Config, Reorganise, TcMgcHead, XClipHead, XPoolHead, replace
from tcmgc.datasets import Split
from tcmgc.training import checkpoint

SECTIONS = [
    "Retrieved first",
    "Failures",
    "Attention over frames",
    "Similarities of matching pairs",
    "Aggregation weights",
    "Words and frames in the plane",
]


@pytest.fixture(scope="module")
def config(corpus: Path, tower: str, tmp_path_factory: pytest.TempPathFactory) -> Config:
    fields = {
        "data.root": str(corpus),
        "data.cache": str(tmp_path_factory.mktemp("cache")),
        "data.val_videos": 12,
        "data.max_frames": 4,
        "towers.name": tower,
    }
    made = replace(recipes.demo(), fields)
    # Without Ray; what is missing is decoded with it, as the last test sees.
    cache, clips = prepare.frame_cache(made), prepare.splits(made)["val"].clips
    cache.write([(clip, cache.decode(clip)) for clip in clips])
    return made


def with_head(config: Config, head: TcMgcHead | XPoolHead | XClipHead) -> Config:
    alpha = 0.0 if isinstance(head, XPoolHead) else config.loss.alpha
    return dataclasses.replace(
        config, head=head, loss=dataclasses.replace(config.loss, alpha=alpha)
    )


def saved(folder: Path, config: Config) -> str:
    folder.mkdir(parents=True)
    checkpoint.save(folder, config, model.build(config), None, {"step": 7, "history": []})
    return str(folder)


def body(place: Path, section: str) -> str:
    parts = place.read_text().split("<section>")[1:]
    return {re.search("<h2>(.*?)</h2>", part).group(1): part for part in parts}[section]  # type: ignore[union-attr]


def test_the_whole_page_is_made_and_logged(
    home: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = tracking.start(config, "run", str(tmp_path / "run"))
    folder = saved(tmp_path / "run/checkpoint_1", config)
    other = saved(tmp_path / "other/checkpoint_1", replace(config, {"loss.alpha": 0.0}))
    assert inspect_run.main(["--checkpoint", folder, "--pairs", "2", "--against", other]) == 0
    place = tmp_path / "run/checkpoint_1-val.html"
    text = place.read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == SECTIONS
    assert "12 videos, 60 captions" in text
    assert "step 7" in text
    failures = body(place, "Failures")
    assert failures.count('class="hit"') == 2
    # Six others, of which those above the right one are wrong.
    assert failures.count('class="miss"') + failures.count('class="other"') == 6
    ranks = re.findall(r'class="(\w+)"><img.*?>(?:[✓✗] )?rank (\d+)<', failures)
    owns = [int(rank) for kind, rank in ranks if kind == "hit"]
    for start, own in zip((0, 4), owns, strict=True):
        for kind, rank in ranks[start + 1 : start + 4]:
            assert kind == ("miss" if int(rank) < own else "other")
    attention = body(place, "Attention over frames")
    assert attention.count("whole sentence") == 2
    similarities = body(place, "Similarities of matching pairs")
    assert "checkpoint, with SDR (α = 0.5)" in similarities
    assert "compared, without SDR (α = 0)" in similarities
    assert body(place, "Aggregation weights").count("1.000") == 4
    clouds = body(place, "Words and frames in the plane")
    assert clouds.count("<title>") == 24
    logged = MlflowClient(tracking.uri()).list_artifacts(run_id, "inspection")
    assert [file.path for file in logged] == ["inspection/checkpoint_1-val.html"]
    assert f"run {run_id}" in capsys.readouterr().out


def test_the_same_command_gives_the_same_page(
    home: Path, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "c", config)
    pages = []
    for out in ("one.html", "two.html"):
        inspect_run.main(["--checkpoint", folder, "--pairs", "1", "--out", str(tmp_path / out)])
        pages.append((tmp_path / out).read_bytes())
    assert pages[0] == pages[1]
    assert "no run at" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("head", "left_out"),
    [
        (XPoolHead(), ["Similarities of matching pairs", "Aggregation weights"]),
        (XClipHead(), ["Attention over frames", "Aggregation weights"]),
        (
            TcMgcHead(text_conditioned=False, reorganise=Reorganise(keep_rate=0.5)),
            ["Attention over frames"],
        ),
    ],
)
def test_what_a_head_lacks_is_left_out_and_said(
    config: Config,
    head: TcMgcHead | XPoolHead | XClipHead,
    left_out: list[str],
    tmp_path: Path,
) -> None:
    config = with_head(config, head)
    place = small(config, saved(tmp_path / "c", config), tmp_path)
    parts = {name: body(place, name) for name in SECTIONS[:-1]}
    assert [name for name, part in parts.items() if "Left out" in part] == left_out
    for name, part in parts.items():
        assert ('class="card"' in part) != (name in left_out) or name == "Retrieved first"


def small(config: Config, folder: str, where: Path) -> Path:
    split = prepare.splits(config)["val"]
    return inspect_run.small_page(config, folder, split, where / "small.html")


def test_the_small_page_says_that_it_is_small(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_run, "SMALL_VIDEOS", 5)
    folder = saved(tmp_path / "c", config)
    text = small(config, folder, tmp_path).read_text()
    assert "over 5 of 12 validation videos" in text
    assert f"inspect_run.py --checkpoint {folder}" in text
    assert "among 5." in text
    assert SECTIONS[-1] not in text


def test_a_page_is_found_by_the_tag_of_its_checkpoint(home: Path, config: Config) -> None:
    run_id = tracking.start(config, "it's", "/runs/it's")
    tracking.client().set_tag(run_id, "checkpoint", "/elsewhere/c")
    assert tracking.find("/elsewhere/c") == run_id
    assert tracking.find("/runs/it's/checkpoint_3") == run_id
    assert tracking.find("/runs/other/checkpoint_3") is None
    assert tracking.page(run_id).startswith("http://127.0.0.1:5000/#/experiments/")
    in_bucket = tracking.start(config, "a", "s3://runs/a?region=eu")
    assert tracking.find("s3://runs/a/checkpoint_3?region=eu") == in_bucket


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs", "0"], "--pairs must be at least 1; got 0"),
        (["--against", "{xpool}"], "has one score"),
        (["--against", "{table}"], "was trained on table, --checkpoint on demo"),
        (["--against", "{nothing}"], "is not a checkpoint"),
    ],
)
def test_refusals(config: Config, words: list[str], message: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "c", config)
    folders = {
        "{xpool}": saved(tmp_path / "x", with_head(config, XPoolHead())),
        "{table}": saved(tmp_path / "t", replace(config, {"data.dataset": "table"})),
        "{nothing}": str(tmp_path / "nothing"),
    }
    words = [folders.get(word, word) for word in words]
    with pytest.raises(ValueError, match=re.escape(message)):
        inspect_run.main(["--checkpoint", folder, *words])


def test_a_runs_folder_stands_for_its_best_checkpoint(config: Config, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step, score in ((1, 100.0), (2, 140.0), (3, 120.0), (4, None)):
        folder = run / f"checkpoint_{step}"
        folder.mkdir(parents=True)
        checkpoint.save(folder, config, model.build(config), None, {"step": step, "score": score})
    configs.save(config, run / "config.json")
    assert checkpoints.chosen(str(run)) == f"{run}/checkpoint_2"
    assert checkpoints.chosen(f"{run}/checkpoint_3") == f"{run}/checkpoint_3"
    for step in (1, 2, 3):
        shutil.rmtree(run / f"checkpoint_{step}")
    with pytest.raises(ValueError, match=r"run .*/run has no checkpoint with a validation score"):
        checkpoints.chosen(str(run))


def test_a_split_that_is_not_there(config: Config, tmp_path: Path) -> None:
    folder = saved(tmp_path / "c", replace(config, {"data.val_videos": 0}))
    with pytest.raises(ValueError, match="--split val: demo has train, test"):
        inspect_run.main(["--checkpoint", folder])


def test_unreadable_videos_are_left_out_and_counted(
    cluster: None, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = prepare.splits(config)["val"]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    clips = (dataclasses.replace(split.clips[0], path=str(broken)), *split.clips[1:])
    kept, reader = inspect_run._readable(config, Split(clips, missing=("gone",)), "val")
    assert [clip.id for clip in kept.clips] == [clip.id for clip in split.clips[1:]]
    assert all(clip in reader for clip in kept.clips)
    assert "2 of 13 videos are missing or unreadable and are left out" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no video of the val split can be read"):
        inspect_run._readable(config, Split(clips[:1]), "val")
