"""TS2-Net: frames weighted by how well each fits the sentence."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tcmgc.config import TokenSelectionHead
from tcmgc.heads.base import Head, Sizes, Vectors, check_video
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.towers.features import TextFeatures, VideoFeatures, _Batched


@dataclass(frozen=True)
class MaskedFrames(_Batched):
    """Record of a video: its L2-normalised frames."""

    frames: Float[Tensor, "videos frames dim"]
    mask: Bool[Tensor, "videos frames"]

    def __len__(self) -> int:
        return len(self.frames)


class TokenSelection(Head):
    """``sum_f softmax_f(4 c_f / ||c||_2) c_f`` with cosines c of the sentence and encoded frames without padding.

    Tokens are selected in the tower (:class:`tcmgc.config.ShiftSelect`); frames attend to them in the
    temporal encoder (:class:`tcmgc.config.PatchTransformer`). The head uses only the frames.

    Args:
        options: sharpness, and which mask is used.
        sizes: width of the joint space; patches of a frame, for the authors' mask.
    """

    def __init__(self, options: TokenSelectionHead, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.sharpness = options.sharpness
        self.each = 1 + sizes.patches if options.as_published else 1

    def record(self, video: VideoFeatures) -> MaskedFrames:
        """Frames and their mask."""
        check_video(video, self.dim)
        mask = video.frame_mask
        # Entry `each` * j of the frame mask repeated end to end, as in the authors' code.
        place = torch.arange(mask.shape[1], device=mask.device) * self.each % mask.shape[1]
        return MaskedFrames(F.normalize(video.encoded, dim=-1), mask[:, place])

    def prepare_texts(self, text: TextFeatures) -> Vectors:
        """The sentence's vector."""
        return Vectors(F.normalize(text.sentence, dim=-1))

    def tile(
        self, texts: Vectors, videos: MaskedFrames, run: Run = eager
    ) -> Float[Tensor, "1 texts videos"]:
        """The similarity of every pair of a tile."""
        cosines = (texts.vector @ videos.frames.flatten(0, 1).T).unflatten(1, videos.mask.shape)
        return run(self._weigh, cosines, videos.mask).unsqueeze(0)

    def _weigh(
        self, cosines: Float[Tensor, "texts videos frames"], mask: Bool[Tensor, "videos frames"]
    ) -> Float[Tensor, "texts videos"]:
        relative = F.normalize(cosines.masked_fill(~mask, 0.0), dim=-1)
        weights = (self.sharpness * relative).masked_fill(~mask, float("-inf")).softmax(-1)
        return (weights * cosines).sum(-1)

    def pair_bytes(self, texts: Vectors, record: MaskedFrames) -> int:
        """Bytes of intermediate results per pair."""
        return 6 * record.mask.shape[1] * texts.vector.element_size()
