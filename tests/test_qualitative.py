"""The numbers behind the qualitative figures, against the equations and plain loops."""

import numpy as np
import pytest
import torch
from head_cases import tcmgc_options

from tcmgc.config import XClipHead, XPoolHead
from tcmgc.heads import Head, Sizes, TcMgc, XClip, XPool, score_tiled
from tcmgc.retrieval import qualitative
from tcmgc.towers.features import TextFeatures, VideoFeatures

DIM, WORDS, FRAMES = 16, 8, 6
SIZES = Sizes(DIM, WORDS, FRAMES)


def texts(count: int) -> TextFeatures:
    torch.manual_seed(0)
    mask = torch.arange(WORDS) < torch.randint(3, WORDS + 1, (count, 1))
    return TextFeatures(torch.randn(count, DIM), torch.randn(count, WORDS, DIM), mask)


def videos(count: int) -> VideoFeatures:
    torch.manual_seed(1)
    mask = torch.arange(FRAMES) < torch.randint(2, FRAMES + 1, (count, 1))
    mask[0] = torch.arange(FRAMES) < 3
    encoded = torch.randn(count, FRAMES, DIM)
    return VideoFeatures(encoded, encoded, mask)


def shaken(head: Head) -> Head:
    """Weights that are no identities."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head.eval()


def tcmgc(**options: object) -> TcMgc:
    head = shaken(TcMgc(tcmgc_options(keep_rate=0.5, **options), SIZES))
    assert isinstance(head, TcMgc)
    return head


def literal_weights(head: TcMgc | XPool, query: torch.Tensor, frames: torch.Tensor) -> np.ndarray:
    """Eq. 2, 3 and 5 for one query and one video, head by head."""
    block = head.attention
    assert block is not None
    q = block.query(block.norm_inputs(query)).view(block.heads, -1)
    k = block.key(block.norm_inputs(frames)).view(len(frames), block.heads, -1)
    width = DIM // block.heads
    each = [torch.softmax(k[:, h] @ q[h] / width**0.5, 0) for h in range(block.heads)]
    return torch.stack(each).mean(0).detach().numpy()


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_is_the_equation(heads: int) -> None:
    head, text, video = tcmgc(heads=heads), texts(3), videos(3)
    for index, found in enumerate(qualitative.pair_attention(head, text, video)):
        real = video.encoded[index][video.frame_mask[index]]
        assert found.sentence is not None
        assert found.words is not None
        assert found.words.shape == (WORDS, FRAMES)
        rows = zip(
            [found.sentence, *found.words], [text.sentence[index], *text.words[index]], strict=True
        )
        for weights, query in rows:
            np.testing.assert_allclose(
                weights[: len(real)], literal_weights(head, query, real), atol=1e-6
            )
            assert not weights[len(real) :].any()


def test_padded_frames_keep_what_they_get() -> None:
    head, text, video = tcmgc(mask_frames=False), texts(1), videos(1)
    (found,) = qualitative.pair_attention(head, text, video)
    assert found.sentence is not None
    expected = literal_weights(head, text.sentence[0], video.encoded[0])
    np.testing.assert_allclose(found.sentence, expected, atol=1e-6)
    assert found.sentence[3:].sum() > 0.01


@pytest.mark.parametrize(
    ("grains", "sentence", "words"),
    [
        (("video_sentence",), True, False),
        (("video_word",), True, False),
        (("sentence_frame",), False, True),
        (("video_word", "frame_word"), True, True),
    ],
)
def test_only_what_a_contrast_needs_attends(
    grains: tuple[str, ...], sentence: bool, words: bool
) -> None:
    (found,) = qualitative.pair_attention(tcmgc(grains=grains), texts(1), videos(1))
    assert (found.sentence is not None, found.words is not None) == (sentence, words)


def test_which_heads_attend() -> None:
    assert tcmgc().attends
    assert XPool(XPoolHead(), SIZES).attends
    assert not tcmgc(text_conditioned=False).attends
    assert not XClip(XClipHead(), SIZES).attends
    (found,) = qualitative.pair_attention(
        shaken(XPool(XPoolHead(heads=2, dropout=0.0), SIZES)), texts(1), videos(1)
    )
    assert found.words is None


def test_order_and_ranks_agree() -> None:
    scores = np.array([[0.1, 0.9, 0.5, 0.5], [0.7, 0.7, 0.7, 0.2]], np.float32)
    ranking = qualitative.rank(scores, np.array([3, 1]), 3)
    assert ranking.ranks.tolist() == [2, 1]
    assert ranking.order.tolist() == [[1, 3, 2], [1, 0, 2]]


def test_drawn_places_are_true_distinct_and_the_seed_decides() -> None:
    which = np.arange(100) % 3 == 0
    drawn = qualitative.choose(which, 5, seed=0)
    assert which[drawn].all()
    assert len(set(drawn)) == 5
    assert drawn == qualitative.choose(which, 5, seed=0)
    assert drawn != qualitative.choose(which, 5, seed=1)
    assert qualitative.choose(which, 500, 0) == np.flatnonzero(which).tolist()
    assert qualitative.choose(which & False, 5, 0) == []


def test_matching_scores_are_those_of_the_whole_matrix() -> None:
    head, text, video = tcmgc(), texts(80), videos(40)
    owner = np.sort(np.random.default_rng(0).integers(0, 40, 80))
    found = qualitative.matching_scores(head, text, video, owner, 50.0)
    with torch.no_grad():
        whole = score_tiled(head, text, head.record(video), 50.0)
    rows = torch.arange(80)
    expected = torch.stack([whole.grains[name][rows, owner] for name in head.grains])
    torch.testing.assert_close(found, expected)


def test_weights_make_the_similarity() -> None:
    head, text, video = tcmgc(lsa_on_logits=True), texts(5), videos(5)
    scores = qualitative.matching_scores(head, text, video, np.arange(5), 50.0)
    weights = qualitative.grain_weights(head.aggregate, scores, 50.0)
    assert list(weights) == ["softmax", "linear softmax"]
    with torch.no_grad():
        whole = score_tiled(head, text, head.record(video), 50.0).similarity.diagonal()
    made = (weights["linear softmax"] * scores.numpy()).sum(0)
    np.testing.assert_allclose(made, whole.numpy(), rtol=1e-4)
    plain = torch.softmax(scores * 50.0, 0).numpy()
    np.testing.assert_allclose(weights["softmax"], plain, rtol=1e-5)


def test_a_softmax_head_has_one_kind_of_weights() -> None:
    head = tcmgc(scores="softmax")
    weights = qualitative.grain_weights(head.aggregate, torch.rand(4, 3), 1.0)
    assert list(weights) == ["softmax"]


def test_shares() -> None:
    parts = qualitative.shares(np.array([[1.0, -1.0], [3.0, 1.0]]))
    assert parts.tolist() == [[0.25, 0.5], [0.75, 0.5]]


def test_groups_that_are_apart_stay_apart() -> None:
    torch.manual_seed(0)
    groups = [
        torch.eye(DIM)[n] * 5 + 0.1 * torch.randn(size, DIM) for n, size in enumerate((9, 6, 12))
    ]
    places = qualitative.embed(groups, seed=3)
    assert [place.shape for place in places] == [(9, 2), (6, 2), (12, 2)]
    together, group = np.concatenate(places), np.repeat([0, 1, 2], (9, 6, 12))
    distance = np.linalg.norm(together[:, None] - together, axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(1)] == group).mean() > 0.9
    again = qualitative.embed(groups, seed=3)
    np.testing.assert_array_equal(together, np.concatenate(again))
