"""DRL: token-wise interaction, weighted (WTI) or not (TI)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tcmgc.config import WtiHead
from tcmgc.heads.base import Head, Sizes, check_video
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.heads.parts.interactions import Padding, max_interaction
from tcmgc.towers.features import TextFeatures, VideoFeatures, _Batched


@dataclass(frozen=True)
class Weighed(_Batched):
    """L2-normalised words of a text or frames of a video, with their weights."""

    tokens: Float[Tensor, "items tokens dim"]
    weights: Float[Tensor, "items tokens"]
    mask: Bool[Tensor, "items tokens"]

    def __len__(self) -> int:
        return len(self.tokens)


class Wti(Head):
    """Mean of two weighted sums: each word with its best frame, and each frame with its best word.

    ``(sum_w a_w max_f x_wf + sum_f b_f max_w x_wf) / 2`` with cosines x of words and encoded frames; a and b
    sum to 1 over real words and frames. In WTI they are softmaxes over outputs of small networks on the
    features before normalisation; in TI they are equal. Start and end tokens of a text count as words.

    The authors multiply by the logit scale in training only; here scores never include it.

    Args:
        options: weights, depth of their networks, treatment of padding.
        sizes: the width of the joint space matters.
    """

    in_native = True

    in_native = interacts = True

    def __init__(self, options: WtiHead, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.padding: Padding = "zero" if options.as_published else "excluded"
        self.word_network: nn.Module | None = None
        self.frame_network: nn.Module | None = None
        if options.weights == "learnt":
            self.word_network = _network(sizes.dim, options.layers)
            self.frame_network = _network(sizes.dim, options.layers)

    def record(self, video: VideoFeatures) -> Weighed:
        """Frames and their weights."""
        check_video(video, self.dim)
        return _weighed(video.encoded, video.frame_mask, self.frame_network)

    def prepare_texts(self, text: TextFeatures) -> Weighed:
        """Words and their weights."""
        return _weighed(text.words, text.word_mask, self.word_network)

    def tile(
        self, texts: Weighed, videos: Weighed, run: Run = eager
    ) -> Float[Tensor, "1 texts videos"]:
        """The score of every pair of a tile."""
        sides = max_interaction(
            *(texts.tokens, texts.weights, videos.tokens, videos.weights),
            *(texts.mask, videos.mask, self.padding),
        )
        return sides.mean(0, keepdim=True)


def _network(dim: int, layers: int) -> nn.Sequential:
    """Linear layers with ReLU between them, with one output."""
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts += [nn.Linear(dim, dim), nn.ReLU()]
    network = nn.Sequential(*parts, nn.Linear(dim, 1))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return network


def _weighed(
    tokens: Float[Tensor, "items tokens dim"],
    mask: Bool[Tensor, "items tokens"],
    network: nn.Module | None,
) -> Weighed:
    logits = tokens.new_zeros(mask.shape) if network is None else network(tokens)[..., 0]
    weights = torch.softmax(logits.masked_fill(~mask, float("-inf")), -1)
    return Weighed(F.normalize(tokens, dim=-1), weights, mask)
