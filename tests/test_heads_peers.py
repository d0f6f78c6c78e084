"""Heads of the other systems: by hand, in tiles, from records, padding, bad input."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from head_cases import PATCHES, PEERS, agree, peer, texts, videos
from torch import Tensor

from tcmgc.config import UcofiaHead
from tcmgc.heads import Head, native, record_layout, scan, score_tiled
from tcmgc.towers.features import Scores, TextFeatures, VideoFeatures

LOG_SCALE = 1.5
each_head = pytest.mark.parametrize("name", PEERS)


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def literal(name: str, head: Head, text: TextFeatures, video: VideoFeatures, scale: float) -> float:
    """The similarity of one text and one video, from their definition, frame by frame."""
    real, words_real = video.frame_mask[0], text.word_mask[0]
    sentence, words = unit(text.sentence[0]), unit(text.words[0])
    encoded, frames = unit(video.encoded[0]), unit(video.frames[0])
    whole = unit(encoded[real].mean(0))
    if name == "mean":
        return sentence @ whole
    if name == "mean-max":
        x, y = (words[words_real] @ seen[real].T for seen in (frames, encoded))
        return (x.amax(1).mean() + y.amax(1).mean()) / 2
    if "WTI" in name or name == "TI":
        return wti(name, head, text, video, words, encoded)
    if name.startswith("token selection"):
        if "published" in name:
            count = len(real)
            whole_mask = [real[i % count] for i in range(count * (1 + PATCHES))]
            real = torch.stack(whole_mask[:: 1 + PATCHES])
        c = (encoded @ sentence)[real]
        return ((4 * c / c.norm()).softmax(0) * c).sum()
    if name.startswith("UCoFiA"):
        return ucofia(name, head, video, sentence, words, frames, whole, scale)
    raise KeyError(name)


def wti(
    name: str,
    head: Head,
    text: TextFeatures,
    video: VideoFeatures,
    words: Tensor,
    frames: Tensor,
) -> Tensor:
    total = 0
    sides = (
        (text.words[0], text.word_mask[0], head.word_network, words, frames),
        (video.encoded[0], video.frame_mask[0], head.frame_network, frames, words),
    )
    masks = (video.frame_mask[0], text.word_mask[0])
    for (raw, mask, network, tokens, others), other_mask in zip(sides, masks, strict=True):
        logits = torch.zeros(len(raw)).double() if network is None else network(raw)[:, 0]
        weights = torch.zeros_like(logits)
        weights[mask] = logits[mask].softmax(0)
        for weight, token in zip(weights[mask], tokens[mask], strict=True):
            products = others @ token
            best = products[other_mask].amax()
            if "published" in name and not other_mask.all():
                best = best.clamp_min(0.0)
            total = total + weight * best
    return total / 2


def ucofia(
    name: str,
    head: Head,
    video: VideoFeatures,
    sentence: Tensor,
    words: Tensor,
    frames: Tensor,
    whole: Tensor,
    scale: float,
) -> Tensor:
    t = head.temperature

    def isa(x: Tensor, matrix: Tensor) -> Tensor:
        return ((((x / t).softmax(-1) @ matrix) / t).softmax(-1) * x).sum(-1)

    tokens = torch.cat([video.frames[0][:, None], video.patches[0]], 1).flatten(0, 1)
    if "evaluation" not in name:
        tokens = tokens @ head.token_product
    x = (words @ head.word_product) @ tokens.T
    by_token = isa(x.T, head.first_words)
    by_word = isa(x, head.first_tokens)
    patch_word = (isa(by_token, head.then_tokens) + isa(by_word, head.then_words)) / 2
    video_sentence = (sentence @ head.sentence_product) @ (whole @ head.video_product)
    frame_sentence = isa(frames @ sentence, head.frame_sentence)
    return (video_sentence + frame_sentence + patch_word / scale) / 3


LITERAL = [name for name in PEERS if name not in ("X-Pool", "X-CLIP", "tight")]


@pytest.mark.parametrize("name", LITERAL)
def test_similarity_and_gradients_by_hand(name: str) -> None:
    head, text, video = peer(name), texts(), videos(patches=PATCHES)
    leaves = [text.sentence, text.words, video.frames, video.encoded, video.patches]
    for leaf in leaves:
        leaf.requires_grad_()
    head.memory = 1  # a text at a time
    found = head.score(text, head.record(video), LOG_SCALE).similarity
    expected = torch.stack(
        [
            torch.stack(
                [
                    literal(name, head, text[t : t + 1], video[v : v + 1], LOG_SCALE)
                    for v in range(len(video))
                ]
            )
            for t in range(len(text))
        ]
    )
    assert (found - expected).abs().max() <= 1e-12
    weights = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator())
    wanted = [*leaves, *head.parameters()]
    gradients = [
        torch.autograd.grad((scores * weights).sum(), wanted, allow_unused=True)
        for scores in (found, expected)
    ]
    for mine, theirs in zip(*gradients, strict=True):
        if theirs is None:
            assert mine is None or not mine.any()
        else:
            assert (mine - theirs).abs().max() <= 1e-10


def test_cross_encoder_by_hand() -> None:
    """Each pair alone, through whole blocks."""
    head, text, video = peer("tight"), texts(), videos()
    found = head.score(text, head.record(video)).similarity
    for t in range(len(text)):
        for v in range(len(video)):
            real = video.frame_mask[v]
            x = torch.cat([text.sentence[t : t + 1], video.encoded[v]]) + head.positions.weight
            x = x[torch.cat([torch.ones(1, dtype=torch.bool), real])].unsqueeze(0)
            for block in head.blocks:
                x = block(x, torch.ones(x.shape[:2], dtype=torch.bool))
            y = head.dense(head.norm(x[0, 0]))
            expected = head.out(y * torch.sigmoid(1.702 * y))[0]
            assert (found[t, v] - expected).abs() <= 1e-12


def test_cross_encoder_drops_by_seed_and_starts_from_the_text_tower() -> None:
    head, video = peer("tight").train(), videos()
    with pytest.raises(ValueError, match="needs the texts' seeds"):
        head.score(texts(), head.record(video))
    text, other = (replace(texts(), seeds=torch.arange(4) + start) for start in (0, 100))
    one, two = (head.score(given, head.record(video)).similarity for given in (text, other))
    assert (one - two).abs().max() > 1e-3
    alone = head.score(text[2:3], head.record(video)).similarity
    assert (alone - one[2:3]).abs().max() <= 1e-12
    assert (head.eval().score(text, head.record(video)).similarity - one).abs().max() > 1e-3

    blocks, positions = peer("tight").blocks, torch.randn(9, 16, dtype=torch.float64)
    head.initialise_from(blocks, positions)
    assert torch.equal(head.positions.weight, positions[:6])
    assert torch.equal(head.blocks[1].mlp.c_fc.weight, blocks[1].mlp.c_fc.weight)
    with pytest.raises(ValueError, match=r"head\.initialise_from_text: the text tower \(1 layers"):
        head.initialise_from(blocks[:1], positions)


@each_head
def test_tiles_and_records_equal_the_whole(name: str) -> None:
    head, text, video = peer(name), texts(7), videos(6, patches=PATCHES)
    record = head.record(video)
    expected = head.score(text, record, 2.0)
    assert tuple(expected.grains) == head.grains
    for memory in (1, 20_000, 10**9):
        agree(score_tiled(head, text, record, 2.0, memory=memory), expected, 1e-10)
    assert score_tiled(head, text, record, 2.0, grains=False).grains == {}
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


@each_head
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_records_kept_as_rows(name: str, dtype: torch.dtype) -> None:
    """Scores from stored rows, read where they lie, are those of their numbers in float32."""
    head, text = peer(name).float(), texts(7, dtype=torch.float32)
    video = videos(6, dtype=torch.float32, patches=PATCHES)
    with torch.no_grad():
        record = head.record(video)
        layout = record_layout(head, video.frames.shape[1])
        rows = layout.rows(record, dtype)
        blocks = [layout.record(rows[start : start + 4]) for start in (0, 4)]
        found = torch.cat(list(scan(head, text, blocks, 2.0)), 1)
        with native.off():
            expected = score_tiled(head, text, layout.record(rows.float()), 2.0).similarity
    assert (found - expected).abs().max() <= 1e-5


USES_FRAMES = ("X-CLIP", "UCoFiA", "UCoFiA, evaluation tree", "token selection as published")
USES_WORDS = ("X-CLIP", "UCoFiA", "UCoFiA, evaluation tree")


@each_head
def test_padding(name: str) -> None:
    """What padded words and frames hold changes scores where the authors let it, and nowhere else."""
    head, text, video = peer(name), texts(), videos(patches=PATCHES)
    expected = head.score(text, head.record(video)).similarity

    def moved(text: TextFeatures, video: VideoFeatures) -> float:
        changed = head.score(text, head.record(video)).similarity
        return (changed - expected).abs().max().item()

    other = video.map(torch.clone)
    for features in (other.frames, other.encoded, other.patches):
        features[~video.frame_mask] = 3.0 * features[~video.frame_mask].flip(-1)
    assert (moved(text, other) > 1e-6) == (name in USES_FRAMES)
    words = text.map(torch.clone)
    words.words[~text.word_mask] = 3.0 * words.words[~text.word_mask].flip(-1)
    assert (moved(words, video) > 1e-6) == (name in USES_WORDS)
    if name in ("X-CLIP", "UCoFiA"):
        assert PEERS[name].uses_padding


def test_as_published_padding_can_be_a_maximum() -> None:
    """A word unlike all frames: 0 in a short video as published, and not in a long one."""
    word = torch.ones(1, 1, 16, dtype=torch.float64)
    text = TextFeatures(word[0], word, torch.ones(1, 1, dtype=torch.bool))
    frames = -word.expand(2, 2, -1)
    mask = torch.tensor([[True, True], [True, False]])
    video = VideoFeatures(frames, frames, mask)
    for name, expected in (("TI", [-1.0, -1.0]), ("WTI as published", [-1.0, -0.5])):
        head = peer(name)
        found = head.score(text, head.record(video)).similarity[0]
        # As published the short video's other side has its one real frame with the one word.
        assert torch.allclose(found, torch.tensor(expected).double())


@each_head
def test_bad_features(name: str) -> None:
    head, video = peer(name), videos(patches=PATCHES)
    record = head.record(video)
    hidden = video.map(torch.clone)
    hidden.frame_mask[1] = False
    with pytest.raises(ValueError, match=r"hides all frames of video 1 \(of 3"):
        head.record(hidden)
    with pytest.raises(ValueError, match=r"video\.frames has width 20, the head 16"):
        head.record(videos(dim=20, patches=PATCHES))
    with pytest.raises(ValueError, match="has width 20, the head 16"):
        head.score(texts(dim=20), record)
    for field in ("frames", "encoded", "patches"):
        bad = video.map(torch.clone)
        getattr(bad, field)[2, 0, 0] = float("nan")
        with pytest.raises(ValueError, match=rf"video\.{field} is not finite for 1 of 3 items"):
            head.record(bad)
    if name in USES_WORDS:
        with pytest.raises(ValueError, match="12 positions; the head was built for words=10"):
            head.score(texts(words=12), record)
    if name in ("X-CLIP", "tight") or name.startswith("UCoFiA"):
        with pytest.raises(ValueError, match="6 frames; the head was built for frames=5"):
            head.record(videos(frames=6, patches=PATCHES))
    if name.startswith("UCoFiA"):
        with pytest.raises(ValueError, match=r"needs patches, and video\.patches is None"):
            head.record(videos())


def test_ucofias_aggregation_is_counted() -> None:
    head = peer("UCoFiA")
    tokens = 5 * (1 + PATCHES)
    assert head.aggregation_parameters == 5**2 + 2 * 10**2 + 2 * tokens**2
    assert UcofiaHead().scores == 3
