"""Heads: collapsed against literal, in every variant; padding, tiles, bad input."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from head_cases import (
    DIM,
    FRAMES,
    MODES,
    RELEASED,
    SIZES,
    SUBSETS,
    TEXTS,
    VARIANTS,
    VIDEOS,
    WORDS,
    agree,
    make,
    shaken,
    tcmgc_options,
    texts,
    videos,
)
from torch import Tensor

from tcmgc.config import GRAINS, XClipHead, XPoolHead
from tcmgc.heads import Head, Sizes, TcMgc, XClip, XPool, score_tiled
from tcmgc.heads.literal import literal_score
from tcmgc.towers.features import Scores, TextFeatures, VideoFeatures
from tcmgc.training.losses import info_nce, similarity_decorrelation


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_collapsed_equals_literal_with_gradients(options: dict[str, Any]) -> None:
    head, text, video = make(**options), texts(VIDEOS), videos()
    head.memory = 1  # a text at a time
    leaves = [text.sentence, text.words, video.frames, video.encoded]
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    for leaf in leaves:
        leaf.requires_grad_()
    wanted = [text.sentence, text.words, video.encoded, *head.parameters()]
    wanted += [scale] if head.aggregate.on_logits else []

    def gradients(scores: Scores) -> list[Tensor]:
        loss = sum(info_nce(scores.similarity, 10.0)) + similarity_decorrelation(
            scores.grains, "all"
        )
        return list(torch.autograd.grad(loss, wanted))

    expected = literal_score(head, text, video, scale)
    found = head.score(text, head.record(video), scale)
    agree(found, expected, 1e-11)
    for mine, theirs in zip(gradients(found), gradients(expected), strict=True):
        assert (mine - theirs).abs().max() <= 1e-9 * max(1.0, theirs.abs().max().item())


@pytest.mark.parametrize("grains", SUBSETS, ids=lambda grains: "+".join(grains))
def test_every_subset_of_contrasts(grains: tuple[str, ...]) -> None:
    head, text, video = make(grains=grains[::-1]), texts(), videos()
    scores = head.score(text, head.record(video))
    agree(scores, literal_score(head, text, video), 1e-11)
    assert tuple(scores.grains) == grains
    assert head.aggregate.weight.shape == (len(grains), len(grains))


def test_plain_contrasts_are_cosines_with_frames_and_their_mean() -> None:
    options = dict.fromkeys(
        ("video_word", "sentence_frame", "frame_word_words", "frame_word_frames"), "none"
    )
    head = make(text_conditioned=False, vectors="softmax", scores="mean", **options)
    text, video = texts(), videos()
    scores = head.score(text, head.record(video))
    unit = torch.nn.functional.normalize
    for t in range(TEXTS):
        for v in range(VIDEOS):
            frames = unit(video.encoded[v][video.frame_mask[v]], dim=-1)
            mean = unit(frames.mean(0), dim=-1)
            sentence, words = unit(text.sentence[t], dim=-1), unit(text.words[t], dim=-1)

            def pool(x: Tensor, dim: int = -1) -> Tensor:
                return (x.softmax(dim) * x).sum(dim)

            matrix = frames @ words.T
            expected = [
                sentence @ mean,
                pool(words @ mean),
                pool(frames @ sentence),
                (pool(pool(matrix, 0)) + pool(pool(matrix, 1))) / 2,
            ]
            for grain, value in zip(scores.grains.values(), expected, strict=True):
                assert abs(grain[t, v] - value) < 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_plain_contrasts_do_not_see_padded_frames(mode: str) -> None:
    options = {"sentence_frame": mode, "frame_word_frames": mode, "keep_rate": 0.4}
    head, text, video = make(text_conditioned=False, **options), texts(), videos()
    expected = head.score(text, head.record(video))
    video.encoded[~video.frame_mask] = 1e3
    agree(head.score(text, head.record(video)), expected, 1e-12)


@pytest.mark.parametrize("heads", [1, 4])
def test_padded_frames_take_no_part(heads: int) -> None:
    head, text, video = make(heads=heads), texts(), videos()
    expected = head.score(text, head.record(video))
    garbage = video.encoded.clone()
    garbage[~video.frame_mask] = 1e3
    longer = VideoFeatures(
        torch.cat([video.frames, video.frames], 1),
        torch.cat([garbage, garbage], 1),
        torch.cat([video.frame_mask, torch.zeros_like(video.frame_mask)], 1),
    )
    agree(head.score(text, head.record(longer)), expected, 1e-11)
    unmasked = make(heads=heads, mask_frames=False)
    changed = unmasked.score(
        text, unmasked.record(VideoFeatures(garbage, garbage, video.frame_mask))
    )
    assert (changed.similarity - expected.similarity).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["remove", "fuse"])
@pytest.mark.parametrize("longer", [WORDS + 7, 7])
def test_masked_words_make_scores_independent_of_max_words(mode: str, longer: int) -> None:
    modes = dict.fromkeys(
        ("video_word", "sentence_frame", "frame_word_words", "frame_word_frames"), mode
    )
    head, text, video = make(mask_words=True, **modes), texts(), videos()
    expected = head.score(text, head.record(video))
    head2 = make(words=longer, mask_words=True, **modes, keep_rate=3 / longer)
    head2.load_state_dict(head.state_dict())
    fewer = min(longer, WORDS)
    words = 50 * torch.randn(TEXTS, longer, DIM, dtype=torch.float64)
    words[:, :fewer] = text.words[:, :fewer]
    mask = torch.zeros(TEXTS, longer, dtype=torch.bool)
    mask[:, :fewer] = text.word_mask[:, :fewer]
    assert mask.sum() == text.word_mask.sum()
    words[~mask] = 50.0
    other = TextFeatures(text.sentence, words, mask)
    agree(head2.score(other, head2.record(video)), expected, 1e-12)
    agree(head.score(other, head.record(video)), expected, 1e-12)


def test_masked_words_without_reorganisation_and_fewer_words_than_k() -> None:
    none = dict.fromkeys(
        ("video_word", "sentence_frame", "frame_word_words", "frame_word_frames"), "none"
    )
    for options in (none, {"keep_rate": 0.9}, {"keep_rate": 0.9, "video_word": "fuse"}):
        head, text, video = make(mask_words=True, **options), texts(), videos()
        expected = head.score(text, head.record(video))
        words = text.words.clone()
        words[~text.word_mask] = 1e3
        other = TextFeatures(text.sentence, words, text.word_mask)
        agree(head.score(other, head.record(video)), expected, 1e-12)
        shorter = other[:1]
        length = int(shorter.word_mask.sum())
        cut = TextFeatures(shorter.sentence, words[:1, :length], shorter.word_mask[:, :length])
        found = head.score(cut, head.record(video)).similarity
        assert (found - expected.similarity[:1]).abs().max() <= 1e-12
        gradient = torch.autograd.grad(found.sum(), list(head.parameters()))
        assert all(g.isfinite().all() for g in gradient)


@pytest.mark.parametrize(
    "head",
    [
        make(),
        make(heads=4, learnt_products=True, lsa_on_logits=True),
        make(text_conditioned=False, keep_rate=0.4),
        make(mask_words=True),
        shaken(XPool(XPoolHead(heads=2, dropout=0.0), SIZES)),
        shaken(XClip(XClipHead(), SIZES)),
    ],
    ids=["tcmgc", "heads, products", "plain", "masked words", "xpool", "xclip"],
)
def test_tiles_equal_the_whole(head: Head) -> None:
    text, video = texts(7), videos(6)
    record = head.record(video)
    expected = head.score(text, record, 2.0)
    for memory in (1, 20_000, 10**9):
        agree(score_tiled(head, text, record, 2.0, memory=memory), expected, 1e-10)
    only = score_tiled(head, text, record, 2.0, grains=False)
    assert only.grains == {}
    assert (only.similarity - expected.similarity).abs().max() <= 1e-10
    # Records are rows: parts put together are the whole.
    parts = [head.record(video[start : start + 2]) for start in (0, 2, 4)]
    agree(head.score(text, type(record).cat(parts), 2.0), expected, 1e-10)
    # Nothing depends on which others are in the batch.
    agree(
        head.score(text[2:3], record[4:], 2.0),
        Scores(expected.similarity[2:3, 4:], {k: g[2:3, 4:] for k, g in expected.grains.items()}),
        1e-10,
    )
    assert score_tiled(head, text[:0], record).similarity.shape == (0, 6)


def test_released_reading_weighs_logits() -> None:
    head, text, video = make(**RELEASED), texts(), videos()
    scores = head.score(text, head.record(video), 50.0)
    stacked = torch.stack(list(scores.grains.values()))
    weights = torch.einsum("ij,jtv->itv", head.aggregate.weight, 50.0 * stacked).softmax(0)
    assert torch.allclose(50.0 * scores.similarity, (weights * (50.0 * stacked)).sum(0))
    assert torch.allclose(head.score_weights(scores, 50.0), weights)


def test_dropout_trains_literally_and_evaluates_collapsed() -> None:
    head, video = make(dropout=0.5), videos()
    with pytest.raises(ValueError, match="needs the texts' seeds"):
        head.score(texts(), head.record(video))
    plain = texts()
    text, other = (replace(plain, seeds=torch.arange(TEXTS) + start) for start in (0, 100))
    one, two = (head.score(given, head.record(video)).similarity for given in (text, other))
    assert (one - two).abs().max() > 1e-3
    # What a text drops depends on its seed alone, wherever and with whatever else it is scored.
    assert torch.equal(head.score(text, head.record(video)).similarity, one)
    alone = head.score(text[2:3], head.record(video)).similarity
    assert (alone - one[2:3]).abs().max() <= 1e-12
    one.sum().backward()  # recomputed tiles drop the same
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    head.eval()
    expected = literal_score(head, text, video)
    agree(head.score(text, head.record(video)), expected, 1e-11)
    # Nearly no dropout: the literal branch of training agrees with the collapsed one.
    nearly = make(dropout=1e-12)
    agree(nearly.score(text, nearly.record(video)), expected, 1e-9)


def test_frame_weights_are_shares_of_real_frames() -> None:
    head, text, video = make(heads=2), texts(), videos()
    weights = head.frame_weights(text, head.record(video))
    assert weights.shape == (TEXTS, 1 + WORDS, 2, VIDEOS, FRAMES)
    assert torch.allclose(weights.sum(-1), torch.ones((), dtype=torch.float64))
    assert (weights[..., ~video.frame_mask] == 0).all()


TABLE_COUNTS = {  # keep rate: (k, Table 5 and 6 removal, fusion, Table 7 removal, fusion)
    0.1: (3, 9, 16, 2066, 2080), 0.2: (6, 36, 49, 2120, 2146), 0.3: (9, 81, 100, 2210, 2248),
    0.4: (12, 144, 169, 2336, 2386), 0.5: (16, 256, 289, 2560, 2626),
    0.6: (19, 361, 400, 2770, 2848), 0.7: (22, 484, 529, 3016, 3106),
    0.8: (25, 625, 676, 3298, 3400), 0.9: (28, 784, 841, 3616, 3730),
}  # fmt: skip
TABLE_8 = {  # remove-remove, remove-fuse, fuse-remove, fuse-fuse
    0.1: (36, 50, 50, 64), 0.2: (144, 170, 170, 196), 0.3: (324, 362, 362, 400),
    0.4: (576, 626, 626, 676), 0.5: (1024, 1090, 1090, 1156), 0.6: (1444, 1522, 1522, 1600),
    0.7: (1936, 2026, 2026, 2116), 0.8: (2500, 2602, 2602, 2704), 0.9: (3136, 3250, 3250, 3364),
}  # fmt: skip


@pytest.mark.parametrize("rate", TABLE_COUNTS)
def test_parameters_as_the_paper_counts_them(rate: float) -> None:
    def count(grain: str | None = None, **options: Any) -> int:
        grains = GRAINS if grain is None else (grain,)
        chosen = tcmgc_options(keep_rate=rate, grains=grains, **options)
        head = TcMgc(chosen, Sizes(8, 32, 12))
        return head.aggregation_parameters

    kept, removal, fusion, matrix_removal, matrix_fusion = TABLE_COUNTS[rate]
    for grain in ("video_word", "sentence_frame"):
        assert count(grain, **{grain: "remove"}) == removal == kept**2
        assert count(grain, **{grain: "fuse"}) == fusion
        assert count(grain, **{grain: "none"}) == 1024
    for one, other in (("words", "frames"), ("frames", "words")):
        off = {f"frame_word_{other}": "none"}
        assert count("frame_word", **{f"frame_word_{one}": "remove"}, **off) == matrix_removal
        assert count("frame_word", **{f"frame_word_{one}": "fuse"}, **off) == matrix_fusion
    pairs = [(a, b) for a in ("remove", "fuse") for b in ("remove", "fuse")]
    found = [count("frame_word", frame_word_words=a, frame_word_frames=b) for a, b in pairs]
    assert tuple(found) == TABLE_8[rate]
    whole = {0.1: 61, 0.3: 505}  # those that Fig. B.1 gives as numbers
    if rate in whole:
        assert count() == whole[rate]


def test_a_training_batch_need_not_be_square() -> None:
    head, text, video = make(), texts(4), videos(4)
    record = head.record(video)
    whole = head.score(text, record)
    halves = [head.score(text[rows], record) for rows in (slice(0, 2), slice(2, 4))]
    joined = torch.cat([half.similarity for half in halves])
    assert (whole.similarity - joined).abs().max() <= 1e-12


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "heads": ({"heads": 3}, "heads must divide the width 16; got heads=3"),
    "rate 0": ({"keep_rate": 0.0}, r"keep_rate must be in \(0, 1\]; got 0.0"),
    "rate 2": ({"keep_rate": 1.5}, r"keep_rate must be in \(0, 1\]; got 1.5"),
    "keeps none": ({"keep_rate": 0.05}, "keep_rate 0.05 keeps no word of 10"),
    "keeps no frame": ({"keep_rate": 0.1, "text_conditioned": False}, "keeps no frame of 5"),
    "no grain": ({"grains": ()}, "head.grains must name at least one of"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


HEADS = {
    "tcmgc": make(),
    "plain": make(text_conditioned=False, keep_rate=0.4),
    "xpool": shaken(XPool(XPoolHead(dropout=0.0), SIZES)),
    "xclip": shaken(XClip(XClipHead(), SIZES)),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
def test_bad_features(head: Head) -> None:
    video = videos()
    record = head.record(video)
    hidden = VideoFeatures(video.frames, video.encoded, video.frame_mask.clone())
    hidden.frame_mask[1] = False
    with pytest.raises(ValueError, match=r"hides all frames of video 1 \(of 3"):
        head.record(hidden)
    with pytest.raises(ValueError, match=r"video\.frames has width 20, the head 16"):
        head.record(videos(dim=20))
    with pytest.raises(ValueError, match="has width 20, the head 16"):
        head.score(texts(dim=20), record)
    for name in ("frames", "encoded"):
        bad = videos()
        getattr(bad, name)[2, 0, 3] = float("nan")
        with pytest.raises(
            ValueError, match=rf"video\.{name} is not finite for 1 of 3 items.*index 2"
        ):
            head.record(bad)
    for score in (head.score, lambda *arguments: score_tiled(head, *arguments)):
        bad_text = texts()
        bad_text.words[3, 1, 0] = float("inf")
        with pytest.raises(ValueError, match=r"text\.words is not finite for 1 of 4 items"):
            score(bad_text, record)
        # Their sum overflows, none of them does.
        large = texts()
        large.words[0] = 1e308
        large.words[2, 0, 0] = float("nan")
        with pytest.raises(ValueError, match=r"for 1 of 4 items, the first at index 2"):
            score(large, record)
    if not isinstance(head, XPool):
        with pytest.raises(ValueError, match="12 positions; the head was built for words=10"):
            head.score(texts(words=12), record)
    if isinstance(head, XClip) or head is HEADS["plain"]:
        with pytest.raises(ValueError, match="frames=5"):
            head.record(videos(frames=6))
