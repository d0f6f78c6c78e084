"""TC-MGC: four text-conditioned contrasts (Eq. 12-15), reorganised, aggregated and combined."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tcmgc.config import Aggregate, TcMgcHead, kept_count
from tcmgc.heads import native
from tcmgc.heads.base import Head, RawVideos, Sizes, check_video
from tcmgc.heads.parts.aggregate import Bidirectional, Isa, ScoreAggregation, SoftmaxSum
from tcmgc.heads.parts.attention import CollapsedVideos, LanguageVideoAttention
from tcmgc.heads.parts.collapsed import (
    CollapsedTexts,
    Lanes,
    collapse_texts,
    lay_out,
    operands,
    products,
    rest,
    rounded,
)
from tcmgc.heads.parts.compile import Run, eager
from tcmgc.heads.parts.reorganise import Mode, Slots, reorganise, slot_count
from tcmgc.towers.features import Scores, TextFeatures, VideoFeatures, _Batched


@dataclass(frozen=True)
class PlainVideos(_Batched):
    """Record of videos whose frames are not conditioned on the text, all L2-normalised."""

    frames: Float[Tensor, "videos frames dim"]
    mean: Float[Tensor, "videos dim"]
    frame_mask: Bool[Tensor, "videos frames"]

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class _Texts(_Batched):
    """Text vectors of a tile; `columns` are compared, `queries` attend."""

    queries: Float[Tensor, "texts queries dim"]
    columns: Float[Tensor, "texts columns dim"]
    constant: Float[Tensor, "texts columns"]
    bias: Float[Tensor, "texts columns"]
    word_mask: Bool[Tensor, "texts words"]
    seeds: Int[Tensor, "texts"] | None = None

    def __len__(self) -> int:
        return len(self.queries)


class TcMgc(Head):
    """TC-MGC's similarity in every variant of the paper.

    With dropout, a training step follows the equations literally, tile by tile, because each pair
    has its own dropout mask.

    Args:
        options: the variant; see :class:`tcmgc.config.TcMgcHead`.
        sizes: width of the joint space; words of a text (m), which determine the sizes of SR and
            ISA; frames of a video, which determine them if contrasts are not text-conditioned.

    Raises:
        ValueError: heads that do not divide the width, or a keep rate that keeps no word or frame.
    """

    def __init__(self, options: TcMgcHead, sizes: Sizes) -> None:
        super().__init__(sizes, options.grains)
        self.options = options
        self.words, self.frames = sizes.words, sizes.frames
        self.mask_frames, self.mask_words = options.attention.mask_frames, options.mask_words
        self.temperature = options.aggregate.temperature
        modes = options.reorganise
        self.modes: dict[str, Mode] = {
            "video_word": modes.video_word,
            "sentence_frame": modes.sentence_frame,
            "frame_word_words": modes.frame_word_words,
            "frame_word_frames": modes.frame_word_frames,
        }
        pooled = self.words if options.text_conditioned else self.frames
        self.kept_words = _kept(self.words, modes.keep_rate, "word")
        cut = {modes.sentence_frame, modes.frame_word_frames} != {"none"}
        self.kept_frames = _kept(pooled, modes.keep_rate, "frame") if cut else pooled

        self.attention = None
        self.in_native = options.text_conditioned
        if options.text_conditioned:
            self.attention = LanguageVideoAttention(options.attention, sizes.dim)
        self.sentence_product = self.word_product = None
        if options.learnt_products and "video_sentence" in self.grains:
            self.sentence_product = nn.Parameter(torch.eye(sizes.dim))
        if options.learnt_products and "frame_word" in self.grains:
            self.word_product = nn.Parameter(torch.eye(sizes.dim))
        self._build_aggregation(options.aggregate, pooled)

    def _build_aggregation(self, options: Aggregate, pooled: int) -> None:
        """Build ISA, Bi-ISA and LSA, or their alternatives."""
        step: type[Isa] | type[SoftmaxSum] = Isa if options.vectors == "isa" else SoftmaxSum
        temperature = options.temperature

        def along_words(mode: str) -> int:
            return slot_count(self.words, self.modes[mode], self.kept_words)

        def along_frames(mode: str) -> int:
            return slot_count(pooled, self.modes[mode], self.kept_frames)

        self.video_word = self.sentence_frame = self.frame_word = None
        if "video_word" in self.grains:
            self.video_word = step(along_words("video_word"), temperature)
        if "sentence_frame" in self.grains:
            self.sentence_frame = step(along_frames("sentence_frame"), temperature)
        if "frame_word" in self.grains:
            self.frame_word = Bidirectional(
                step,
                along_frames("frame_word_frames"),
                along_words("frame_word_words"),
                temperature,
            )
        self.aggregate = ScoreAggregation(len(self.grains), options.scores, options.lsa_on_logits)

    @property
    def attends(self) -> bool:
        """Whether contrasts are text-conditioned."""
        return self.attention is not None

    @property
    def aggregation_parameters(self) -> int:
        """Learnable parameters of ISA and Bi-ISA, counted as in the paper's Tables 5-8 and Fig. B.1."""
        parts = (self.video_word, self.sentence_frame, self.frame_word)
        return sum(p.numel() for part in parts if part is not None for p in part.parameters())

    def record(self, video: VideoFeatures) -> CollapsedVideos | PlainVideos | RawVideos:
        """Compute what scoring needs of each video (outside training also its record in an index)."""
        check_video(video, self.dim, self.mask_frames)
        mask = video.frame_mask if self.mask_frames else torch.ones_like(video.frame_mask)
        if self.attention is None:
            if video.encoded.shape[1] != self.frames:
                raise ValueError(
                    f"video.encoded has {video.encoded.shape[1]} frames; a head without "
                    f"text-conditioned contrast was built for frames={self.frames}"
                )
            frames = F.normalize(video.encoded, dim=-1)
            weights = mask.to(frames.dtype).unsqueeze(-1)
            mean = (frames * weights).sum(1) / weights.sum(1)
            return PlainVideos(frames, F.normalize(mean, dim=-1), mask)
        if self.attention.drops:
            return RawVideos(video.encoded, mask)
        return self.attention.collapse(video.encoded, mask)

    def alone(
        self, video: VideoFeatures
    ) -> tuple[Float[Tensor, "videos vectors dim"], Bool[Tensor, "videos vectors"]]:
        """The attention block's output for each single frame; without the block, the frames and their mean."""
        mask = video.frame_mask if self.mask_frames else torch.ones_like(video.frame_mask)
        if self.attention is not None:
            return F.normalize(self.attention.alone(video.encoded), dim=-1), mask
        plain = self.record(video)
        assert isinstance(plain, PlainVideos)
        vectors = torch.cat([plain.mean.unsqueeze(1), plain.frames], 1)
        return vectors, F.pad(mask, (1, 0), value=True)

    def frame_weights(
        self, text: TextFeatures, record: CollapsedVideos
    ) -> Float[Tensor, "texts queries heads videos frames"]:
        """Attention weights of the sentence (query 0) and each word over each video's frames (Eq. 5, 9).

        Raises:
            ValueError: the head's contrasts are not text-conditioned.
        """
        if self.attention is None:
            raise ValueError("a head with text_conditioned=False attends to no frames")
        raw = torch.cat([text.sentence.unsqueeze(1), text.words], 1)
        return self.attention.weights(raw, record)

    def score_weights(
        self, scores: Scores, scale: Tensor | float = 1.0
    ) -> Float[Tensor, "grains texts videos"]:
        """The weight of each contrast in each pair's similarity (Eq. 31)."""
        return self.aggregate.weights(torch.stack(list(scores.grains.values())), scale)

    def prepare_texts(self, text: TextFeatures) -> _Texts:
        """Queries and columns of each text: the sentence first, then the words."""
        self._check_words(text)
        missing = self.words - text.words.shape[1]
        words, mask = text.words, text.word_mask
        if self.mask_words and missing > 0:
            words, mask = F.pad(words, (0, 0, 0, missing)), F.pad(mask, (0, missing))
        raw = torch.cat([text.sentence.unsqueeze(1), words], 1)
        columns = F.normalize(raw, dim=-1)
        extra = []
        if self.sentence_product is not None:
            extra.append(columns[:, :1] @ self.sentence_product)
        if self.word_product is not None:
            extra.append(columns[:, 1:] @ self.word_product)
        columns = torch.cat([columns, *extra], 1)
        if self.attention is None or self.attention.drops:
            empty = columns.new_zeros(columns.shape[:2])
            return _Texts(raw, columns, empty, empty, mask, text.seeds)
        side = collapse_texts(self.attention, raw, columns)
        return _Texts(side.queries, side.columns, side.constant, side.bias, mask)

    def as_stored(self) -> bool:
        """Whether the C++ can read collapsed records in place."""
        if self.attention is None or self.attention.drops or torch.is_grad_enabled():
            return False
        return native.available(self.attention.norm_output.weight)

    def prepare_videos(self, record: Any) -> Any:
        """A collapsed record: unchanged for the C++ without gradients, else with videos innermost."""
        if isinstance(record, CollapsedVideos) and not self.as_stored():
            return self._laid_out(record)
        return record

    def _laid_out(self, record: CollapsedVideos) -> Lanes:
        assert self.attention is not None
        return lay_out(record, self.attention.heads)

    def rounded(self, prepared: Any) -> Any:
        """Operands of the two large products in bfloat16."""
        if isinstance(prepared, CollapsedVideos):
            prepared = self._laid_out(prepared)
        return rounded(prepared)

    def tile(
        self, texts: _Texts, videos: Any, run: Run = eager
    ) -> Float[Tensor, "grains texts videos"]:
        """Scores of every contrast for every pair of a tile."""
        frame_mask = None
        if isinstance(videos, PlainVideos):
            seen = torch.cat([videos.mean.unsqueeze(1), videos.frames], 1)
            found = torch.einsum("tcd,vqd->tqcv", texts.columns, seen)
            if self.mask_frames:
                frame_mask = videos.frame_mask.T
        elif isinstance(videos, RawVideos):
            assert self.attention is not None
            seen = self.attention(texts.queries, videos.encoded, videos.frame_mask, texts.seeds)
            found = torch.einsum("tcd,tqvd->tqcv", texts.columns, F.normalize(seen, dim=-1))
        else:
            assert self.attention is not None
            eps = self.attention.eps
            if isinstance(videos, CollapsedVideos):
                given = native.Texts(texts.queries, texts.columns, texts.constant, texts.bias)
                return native.scores(
                    *(given, videos, self._plan(texts), texts.word_mask, self.attention.heads, eps)
                )
            side = CollapsedTexts(texts.queries, texts.columns, texts.constant, texts.bias)
            if videos.keys.dtype == torch.bfloat16 and videos.lanes:
                return native.scores_of_products(
                    *(operands(side, videos), rest(side, videos, eps)),
                    *(self._plan(texts), texts.word_mask),
                )
            found = products(side, videos, eps, run)
        return run(self._contrasts, found, texts.word_mask, frame_mask)

    def _plan(self, texts: _Texts) -> native.Contrasts:
        """The computation of :meth:`_contrasts`, described as data for the C++."""
        words, columns = texts.word_mask.shape[1], texts.columns.shape[1]
        parts: dict[str, nn.Module | None] = {
            "video_word": self.video_word,
            "sentence_frame": self.sentence_frame,
        }
        if self.frame_word is not None:
            parts |= dict(self.frame_word.named_children())
        return native.Contrasts(
            grains=self.grains,
            kept_words=self.kept_words,
            kept_frames=self.kept_frames,
            whole=0 if self.sentence_product is None else 1 + words,
            local=1 if self.word_product is None else columns - words,
            modes=self.modes,
            masked=self.mask_words,
            temperature=self.temperature,
            matrices={name: part.weight for name, part in parts.items() if isinstance(part, Isa)},
        )

    def _contrasts(
        self,
        found: Float[Tensor, "texts queries columns videos"],
        word_mask: Bool[Tensor, "texts words"],
        frame_mask: Bool[Tensor, "frames videos"] | None,
    ) -> Float[Tensor, "grains texts videos"]:
        """Take Eq. 12-15 from the products, then apply SR and ISA."""
        count = word_mask.shape[1]
        end = found.shape[2]
        words = slice(1, 1 + count)
        local = slice(end - count, end) if self.word_product is not None else words
        whole = 1 + count if self.sentence_product is not None else 0
        present = word_mask.unsqueeze(-1) if self.mask_words else None
        if self.attention is not None:
            frame_mask = present
        elif frame_mask is not None:
            frame_mask = frame_mask.unsqueeze(0)
        scores = []
        if "video_sentence" in self.grains:
            scores.append(found[:, 0, whole])
        across = None if present is None else present.unsqueeze(1)
        matrix = Slots(found[:, 1:, local], across)
        mode = self.modes["frame_word_words"]
        if self.video_word is not None:
            vector = Slots(found[:, 0, words], present)
            vector_mode = self.modes["video_word"]
            if self.frame_word is not None and mode == vector_mode and local == words:
                # The sentence's row and the words' rows are reorganised in the same way, so together.
                rows = reorganise(Slots(found[:, :, words], across), mode, self.kept_words, -2)
                matrix, mode = Slots(rows.values[:, 1:], rows.mask), "none"
                row_mask = None if rows.mask is None else rows.mask.squeeze(1)
                vector = Slots(rows.values[:, 0], row_mask)
            else:
                vector = reorganise(vector, vector_mode, self.kept_words, -2)
            scores.append(self.video_word(vector, -2))
        if self.sentence_frame is not None:
            vector = Slots(found[:, 1:, 0], frame_mask)
            vector = reorganise(vector, self.modes["sentence_frame"], self.kept_frames, -2)
            scores.append(self.sentence_frame(vector, -2))
        if self.frame_word is not None:
            matrix = reorganise(matrix, mode, self.kept_words, -2)
            down = Slots(matrix.values, None if frame_mask is None else frame_mask.unsqueeze(2))
            down = reorganise(down, self.modes["frame_word_frames"], self.kept_frames, -3)
            scores.append(self.frame_word(down.values, down.mask, matrix.mask))
        return torch.stack(scores)

    def combine(
        self, scores: Float[Tensor, "grains texts videos"], scale: Tensor | float
    ) -> Float[Tensor, "texts videos"]:
        """LSA or its alternatives (Eq. 31-32)."""
        return self.aggregate(scores, scale)

    def pair_bytes(self, texts: _Texts, record: Any) -> int:
        """Bytes of intermediate results per pair."""
        queries, columns = texts.queries.shape[1], texts.columns.shape[1]
        states = record.frame_mask.shape[1]
        if isinstance(record, CollapsedVideos):
            states = record.outputs.shape[1]
            if native.available(texts.constant) and not torch.is_grad_enabled():
                low = texts.queries.dtype == torch.bfloat16
                return 2 * (queries + columns) * states if low else 4 * (len(self.grains) + 1)
        numbers = 3 * queries * columns + (5 * queries + columns) * states
        if isinstance(record, RawVideos):
            numbers += 14 * queries * self.dim
        return numbers * texts.constant.element_size()

    def _check_words(self, text: TextFeatures) -> None:
        count = text.words.shape[1]
        sized = "none" in self.modes.values() and count > self.words
        if count != self.words and (not self.mask_words or sized):
            raise ValueError(
                f"text.words has {count} positions; the head was built for words={self.words}"
                + ("" if self.mask_words else " (other lengths need mask_words=True)")
            )


def _kept(size: int, keep_rate: float, what: str) -> int:
    if not 0 < keep_rate <= 1:
        raise ValueError(f"keep_rate must be in (0, 1]; got {keep_rate}")
    kept = kept_count(size, keep_rate)
    if kept < 1:
        raise ValueError(
            f"keep_rate {keep_rate} keeps no {what} of {size}; raise it to at least {1 / size:.4f}"
        )
    return kept
