import csv
import hashlib
import json
from pathlib import Path

import av
import numpy as np
import pytest

from tcmgc.datasets import demo_corpus
from tcmgc.datasets.demo_scenes import HEIGHT, WIDTH, Scene, describe, draw


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def captions(root: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for sentence in json.loads((root / "MSRVTT_data.json").read_text())["sentences"]:
        found.setdefault(sentence["video_id"], []).append(sentence["caption"])
    return found


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    first = digests(demo_corpus.make(tmp_path / "a", videos=6, test=2))
    assert first == digests(demo_corpus.make(tmp_path / "b", videos=6, test=2))
    other = digests(demo_corpus.make(tmp_path / "c", videos=6, test=2, seed=1))
    assert not {v for k, v in first.items() if "mp4" in k} & {
        v for k, v in other.items() if "mp4" in k
    }


def test_msrvtts_files_and_playable_h264(tmp_path: Path) -> None:
    root = demo_corpus.make(tmp_path / "demo", videos=5, test=2)
    assert (root / "MSRVTT_train.9k.csv").read_text().split() == [
        "video_id",
        "video0",
        "video1",
        "video2",
    ]
    rows = list(csv.DictReader((root / "MSRVTT_JSFUSION_test.csv").read_text().splitlines()))
    assert [row["video_id"] for row in rows] == ["video3", "video4"]
    assert list(rows[0]) == ["key", "vid_key", "video_id", "sentence"]
    assert {len(texts) for texts in captions(root).values()} == {demo_corpus.CAPTIONS}
    for path in (root / "videos" / "all").iterdir():
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert 6 <= sum(1 for _ in container.decode(stream)) / float(stream.average_rate) <= 12


def test_shuffling_moves_every_training_caption_and_no_test_sentence(tmp_path: Path) -> None:
    true = demo_corpus.make(tmp_path / "true", videos=8, test=2)
    false = demo_corpus.make(tmp_path / "false", videos=8, test=2, shuffle_captions=True)
    before, after = captions(true), captions(false)
    for index in range(6):
        assert before[f"video{index}"] != after[f"video{index}"]
    assert sorted(map(tuple, before.values())) == sorted(map(tuple, after.values()))
    assert before["video7"] == after["video7"]
    name = "MSRVTT_JSFUSION_test.csv"
    assert (true / name).read_bytes() == (false / name).read_bytes()


def test_a_finished_corpus_is_kept_and_anything_else_refused(tmp_path: Path) -> None:
    root = demo_corpus.make(tmp_path / "demo", videos=4, test=1)
    kept = (root / demo_corpus.MARKER).stat().st_mtime_ns
    assert demo_corpus.make(root, videos=4, test=1) == root
    assert (root / demo_corpus.MARKER).stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="delete it or choose another folder"):
        demo_corpus.make(root, videos=4, test=1, seed=2)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "MSRVTT_data.json").write_text("{}")
    with pytest.raises(ValueError, match="is no demo corpus"):
        demo_corpus.make(tmp_path / "own", videos=4, test=1)
    with pytest.raises(ValueError, match="test must be between 1 and videos - 2"):
        demo_corpus.make(tmp_path / "x", videos=4, test=3)


def test_an_interrupted_make_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo_corpus.make(tmp_path / "demo", videos=4, test=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_shows_what_its_scene_says() -> None:
    scene = Scene("red", "snow", "square", "large", "left", "still", 2.0)
    frames = list(draw((scene,), np.random.default_rng(0)))
    assert len(frames) == 10
    red = (frames[0].astype(int) - (220, 30, 30) == 0).all(-1)
    _, columns = np.nonzero(red)
    assert abs(columns.mean() - (WIDTH / 2 - 0.22 * HEIGHT)) < 0.06 * HEIGHT
    assert abs(red.sum() / (2 * 0.30 * 0.9 * HEIGHT) ** 2 - 1) < 0.1


def test_captions_name_colour_and_shape_in_the_scenes_order() -> None:
    scenes = (
        Scene("red", "snow", "square", "large", "left", "still", 2.0),
        Scene("blue", "fog", "ring", "small", "top", "growing", 2.0),
    )
    rng = np.random.default_rng(0)
    texts = {describe(scenes, 2, 0.5, rng) for _ in range(50)}
    assert len(texts) > 40
    for text in texts:
        first = min(text.find(word) % 999 for word in ("red", "scarlet"))
        second = min(text.find(word) % 999 for word in ("blue", "navy"))
        assert first < second < 999
        assert any(word in text for word in ("square", "box"))
        assert any(word in text for word in ("ring", "hoop"))


def test_demo_sentences_tell_the_test_videos_apart() -> None:
    from tcmgc.datasets.demo_corpus import _sentence
    from tcmgc.datasets.demo_scenes import story

    stories = [story(np.random.default_rng([0, index, 0])) for index in range(1000, 1200)]
    sentences = [_sentence(scenes, 0, index) for index, scenes in enumerate(stories, 1000)]
    assert len(set(sentences)) == 200
