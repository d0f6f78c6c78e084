"""X-CLIP: four contrasts with attention over the similarity matrix."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tcmgc.config import GRAINS, XClipHead
from tcmgc.heads.base import Head, Sizes, check_frames, check_video, check_words
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.heads.parts.interactions import attended_products, bidirectional
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


class XClip(Head):
    """X-CLIP's similarity: the mean of video-sentence, video-word, sentence-frame and frame-word.

    The video vector is the masked mean of normalised encoded frames; frame contrasts use CLIP's own
    frames, before the temporal encoder, including padded ones, as in the authors' code. The
    video-sentence and frame-word products use learnt dim x dim matrices, and each attention over
    similarities uses learnt square ones; all are initialised as identities.

    Args:
        options: the temperature of the attention over similarities.
        sizes: width, token positions of a text and frames of a video.
    """

    in_native = interacts = True

    def __init__(self, options: XClipHead, sizes: Sizes) -> None:
        super().__init__(sizes, GRAINS)
        self.temperature = options.temperature
        self.words, self.frames = sizes.words, sizes.frames

        def identity(size: int) -> nn.Parameter:
            return nn.Parameter(torch.eye(size))

        self.sentence_product, self.word_product = identity(sizes.dim), identity(sizes.dim)
        self.video_word, self.sentence_frame = identity(sizes.words), identity(sizes.frames)
        self.first_words, self.then_words = identity(sizes.words), identity(sizes.words)
        self.first_frames, self.then_frames = identity(sizes.frames), identity(sizes.frames)

    def record(self, video: VideoFeatures) -> XClipVideos:
        """The video's vector and its frames."""
        check_video(video, self.dim)
        check_frames(video, self.frames)
        whole = mean_of_frames(video.encoded, video.frame_mask)
        return XClipVideos(whole, F.normalize(video.frames, dim=-1))

    def prepare_texts(self, text: TextFeatures) -> _Texts:
        """Normalised vectors, both unchanged and multiplied by the learnt matrices."""
        check_words(text, self.words)
        sentence, words = F.normalize(text.sentence, dim=-1), F.normalize(text.words, dim=-1)
        return _Texts(sentence, words, sentence @ self.sentence_product, words @ self.word_product)

    def tile(
        self, texts: _Texts, videos: XClipVideos, run: Run = eager
    ) -> Float[Tensor, "4 texts videos"]:
        """Scores of every contrast for every pair of a tile."""
        video, t = videos.video.to(texts.words.dtype), self.temperature
        video_word = attended_products(texts.words, video.unsqueeze(1), self.video_word, t)
        sentence_frame = attended_products(
            texts.sentence.unsqueeze(1), videos.frames, self.sentence_frame, t
        )
        frame_word = bidirectional(
            *(texts.word_product, videos.frames, self.first_words, self.then_frames),
            *(self.first_frames, self.then_words, t),
        )
        video_sentence = texts.sentence_product @ video.T
        return torch.stack([video_sentence, video_word, sentence_frame, frame_word])
