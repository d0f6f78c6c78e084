"""UCoFiA: contrasts of the sentence with the video and its frames, and of words with patches."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tcmgc.config import UcofiaHead
from tcmgc.heads.base import Head, Sizes, check_frames, check_video, check_words
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.heads.parts.interactions import attended_products, bidirectional
from tcmgc.heads.parts.pooling import mean_of_frames
from tcmgc.towers.features import TextFeatures, VideoFeatures, _Batched


@dataclass(frozen=True)
class UcofiaVideos(_Batched):
    """Record of a video: the vectors compared with the sentence (video and frames) and with words."""

    video: Float[Tensor, "videos dim"]
    frames: Float[Tensor, "videos frames dim"]
    tokens: Float[Tensor, "videos tokens dim"]
    """Each frame's class token and patches, frame by frame."""

    def __len__(self) -> int:
        return len(self.video)


@dataclass(frozen=True)
class _Texts(_Batched):
    sentence: Float[Tensor, "texts dim"]
    words: Float[Tensor, "texts words dim"]
    sentence_product: Float[Tensor, "texts dim"]

    def __len__(self) -> int:
        return len(self.sentence)


class Ucofia(Head):
    """UCoFiA's similarity: the mean of three contrasts, the third without the logit scale.

    Video-sentence is a product through two learnt dim x dim matrices. Frame-sentence and patch-word are
    aggregated interactively (ISA, Bi-ISA): ``sum(softmax(softmax(x / t) A / t) x)`` with a learnt matrix
    A of the axis. Frames are the tower's, L2-normalised. Patches are not normalised, so their
    contrast is already a logit: it is divided by the logit scale, which the loss multiplies
    similarities by. Padded words and frames take part, as in the authors' code.

    Args:
        options: which version of the authors' code, temperature.
        sizes: width, token positions of a text, frames of a video, patches of a frame.
    """

    in_native = True

    in_native = interacts = True

    def __init__(self, options: UcofiaHead, sizes: Sizes) -> None:
        super().__init__(sizes, ("video_sentence", "frame_sentence", "patch_word"))
        self.temperature = options.temperature
        self.words, self.frames = sizes.words, sizes.frames
        tokens = sizes.frames * (1 + sizes.patches)

        def identity(size: int) -> nn.Parameter:
            return nn.Parameter(torch.eye(size))

        self.sentence_product, self.video_product = identity(sizes.dim), identity(sizes.dim)
        self.word_product = identity(sizes.dim)
        self.token_product = identity(sizes.dim)
        self.leaves_out = options.tree == "eval"
        self.frame_sentence = identity(sizes.frames)
        self.first_words, self.then_words = identity(sizes.words), identity(sizes.words)
        self.first_tokens, self.then_tokens = identity(tokens), identity(tokens)

    @property
    def aggregation_parameters(self) -> int:
        """Learnable parameters of ISA and Bi-ISA."""
        parts = (self.frame_sentence, self.first_words, self.then_words)
        return sum(p.numel() for p in (*parts, self.first_tokens, self.then_tokens))

    def record(self, video: VideoFeatures) -> UcofiaVideos:
        """The video's vector, frames and tokens."""
        check_video(video, self.dim)
        check_frames(video, self.frames)
        if video.patches is None:
            raise ValueError("the head needs patches, and video.patches is None: see config.tokens")
        tokens = torch.cat([video.frames.unsqueeze(2), video.patches], 2).flatten(1, 2)
        whole = mean_of_frames(video.encoded, video.frame_mask)
        return UcofiaVideos(
            whole @ self.video_product,
            F.normalize(video.frames, dim=-1),
            tokens if self.leaves_out else tokens @ self.token_product,
        )

    def prepare_texts(self, text: TextFeatures) -> _Texts:
        """Normalised vectors, multiplied by the learnt matrices if there are any."""
        check_words(text, self.words)
        sentence, words = F.normalize(text.sentence, dim=-1), F.normalize(text.words, dim=-1)
        return _Texts(sentence, words @ self.word_product, sentence @ self.sentence_product)

    def tile(
        self, texts: _Texts, videos: UcofiaVideos, run: Run = eager
    ) -> Float[Tensor, "3 texts videos"]:
        """Scores of every contrast for every pair of a tile."""
        frame_sentence = attended_products(
            *(texts.sentence.unsqueeze(1), videos.frames, self.frame_sentence, self.temperature),
            again=True,
        )
        patch_word = bidirectional(
            *(texts.words, videos.tokens, self.first_words, self.then_tokens),
            *(self.first_tokens, self.then_words, self.temperature),
            again=True,
        )
        whole = texts.sentence_product @ videos.video.to(texts.sentence.dtype).T
        return torch.stack([whole, frame_sentence, patch_word])

    def combine(
        self, scores: Float[Tensor, "grains texts videos"], scale: Tensor | float
    ) -> Float[Tensor, "texts videos"]:
        """The mean; the third contrast, already a logit, is divided by the scale."""
        return (scores[0] + scores[1] + scores[2] / scale) / 3

    def factors(self, scale: Tensor | float) -> list[Tensor | float]:
        """The logit scale, and 1 for the third contrast."""
        return [scale, scale, 1.0]
