"""TC-MGC's similarity, equation by equation: the slow reference for :class:`tcmgc.heads.TcMgc`.

Nothing is collapsed, shared or rearranged here, so it can be compared with the paper. Tests check
that both agree, and `benchmarks/similarity.py` times them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from tcmgc.config import GRAINS
from tcmgc.heads.parts.aggregate import Isa, SoftmaxSum
from tcmgc.heads.tcmgc import TcMgc
from tcmgc.towers.features import Scores, TextFeatures, VideoFeatures


def literal_score(
    head: TcMgc, text: TextFeatures, video: VideoFeatures, scale: Tensor | float = 1.0
) -> Scores:
    """Eq. 2-32 for every pair, with a text-conditioned head's weights and without word masks."""
    assert head.attention is not None
    mask = video.frame_mask if head.mask_frames else torch.ones_like(video.frame_mask)
    pooled = head.attention(text.sentence.unsqueeze(1), video.encoded, mask)[:, 0]
    frames = head.attention(text.words, video.encoded, mask)
    pooled, frames = F.normalize(pooled, dim=-1), F.normalize(frames, dim=-1)
    sentence, words = F.normalize(text.sentence, dim=-1), F.normalize(text.words, dim=-1)
    whole = sentence if head.sentence_product is None else sentence @ head.sentence_product
    local = words if head.word_product is None else words @ head.word_product

    scores = {}
    if "video_sentence" in head.grains:  # Eq. 12
        scores["video_sentence"] = torch.einsum("tvd,td->tv", pooled, whole)
    if head.video_word is not None:  # Eq. 13
        vector = torch.einsum("tvd,twd->tvw", pooled, words)
        vector = _reorganise(vector, head.modes["video_word"], head.kept_words)
        scores["video_word"] = _aggregate(head.video_word, vector)
    if head.sentence_frame is not None:  # Eq. 14
        vector = torch.einsum("tfvd,td->tvf", frames, sentence)
        vector = _reorganise(vector, head.modes["sentence_frame"], head.kept_frames)
        scores["sentence_frame"] = _aggregate(head.sentence_frame, vector)
    if head.frame_word is not None:  # Eq. 15
        matrix = torch.einsum("tfvd,twd->tvfw", frames, local)
        matrix = _reorganise(matrix, head.modes["frame_word_words"], head.kept_words)
        matrix = _reorganise(matrix.mT, head.modes["frame_word_frames"], head.kept_frames).mT
        parts = head.frame_word
        along_words = _aggregate(parts.first_frames, matrix.mT)  # Eq. 22-23
        along_frames = _aggregate(parts.first_words, matrix)  # Eq. 26-27
        scores["frame_word"] = (  # Eq. 24-25, 28-30
            _aggregate(parts.then_words, along_words) + _aggregate(parts.then_frames, along_frames)
        ) / 2
    stacked = torch.stack([scores[grain] for grain in GRAINS if grain in scores])
    return Scores(head.combine(stacked, scale), scores)


def _reorganise(values: Tensor, mode: str, kept: int) -> Tensor:
    """Algorithms 1 and 2 along the last axis."""
    if mode == "none":
        return values
    top = values.topk(kept, dim=-1, largest=True, sorted=True).values
    if mode == "remove":
        return top
    rest = values.topk(values.shape[-1] - kept, dim=-1, largest=False, sorted=True).values
    fused = (rest.softmax(-1) * rest).sum(-1, keepdim=True)
    return torch.cat([top, fused], -1)


def _aggregate(step: Isa | SoftmaxSum, values: Tensor) -> Tensor:
    """Eq. 18-19 along the last axis, or the softmax-weighted sum."""
    temperature = step.temperature
    weights = (values / temperature).softmax(-1)
    if isinstance(step, Isa):
        weights = (F.linear(weights, step.weight) / temperature).softmax(-1)
    return (weights * values).sum(-1)
