"""CLIP4Clip's similarity without a cross encoder, for meanP, seqLSTM, seqTransf and CenterCLIP."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tcmgc.config import MeanHead
from tcmgc.heads.base import Head, Sizes, Vectors, check_video
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.heads.parts.pooling import mean_of_frames
from tcmgc.towers.features import TextFeatures, VideoFeatures


class Mean(Head):
    """The cosine of the sentence and the mean of L2-normalised encoded frames without padding.

    The temporal encoder decides the variant: none is meanP, an LSTM is seqLSTM, a transformer is
    seqTransf. DRL's dot product (DP) is the same head.

    Args:
        options: none.
        sizes: the width of the joint space matters.
    """

    def __init__(self, options: MeanHead, sizes: Sizes) -> None:
        super().__init__(sizes)

    def record(self, video: VideoFeatures) -> Vectors:
        """The video's vector."""
        check_video(video, self.dim)
        return Vectors(mean_of_frames(video.encoded, video.frame_mask))

    def alone(
        self, video: VideoFeatures
    ) -> tuple[Float[Tensor, "videos vectors dim"], Bool[Tensor, "videos vectors"]]:
        """The video's one vector."""
        vector = self.record(video).vector.unsqueeze(1)
        return vector, torch.ones(vector.shape[:2], dtype=torch.bool, device=vector.device)

    def prepare_texts(self, text: TextFeatures) -> Vectors:
        """The sentence's vector."""
        return Vectors(F.normalize(text.sentence, dim=-1))

    def tile(
        self, texts: Vectors, videos: Vectors, run: Run = eager
    ) -> Float[Tensor, "1 texts videos"]:
        """The cosine of every pair."""
        return (texts.vector @ videos.vector.T).unsqueeze(0)

    def pair_bytes(self, texts: Vectors, record: Vectors) -> int:
        """Bytes of one result."""
        return 2 * texts.vector.element_size()
