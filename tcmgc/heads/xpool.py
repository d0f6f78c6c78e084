"""X-Pool: a video pooled by one text's attention, compared with that text."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tcmgc.config import Attention, XPoolHead
from tcmgc.heads.base import Head, RawVideos, Sizes, check_video
from tcmgc.heads.parts.attention import CollapsedVideos, LanguageVideoAttention
from tcmgc.heads.parts.collapsed import CollapsedTexts, collapse_texts, lay_out, products, rounded
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.towers.features import TextFeatures, VideoFeatures


class XPool(Head):
    """X-Pool's similarity: the cosine of a sentence and the video pooled by it.

    The attention block is TC-MGC's with one query per text, so it collapses in the same way.

    With dropout, a training step follows the equations literally, tile by tile.

    Args:
        options: attention heads, and dropout on the fully connected branch.
        sizes: the width of the joint space matters.

    Raises:
        ValueError: heads that do not divide the width.
    """

    in_native = True

    def __init__(self, options: XPoolHead, sizes: Sizes) -> None:
        super().__init__(sizes, ("video_sentence",))
        self.attention = LanguageVideoAttention(
            Attention(heads=options.heads, dropout=options.dropout), sizes.dim
        )

    @property
    def attends(self) -> bool:
        """True: sentences attend to frames."""
        return True

    def record(self, video: VideoFeatures) -> CollapsedVideos | RawVideos:
        """The video's side of the block, or the features if dropout is active."""
        check_video(video, self.dim)
        if self.attention.drops:
            return RawVideos(video.encoded, video.frame_mask)
        return self.attention.collapse(video.encoded, video.frame_mask)

    def alone(
        self, video: VideoFeatures
    ) -> tuple[Float[Tensor, "videos vectors dim"], Bool[Tensor, "videos vectors"]]:
        """The block's output for each single frame."""
        return F.normalize(self.attention.alone(video.encoded), dim=-1), video.frame_mask

    def prepare_texts(self, text: TextFeatures) -> CollapsedTexts:
        """The sentence as query and as column."""
        sentence = text.sentence.unsqueeze(1)
        columns = F.normalize(sentence, dim=-1)
        if self.attention.drops:
            nothing = columns[..., 0]
            return CollapsedTexts(sentence, columns, nothing, nothing, text.seeds)
        return collapse_texts(self.attention, sentence, columns)

    def prepare_videos(self, record: Any) -> Any:
        """The record; with videos innermost if it is a collapsed one."""
        return (
            lay_out(record, self.attention.heads) if isinstance(record, CollapsedVideos) else record
        )

    def rounded(self, prepared: Any) -> Any:
        """Operands of the two large products in bfloat16."""
        return rounded(prepared)

    def tile(
        self, texts: CollapsedTexts, videos: Any, run: Run = eager
    ) -> Float[Tensor, "1 texts videos"]:
        """The similarity of every pair of a tile."""
        if isinstance(videos, RawVideos):
            pooled = self.attention(texts.queries, videos.encoded, videos.frame_mask, texts.seeds)
            found = torch.einsum(
                "td,tvd->tv", texts.columns[:, 0], F.normalize(pooled[:, 0], dim=-1)
            )
        else:
            found = products(texts, videos, self.attention.eps, run)[:, 0, 0]
        return found.unsqueeze(0)

    def pair_bytes(self, texts: CollapsedTexts, record: Any) -> int:
        """Bytes of intermediate results per pair."""
        numbers = 14 * self.dim if isinstance(record, RawVideos) else 8 * record.outputs.shape[1]
        return numbers * texts.constant.element_size()
