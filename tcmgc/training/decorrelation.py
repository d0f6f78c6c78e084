"""DRL's channel decorrelation: a loss term on the features of matching texts and videos."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tcmgc.config import ChannelDecorrelation as Options
from tcmgc.heads.parts.pooling import mean_of_frames
from tcmgc.towers.features import TextFeatures, VideoFeatures


class ChannelDecorrelation:
    """``weight (diagonal sum_i (C_ii - 1)^2 + rest sum_ij C_ij^2)``, C the channels' cross-correlation (Wang et al. 2022).

    Features are L2-normalised, then each channel is standardised to mean 0 and variance 1. With tokens, C is the
    mean of two matrices: words with their best frames, and frames with their best words, within each pair. With
    the head's weights, which sum to 1 per text or video, it is a weighted sum over tokens divided by the
    number of pairs.

    Args:
        options: which features, and the weights.
    """

    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, model: Any, text: TextFeatures, video: VideoFeatures) -> Float[Tensor, ""]:
        """The term for a whole batch; text i belongs to video i."""
        options = self.options
        if options.of == "pooled":
            sentence = F.normalize(text.sentence, dim=-1)
            whole = mean_of_frames(video.encoded, video.frame_mask)
            matrix = cross_correlation(sentence, whole)
        else:
            words, frames = F.normalize(text.words, dim=-1), F.normalize(video.encoded, dim=-1)
            word_mask, frame_mask = text.word_mask, video.frame_mask
            best_frame, best_word = self._best(words, frames, word_mask, frame_mask)
            word_weights = frame_weights = None
            if options.of == "weighted_tokens":
                count = len(words)
                word_weights = model.head.prepare_texts(text).weights[word_mask] / count
                frame_weights = model.head.record(video).weights[frame_mask] / count
            found = _taken(frames, best_frame)[word_mask]
            matrix = cross_correlation(words[word_mask], found, word_weights)
            found = _taken(words, best_word)[frame_mask]
            matrix = (matrix + cross_correlation(frames[frame_mask], found, frame_weights)) / 2
        own = matrix.diagonal()
        rest = matrix.square().sum() - own.square().sum()
        return options.weight * (options.diagonal * (own - 1).square().sum() + options.rest * rest)

    @torch.no_grad()
    def _best(
        self,
        words: Float[Tensor, "pairs words dim"],
        frames: Float[Tensor, "pairs frames dim"],
        word_mask: Bool[Tensor, "pairs words"],
        frame_mask: Bool[Tensor, "pairs frames"],
    ) -> tuple[Int[Tensor, "pairs words"], Int[Tensor, "pairs frames"]]:
        """The best frame of each word and the best word of each frame, in its own pair."""
        products = words @ frames.mT
        outside = ~(word_mask.unsqueeze(2) & frame_mask.unsqueeze(1))
        products = products.masked_fill(
            outside, 0.0 if self.options.as_published else float("-inf")
        )
        return products.argmax(2), products.argmax(1)


def cross_correlation(
    one: Float[Tensor, "items dim"],
    other: Float[Tensor, "items dim"],
    weights: Float[Tensor, " items"] | None = None,
) -> Float[Tensor, "dim dim"]:
    """Cross-correlation of standardised channels of matching items: a weighted sum, or the mean."""
    one, other = _standardised(one), _standardised(other)
    weighed = one / len(one) if weights is None else one * weights.unsqueeze(1)
    return weighed.T @ other


def _standardised(x: Float[Tensor, "items dim"]) -> Float[Tensor, "items dim"]:
    return (x - x.mean(0)) / x.std(0).clamp_min(1e-12)


def _taken(
    tokens: Float[Tensor, "pairs tokens dim"], places: Int[Tensor, "pairs others"]
) -> Float[Tensor, "pairs others dim"]:
    return tokens.take_along_dim(places.unsqueeze(2), 1)
