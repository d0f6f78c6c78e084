"""X-CLIP: four contrasts with attention over the similarity matrix."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tcmgc.config import GRAINS, XClipHead
from tcmgc.heads.base import Head, Sizes, check_frames, check_video, check_words
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.heads.parts.pooling import mean_of_frames
from tcmgc.towers.features import TextFeatures, VideoFeatures, _Batched


@dataclass(frozen=True)
class XClipVideos(_Batched):
    """Record of a video: its vector and its frames, L2-normalised."""

    video: Float[Tensor, "videos dim"]
    frames: Float[Tensor, "videos frames dim"]

    def __len__(self) -> int:
        return len(self.video)


@dataclass(frozen=True)
class _Texts(_Batched):
    sentence: Float[Tensor, "texts dim"]
    words: Float[Tensor, "texts words dim"]
    sentence_product: Float[Tensor, "texts dim"]
    word_product: Float[Tensor, "texts words dim"]


class _Attention(nn.Module):
    """Attention over one axis of similarities: ``sum((softmax(s / τ) W) s)``."""

    def __init__(self, size: int, temperature: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(size))
        self.temperature = temperature

    def forward(self, values: Tensor, dim: int) -> Tensor:
        """Aggregate `dim` (-2 or -3) away; videos are last."""
        weights = (values / self.temperature).softmax(dim)
        if dim == -2:
            mixed = self.weight.T @ weights
        else:
            mixed = torch.einsum("ji,tjwv->tiwv", self.weight, weights)
        return (mixed * values).sum(dim)


class XClip(Head):
    """X-CLIP's similarity: the mean of video-sentence, video-word, sentence-frame and frame-word.

    The video vector is the masked mean of normalised encoded frames; frame contrasts use CLIP's own
    frames, before the temporal encoder, padded ones too, as the authors do. Learnt dim x dim
    matrices stand in the video-sentence and frame-word products, learnt square ones in each
    attention over similarities; all start as identities.

    Args:
        options: the temperature of the attention over similarities.
        sizes: width, token positions of a text and frames of a video.
    """

    def __init__(self, options: XClipHead, sizes: Sizes) -> None:
        super().__init__(sizes, GRAINS)
        dim, words, frames, temperature = (
            sizes.dim,
            sizes.words,
            sizes.frames,
            options.temperature,
        )
        self.words, self.frames = words, frames
        self.sentence_product = nn.Parameter(torch.eye(dim))
        self.word_product = nn.Parameter(torch.eye(dim))
        self.video_word = _Attention(words, temperature)
        self.sentence_frame = _Attention(frames, temperature)
        self.first_frames = _Attention(frames, temperature)
        self.then_words = _Attention(words, temperature)
        self.first_words = _Attention(words, temperature)
        self.then_frames = _Attention(frames, temperature)

    def record(self, video: VideoFeatures) -> XClipVideos:
        """The video's vector and its frames."""
        check_video(video, self.dim)
        check_frames(video, self.frames)
        whole = mean_of_frames(video.encoded, video.frame_mask)
        return XClipVideos(whole, F.normalize(video.frames, dim=-1))

    def prepare_texts(self, text: TextFeatures) -> _Texts:
        """Normalised vectors, as they are and through the learnt products."""
        check_words(text, self.words)
        sentence, words = F.normalize(text.sentence, dim=-1), F.normalize(text.words, dim=-1)
        return _Texts(sentence, words, sentence @ self.sentence_product, words @ self.word_product)

    def tile(
        self, texts: _Texts, videos: XClipVideos, run: Run = eager
    ) -> Float[Tensor, "4 texts videos"]:
        """Scores of every contrast for every pair of a tile."""
        # Frames x videos, videos innermost, as the columns of one matrix.
        frames = videos.frames.transpose(0, 1).flatten(0, 1).T
        shape = (self.frames, len(videos))
        video_word = (texts.words.flatten(0, 1) @ videos.video.T).unflatten(0, (-1, self.words))
        sentence_frame = (texts.sentence @ frames).unflatten(1, shape)
        frame_word = texts.word_product.flatten(0, 1) @ frames
        matrix = frame_word.unflatten(0, (-1, self.words)).unflatten(2, shape).transpose(1, 2)
        frames_then_words = self.then_words(self.first_frames(matrix, -3), -2)
        words_then_frames = self.then_frames(self.first_words(matrix, -2), -2)
        return torch.stack(
            [
                texts.sentence_product @ videos.video.T,
                self.video_word(video_word, -2),
                self.sentence_frame(sentence_frame, -2),
                (frames_then_words + words_then_frames) / 2,
            ]
        )

    def pair_bytes(self, texts: _Texts, record: XClipVideos) -> int:
        """Bytes of intermediate results a pair."""
        return (6 * self.words * self.frames + 8 * self.words) * texts.words.element_size()
