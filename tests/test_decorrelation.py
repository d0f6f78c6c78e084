"""DRL's channel decorrelation by hand."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from head_cases import peer, texts, videos
from torch import Tensor

from tcmgc.config import ChannelDecorrelation as Options
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training.decorrelation import ChannelDecorrelation

PAIRS = 4
MODEL = SimpleNamespace(head=peer("WTI"))


def standardised(x: Tensor) -> Tensor:
    count = len(x)
    mean = x.sum(0) / count
    return (x - mean) / (((x - mean) ** 2).sum(0) / (count - 1)).sqrt()


def penalty(c: Tensor, diagonal: float, rest: float) -> float:
    total = 0.0
    for i in range(len(c)):
        for j in range(len(c)):
            total += diagonal * (c[i, i] - 1) ** 2 if i == j else rest * c[i, j] ** 2
    return total


def by_hand(of: str, text: TextFeatures, video: VideoFeatures, published: bool) -> Tensor:
    """The cross-correlation, one token after the other."""
    words, frames = F.normalize(text.words, dim=-1), F.normalize(video.encoded, dim=-1)
    shares = (MODEL.head.prepare_texts(text).weights, MODEL.head.record(video).weights)
    matrices = []
    sides = (
        (words, text.word_mask, frames, video.frame_mask, shares[0]),
        (frames, video.frame_mask, words, text.word_mask, shares[1]),
    )
    for tokens, mask, others, other_mask, weights in sides:
        one, other, share = [], [], []
        for pair in range(PAIRS):
            for place in range(tokens.shape[1]):
                if not mask[pair, place]:
                    continue
                products = others[pair] @ tokens[pair, place]
                least = 0.0 if published else -torch.inf
                products = torch.where(other_mask[pair], products, least)
                one.append(tokens[pair, place])
                other.append(others[pair, products.argmax()])
                share.append(weights[pair, place])
        z, y = standardised(torch.stack(one)), standardised(torch.stack(other))
        each = torch.stack(share) / PAIRS
        if of == "tokens":
            each = torch.full_like(each, 1 / len(z))
        matrices.append((z * each[:, None]).T @ y)
    return (matrices[0] + matrices[1]) / 2


@pytest.mark.parametrize("published", [False, True], ids=["real", "published"])
@pytest.mark.parametrize("of", ["weighted_tokens", "tokens"])
def test_tokens_by_hand(of: str, published: bool) -> None:
    text, video = texts(PAIRS), videos(PAIRS)
    video = VideoFeatures(video.frames, -video.encoded, video.frame_mask)
    options = Options(of=of, weight=0.5, diagonal=0.3, rest=0.2, as_published=published)  # type: ignore[arg-type]
    term = ChannelDecorrelation(options)
    found = term(MODEL, text, video)
    expected = 0.5 * penalty(by_hand(of, text, video, published), 0.3, 0.2)
    assert torch.allclose(found, expected, rtol=1e-10)
    other = 0.5 * penalty(by_hand(of, text, video, not published), 0.3, 0.2)
    assert not torch.allclose(found, other, rtol=1e-6)


def test_pooled_by_hand_and_gradients() -> None:
    text, video = texts(PAIRS), videos(PAIRS)
    term = ChannelDecorrelation(Options(of="pooled", weight=1.0, diagonal=1.0, rest=0.5))
    sentence, whole = F.normalize(text.sentence, dim=-1), []
    for pair in range(PAIRS):
        frames = F.normalize(video.encoded[pair][video.frame_mask[pair]], dim=-1)
        whole.append(F.normalize(frames.mean(0), dim=-1))
    c = standardised(sentence).T @ standardised(torch.stack(whole)) / PAIRS
    found = term(SimpleNamespace(), text, video)
    assert torch.allclose(found, torch.as_tensor(penalty(c, 1.0, 0.5)), rtol=1e-10)

    def value(x: Tensor) -> Tensor:
        changed = TextFeatures(x, text.words, text.word_mask)
        return term(SimpleNamespace(), changed, video)

    assert torch.autograd.gradcheck(value, text.sentence[:, :].clone().requires_grad_())
