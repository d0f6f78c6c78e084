"""Similarities as each system's authors compute them: all products of a block of pairs at once, in torch.

Formulas of the published code, with a head's own weights, so that each can be compared with the head's
result before both are timed.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tcmgc.heads import TcMgc, XClip, XPool
from tcmgc.heads.base import Head
from tcmgc.heads.literal import literal_score
from tcmgc.heads.mean import Mean
from tcmgc.heads.mean_max import MeanMax
from tcmgc.heads.tight import Tight
from tcmgc.heads.token_selection import TokenSelection
from tcmgc.heads.ucofia import Ucofia
from tcmgc.heads.wti import Wti
from tcmgc.towers.features import TextFeatures, VideoFeatures

Form = Callable[[Any, TextFeatures, VideoFeatures, Tensor], Tensor]


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


def _mean(video: VideoFeatures) -> Tensor:
    mask = video.frame_mask.unsqueeze(-1)
    return _unit((_unit(video.encoded) * mask).sum(1) / mask.sum(1))


def mean(head: Mean, text: TextFeatures, video: VideoFeatures, scale: Tensor) -> Tensor:
    return _unit(text.sentence) @ _mean(video).T


def tight(head: Tight, text: TextFeatures, video: VideoFeatures, scale: Tensor) -> Tensor:
    shape = (len(text), len(video))
    sentence = text.sentence[:, None, None].expand(*shape, 1, -1)
    frames = video.encoded[None].expand(*shape, -1, -1)
    x = torch.cat([sentence, frames], 2).flatten(0, 1) + head.positions.weight
    mask = F.pad(video.frame_mask, (1, 0), value=True).repeat(shape[0], 1)
    for block in head.blocks:
        x = block(x, mask)
    first = head.norm(x)[:, 0]
    return head.out(head.activation(head.dense(first))).view(shape)


def xpool(head: XPool, text: TextFeatures, video: VideoFeatures, scale: Tensor) -> Tensor:
    pooled = head.attention(text.sentence.unsqueeze(1), video.encoded, video.frame_mask)[:, 0]
    return torch.einsum("td,tvd->tv", _unit(text.sentence), _unit(pooled))


def xclip(head: XClip, text: TextFeatures, video: VideoFeatures, scale: Tensor) -> Tensor:
    sentence, word, frame = _unit(text.sentence), _unit(text.words), _unit(video.frames)
    whole = _mean(video)

    def pool(x: Tensor, part: Any) -> Tensor:
        return ((x / head.temperature).softmax(-1) @ part.weight * x).sum(-1)

    matrix = torch.einsum("twd,vfd->tvwf", word @ head.word_product, frame)
    frames_first = pool(pool(matrix, head.first_frames), head.then_words)
    words_first = pool(pool(matrix.mT, head.first_words), head.then_frames)
    scores = (
        sentence @ head.sentence_product @ whole.T,
        pool(torch.einsum("twd,vd->tvw", word, whole), head.video_word),
        pool(torch.einsum("td,vfd->tvf", sentence, frame), head.sentence_frame),
        (frames_first + words_first) / 2,
    )
    return torch.stack(scores).mean(0)


def wti(head: Wti, text: TextFeatures, video: VideoFeatures, scale: Tensor) -> Tensor:
    def weights(tokens: Tensor, mask: Tensor, network: Any) -> Tensor:
        logits = tokens.new_zeros(mask.shape) if network is None else network(tokens)[..., 0]
        return logits.masked_fill(~mask, float("-inf")).softmax(-1)

    of_words = weights(text.words, text.word_mask, head.word_network)
    of_frames = weights(video.encoded, video.frame_mask, head.frame_network)
    products = torch.einsum("twd,vfd->tvwf", _unit(text.words), _unit(video.encoded))
    products = torch.einsum("tvwf,tw->tvwf", products, text.word_mask.to(products.dtype))
    products = torch.einsum("tvwf,vf->tvwf", products, video.frame_mask.to(products.dtype))
    to_video = torch.einsum("tvw,tw->tv", products.max(-1).values, of_words)
    to_text = torch.einsum("tvf,vf->tv", products.max(-2).values, of_frames)
    return (to_video + to_text) / 2


def mean_max(head: MeanMax, text: TextFeatures, video: VideoFeatures, scale: Tensor) -> Tensor:
    equal = text.word_mask / text.word_mask.sum(1, keepdim=True)
    found = []
    for frames in (video.frames, video.encoded):
        products = torch.einsum("twd,vfd->tvwf", _unit(text.words), _unit(frames))
        products = products.masked_fill(~video.frame_mask[None, :, None], float("-inf"))
        found.append(torch.einsum("tvw,tw->tv", products.max(-1).values, equal))
    return torch.stack(found).mean(0)


def token_selection(
    head: TokenSelection, text: TextFeatures, video: VideoFeatures, scale: Tensor
) -> Tensor:
    cosines = torch.einsum("td,vfd->tvf", _unit(text.sentence), _unit(video.encoded))
    masked = cosines * video.frame_mask
    relative = masked / masked.norm(dim=-1, keepdim=True)
    logits = (head.sharpness * relative).masked_fill(~video.frame_mask, -1e18)
    return (logits.softmax(-1) * cosines).sum(-1)


def ucofia(head: Ucofia, text: TextFeatures, video: VideoFeatures, scale: Tensor) -> Tensor:
    assert video.patches is not None
    sentence, words, frames = _unit(text.sentence), _unit(text.words), _unit(video.frames)
    tokens = torch.cat([video.frames.unsqueeze(2), video.patches], 2).flatten(1, 2)
    tokens = tokens if head.leaves_out else tokens @ head.token_product
    t = head.temperature

    def isa(x: Tensor, matrix: Tensor) -> Tensor:
        return ((((x / t).softmax(-1) @ matrix) / t).softmax(-1) * x).sum(-1)

    products = torch.einsum("twd,vpd->tvwp", words @ head.word_product, tokens)
    words_first = isa(isa(products.mT, head.first_words), head.then_tokens)
    tokens_first = isa(isa(products, head.first_tokens), head.then_words)
    patch_word = (words_first + tokens_first) / 2
    whole = _mean(video) @ head.video_product
    video_sentence = sentence @ head.sentence_product @ whole.T
    frame_sentence = isa(torch.einsum("td,vfd->tvf", sentence, frames), head.frame_sentence)
    return (video_sentence + frame_sentence + patch_word / scale) / 3


def tcmgc(head: TcMgc, text: TextFeatures, video: VideoFeatures, scale: Tensor) -> Tensor:
    return literal_score(head, text, video, scale).similarity


FORMS: dict[type[Head], Form] = {
    Mean: mean,
    Tight: tight,
    XPool: xpool,
    XClip: xclip,
    Wti: wti,
    MeanMax: mean_max,
    TokenSelection: token_selection,
    Ucofia: ucofia,
    TcMgc: tcmgc,
}
"""Formulas by the head's class."""
