import tracemalloc
from pathlib import Path

import golden_files
import numpy as np
import pytest

from tcmgc.retrieval.metrics import (
    chance,
    format_table,
    reported,
    retrieval_metrics,
    text_to_video,
    video_to_text,
)

ORDER = ("R1", "R5", "R10", "MdR", "MnR")


def sample(texts: int, videos: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    owner = np.concatenate([np.arange(videos), rng.integers(0, videos, texts - videos)])
    return rng.normal(size=(texts, videos)).astype(np.float32), rng.permutation(owner)


@pytest.mark.parametrize(
    "path", golden_files.found("peers/metrics.safetensors"), ids=golden_files.label
)
def test_golden_metrics(path: Path) -> None:
    from safetensors.numpy import load_file

    golden = load_file(path)
    similarity = golden["input.similarity"]
    metrics = retrieval_metrics(similarity, np.arange(len(similarity)))
    for direction, name in (("t2v", "text_to_video"), ("v2t", "video_to_text")):
        found = [metrics[f"{direction}/{metric}"] for metric in ORDER]
        np.testing.assert_allclose(found, golden[f"output.{name}"], rtol=1e-12)


def test_both_directions_as_a_loop_over_items_gives_them() -> None:
    similarity, owner = sample(texts=90, videos=20)
    similarity = similarity.round(1)  # ties
    for text, ranks in enumerate(
        zip(*vars(text_to_video(similarity, owner)).values(), strict=True)
    ):
        right = similarity[text, owner[text]]
        others = [s for v, s in enumerate(similarity[text]) if v != owner[text]]
        assert ranks == (1 + sum(s > right for s in others), 1 + sum(s >= right for s in others))
    for video, ranks in enumerate(
        zip(*vars(video_to_text(similarity, owner)).values(), strict=True)
    ):
        best = [max(similarity[owner == other, video]) for other in range(20)]
        right = best.pop(video)
        assert ranks == (1 + sum(s > right for s in best), 1 + sum(s >= right for s in best))


def test_videos_that_own_no_text_are_distractors() -> None:
    similarity = np.array([[0.5, 0.1, 0.9], [0.2, 0.8, 0.0]], np.float32)
    owner = np.array([0, 1])
    assert text_to_video(similarity, owner).optimistic.tolist() == [2, 1]
    assert video_to_text(similarity, owner).optimistic.tolist() == [1, 1]


def test_one_score_for_all_is_perfect_and_tied_everywhere() -> None:
    metrics = retrieval_metrics(np.zeros((12, 6), np.float32), np.arange(12) % 6)
    for direction in ("t2v", "v2t"):
        assert metrics[f"{direction}/R1"] == 100
        assert metrics[f"{direction}/ties"] == 1
        assert metrics[f"{direction}/R1_pessimistic"] == 0
        assert metrics[f"{direction}/MnR_pessimistic"] == 6


def test_sums() -> None:
    metrics = retrieval_metrics(*sample(50, 10))
    assert metrics["t2v/RSum"] == metrics["t2v/R1"] + metrics["t2v/R5"] + metrics["t2v/R10"]
    assert metrics["SumR"] == metrics["t2v/RSum"] + metrics["v2t/RSum"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_named(value: float) -> None:
    similarity, owner = sample(3000, 7)
    similarity[2050, 3] = value
    with pytest.raises(ValueError, match=r"text 2050 and video 3 is -?(nan|inf)"):
        retrieval_metrics(similarity, owner)


def test_owners_that_do_not_fit_are_refused() -> None:
    similarity, owner = sample(9, 4)
    with pytest.raises(ValueError, match="between 0 and 3"):
        retrieval_metrics(similarity, owner + 1)
    with pytest.raises(ValueError, match="no text to rank"):
        retrieval_metrics(similarity[:0], owner[:0])


def test_memory_stays_far_below_a_copy() -> None:
    similarity, owner = sample(15000, 1500)
    tracemalloc.start()
    try:
        retrieval_metrics(similarity, owner)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * similarity.nbytes


def test_the_table() -> None:
    metrics = retrieval_metrics(np.array([[3, 2], [5, 4.0]]), np.array([0, 1]))
    assert format_table(metrics).splitlines() == [
        "                   R@1     R@5    R@10     MdR     MnR    RSum",
        "text-to-video     50.0   100.0   100.0     1.5     1.5   250.0",
        "video-to-text     50.0   100.0   100.0     1.5     1.5   250.0",
        "SumR                                                     500.0",
    ]
    tied = format_table(retrieval_metrics(np.zeros((2, 2)), np.array([0, 1])))
    assert "text-to-video: the right item is tied in 100.0% of queries; R@1 is 0.0" in tied


def test_chance_is_what_rankings_at_random_give() -> None:
    rng = np.random.default_rng(0)
    found = [retrieval_metrics(rng.normal(size=(24, 12)), np.arange(24) % 12) for _ in range(2000)]
    expected = chance(12)
    for name in ("t2v/R1", "t2v/R5", "v2t/R10", "t2v/MnR", "v2t/MnR", "SumR"):
        mean = np.mean([one[name] for one in found])
        assert mean == pytest.approx(expected[name], rel=0.05), name
    assert chance(3)["t2v/R5"] == 100
    with pytest.raises(ValueError, match="candidates must be at least 1; got 0"):
        chance(0)


def test_lists_show_what_decides_first_and_ties_where_there_are_some() -> None:
    metrics = retrieval_metrics(np.eye(4), np.arange(4))
    row = {"train/loss": 1.0, **{f"val/{name}": value for name, value in metrics.items()}}
    shown = list(reported(row))
    assert shown[:4] == ["val/SumR", "val/t2v/R1", "val/v2t/R1", "val/t2v/R5"]
    assert "train/loss" in shown[-3:]
    assert not [name for name in shown if "ties" in name or "pessimistic" in name]
    tied = reported(retrieval_metrics(np.zeros((2, 2)), np.array([0, 1])))
    assert {"t2v/ties", "t2v/R1_pessimistic", "v2t/MnR_pessimistic"} <= tied.keys()
