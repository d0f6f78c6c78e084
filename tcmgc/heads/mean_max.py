"""Video-ColBERT: the mean over words of each word's best frame, before and after the temporal encoder."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tcmgc.config import MeanMaxHead
from tcmgc.heads.base import Head, Sizes, check_video
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.heads.parts.interactions import max_interaction
from tcmgc.towers.features import TextFeatures, VideoFeatures, _Batched


@dataclass(frozen=True)
class BothFrames(_Batched):
    """Record of a video: its L2-normalised frames, as the tower gave them and encoded."""

    frames: Float[Tensor, "videos frames dim"]
    encoded: Float[Tensor, "videos frames dim"]
    mask: Bool[Tensor, "videos frames"]

    def __len__(self) -> int:
        return len(self.frames)


class MeanMax(Head):
    """MeanMaxSim, ``1/n sum_w max_f x_wf`` with cosines x of n real words and real frames, twice: the mean of both.

    Reddy et al. 2025 (arXiv 2503.19009), without the expansion tokens of queries and videos.

    Args:
        options: none.
        sizes: the width of the joint space matters.
    """

    in_native = interacts = True

    def __init__(self, options: MeanMaxHead, sizes: Sizes) -> None:
        super().__init__(sizes, ("frames", "encoded"))

    def record(self, video: VideoFeatures) -> BothFrames:
        """Both kinds of frames."""
        check_video(video, self.dim)
        frames, encoded = F.normalize(video.frames, dim=-1), F.normalize(video.encoded, dim=-1)
        return BothFrames(frames, encoded, video.frame_mask)

    def tile(
        self, texts: TextFeatures, videos: BothFrames, run: Run = eager
    ) -> Float[Tensor, "2 texts videos"]:
        """Both scores of every pair of a tile."""
        words, mask = F.normalize(texts.words, dim=-1), texts.word_mask
        equal = mask.to(words.dtype) / mask.sum(1, keepdim=True)
        both = [
            max_interaction(words, equal, frames, None, mask, videos.mask)
            for frames in (videos.frames, videos.encoded)
        ]
        return torch.cat(both)
