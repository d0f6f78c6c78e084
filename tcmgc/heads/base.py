"""Base class of heads, and scoring in tiles, which bounds memory by a setting and not by the data."""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tcmgc.heads import native
from tcmgc.heads.parts.compile import Run, can_compile, compiled, eager, many_shapes
from tcmgc.heads.parts.interactions import in_cache
from tcmgc.heads.parts.memory import same_memory
from tcmgc.towers.features import Scores, TextFeatures, VideoFeatures, _Batched

MEMORY = 256 * 2**20
"""Bytes that intermediate results of scoring may take, unless told otherwise."""

COMPILED_PAIRS = 500_000
"""Number of pairs from which :func:`score_tiled` uses torch.compile by default."""

TEXTS, VIDEOS = 64, 64
"""Most texts and videos in a tile: larger products are not faster."""

TILE = 32 * 2**20
"""Bytes of a tile's intermediate results, which should about fit the last-level cache."""

ROWS = 128
"""Approximate number of texts for which videos are laid out once."""


@dataclass(frozen=True)
class Vectors(_Batched):
    """One vector per text or video."""

    vector: Float[Tensor, "items dim"]

    def __len__(self) -> int:
        return len(self.vector)


@dataclass(frozen=True)
class RawVideos(_Batched):
    """Record if nothing can be precomputed: a pair's dropout or cross encoder needs the frames."""

    encoded: Float[Tensor, "videos frames dim"]
    frame_mask: Bool[Tensor, "videos frames"]

    def __len__(self) -> int:
        return len(self.encoded)


@dataclass(frozen=True)
class Sizes:
    """The sizes that a head is built for."""

    dim: int
    """Width of the joint space."""
    words: int
    """Token positions per text."""
    frames: int
    """Frames per video."""
    patches: int = 0
    """Patch features per frame."""


class Head(nn.Module, ABC):
    """A scoring rule: :meth:`record` once per video, :meth:`score` for any texts against any records.

    A simple head implements :meth:`record` and :meth:`tile`. Heads that prepare texts or lay out
    videos for their tiles, or that do not combine contrasts by their mean, override the other
    methods.

    Args:
        sizes: width of the joint space, words of a text, frames of a video, patches of a frame.
        grains: names of the scores that a pair has.
    """

    dim: int
    patches: int
    """Patch features that records are made from."""
    like: Tensor
    """A tensor of the head's device and precision."""
    grains: tuple[str, ...]
    from_records: bool = True
    """Scoring a pair is cheap once its video's record exists, so an index is possible."""
    interacts: bool = False
    """Tiles are computed by :mod:`tcmgc.heads.parts.interactions`, which reads records in place."""
    in_native: bool = False
    """:mod:`tcmgc.heads.native`, if available, computes scores without gradients."""
    memory: int = MEMORY // 4
    """Approximate bytes that a training step may hold between its forward and backward passes."""

    def __init__(self, sizes: Sizes, grains: Sequence[str] = ("similarity",)) -> None:
        super().__init__()
        self.dim, self.patches, self.grains = sizes.dim, sizes.patches, tuple(grains)
        self.register_buffer("like", torch.empty(0), persistent=False)

    @abstractmethod
    def record(self, video: VideoFeatures) -> Any:
        """Compute what scoring needs of each video; videos are the first axis of all its tensors."""

    def alone(
        self, video: VideoFeatures
    ) -> tuple[Float[Tensor, "videos vectors dim"], Bool[Tensor, "videos vectors"]]:
        """Unit vectors of each video, one of which is near a sentence that fits one frame; and their mask.

        Search uses them to find candidates (:mod:`tcmgc.search.candidates`).
        """
        return F.normalize(video.encoded, dim=-1), video.frame_mask

    @abstractmethod
    def tile(
        self, texts: Any, videos: Any, run: Run = eager
    ) -> Float[Tensor, "grains texts videos"]:
        """Scores of every contrast for every pair; `run` executes the parts worth compiling."""

    def prepare_texts(self, text: TextFeatures) -> Any:
        """What a tile needs of each text; by default its features."""
        return text

    def prepare_videos(self, record: Any) -> Any:
        """Some videos' record, laid out for a tile; by default unchanged."""
        return record

    def combine(
        self, scores: Float[Tensor, "grains texts videos"], scale: Tensor | float
    ) -> Float[Tensor, "texts videos"]:
        """One similarity of a pair from its scores; by default their mean."""
        return scores.mean(0)

    def factors(self, scale: Tensor | float) -> list[Tensor | float]:
        """For each contrast, the factor from score to logit; by default the logit scale."""
        return [scale] * len(self.grains)

    def as_stored(self) -> bool:
        """Whether tiles read records in place, in float32 or float16, and keep nothing per video."""
        return self.interacts and in_cache(self.like)

    def rounded(self, prepared: Any) -> Any:
        """Prepared texts or videos with the operands of large matrix products in bfloat16."""
        raise ValueError(f"{type(self).__name__} has no bfloat16 form; leave bf16 out")

    def pair_bytes(self, texts: Any, record: Any) -> int:
        """Bytes of intermediate results per pair: six numbers per word and frame, or only its scores."""
        if self.as_stored():
            return 4 * (len(self.grains) + 1)
        return 6 * _rows(texts) * _rows(record) * 4

    @property
    def attends(self) -> bool:
        """Whether texts attend to frames, by a block called ``attention`` (for Figures 11 and 14)."""
        return False

    @property
    def aggregation_parameters(self) -> int | None:
        """Learnable parameters of ISA and Bi-ISA (Tables 5 to 8, Fig. B.1); None for heads without them."""
        return None

    def score(self, text: TextFeatures, record: Any, scale: Tensor | float = 1.0) -> Scores:
        """Similarities of all texts with all videos. Differentiable.

        Texts are processed in groups. The backward pass recomputes intermediate results, so they
        never exist for the whole batch at once.

        Args:
            text: features of the texts.
            record: result of :meth:`record` for the videos, of one batch or of many together.
            scale: the logit scale; it changes similarities only if scores are weighted on logits.

        Raises:
            ValueError: features whose shape does not fit, or that are not finite.
        """
        check_text(text, self.dim)
        texts, videos = self.prepare_texts(text), self.prepare_videos(record)
        step = max(1, self.memory // (self.pair_bytes(texts, record) * max(1, len(record))))
        parts = [texts[start : start + step] for start in range(0, len(text), step)]
        if torch.is_grad_enabled():
            scores = [
                checkpoint(self.tile, part, videos, use_reentrant=False, preserve_rng_state=False)
                for part in parts
            ]
        else:
            scores = [self.tile(part, videos) for part in parts]
        return self._scores(torch.cat(scores, 1), scale)

    def _scores(self, scores: Tensor, scale: Tensor | float) -> Scores:
        return Scores(
            self.combine(scores, scale), dict(zip(self.grains, scores.unbind(0), strict=True))
        )


@torch.no_grad()
def score_tiled(
    head: Head,
    text: TextFeatures,
    record: Any,
    scale: Tensor | float = 1.0,
    *,
    memory: int = MEMORY,
    grains: bool = True,
    compile: bool | None = None,
    bf16: bool = False,
    videos: int = VIDEOS,
) -> Scores:
    """Similarities for evaluation and search, without gradients, a tile of pairs at a time.

    Args:
        head: the scoring rule.
        text: features of the texts.
        record: records of the videos.
        scale: the logit scale.
        memory: bytes that intermediate results may take, in addition to the result itself and the
            vectors of a tile's texts and videos.
        grains: keep the scores of each contrast as well as the similarity.
        compile: run compiled code: C++ if :mod:`tcmgc.heads.native` has it, else torch.compile.
            None always uses the C++, but torch.compile only from :data:`COMPILED_PAIRS` pairs on,
            enough to amortise compilation (about a minute the first time, cached on disk by torch).
        bf16: round the operands of the large matrix products to bfloat16; everything after them
            is unchanged. Faster on hardware that multiplies bfloat16 (AVX512-BF16, AMX, GPUs).
        videos: most videos in a tile; larger tiles are faster for few texts. Similarities are the
            same except for the rounding of matrix products whose shapes differ.

    Raises:
        ValueError: features whose shape does not fit, or that are not finite.
    """
    check_text(text, head.dim)
    like = text.sentence
    pairs = len(text) * len(record)
    similarity = like.new_empty(len(text), len(record))
    kept = like.new_empty(len(head.grains) if grains else 0, len(text), len(record))
    without = native.off() if compile is False else nullcontext()
    with many_shapes(), same_memory(), without:
        if compile is None:
            compile = pairs >= COMPILED_PAIRS
        if head.in_native and native.available(like):
            compile = False
        run = compiled if pairs and compile and can_compile(str(like.device)) else eager
        tiles = Tiles(head, text, memory, run is compiled, bf16, videos)
        for group in tiles.groups(record) if pairs else ():
            for rows, columns, texts, taken in tiles.of(group, record):
                scores = head.tile(texts, taken, run)
                scores = scores[:, : rows.stop - rows.start, : columns.stop - columns.start]
                similarity[rows, columns] = head.combine(scores, scale)
                if grains:
                    kept[:, rows, columns] = scores
    names = head.grains if grains else ()
    return Scores(similarity, dict(zip(names, kept.unbind(0), strict=True)))


Group = list[tuple[slice, Any]]
"""Prepared texts of some tiles, with their row ranges."""


@dataclass(frozen=True)
class Tiles:
    """How a head's pairs are divided into tiles.

    Several rows of tiles are processed together, so that their videos are laid out only once.
    """

    head: Head
    text: TextFeatures
    memory: int = MEMORY
    even: bool = False
    """Pad the last tiles, so that all have the same shape."""
    bf16: bool = False
    most: int = VIDEOS
    """Most videos in a tile, if they are laid out for it."""

    @property
    def lying(self) -> bool:
        """Whether videos are read in place, any number of them together."""
        return self.head.as_stored() and not self.bf16

    def _sizes(self, record: Any) -> tuple[int, int]:
        """Texts and videos of a tile."""
        room = self.memory if self.lying else min(self.memory, TILE)
        pairs = max(1, room // self.head.pair_bytes(self._first, record))
        wide = min(len(record), pairs, len(record) if self.lying else self.most)
        # A power of two, so that shares of texts that begin at a multiple of it have the same tiles.
        tall = min(len(self.text), TEXTS, 1 << (max(1, pairs // wide).bit_length() - 1))
        return tall, wide

    def groups(self, record: Any) -> Iterator[Group]:
        """Prepared texts, in groups for which videos are laid out once."""
        tall, _ = self._sizes(record)
        step = tall * max(1, ROWS // tall)
        for top in range(0, len(self.text), step):
            group = []
            for start in range(top, min(top + step, len(self.text)), tall):
                rows = slice(start, min(start + tall, len(self.text)))
                part = _filled(self.text, rows, tall) if self.even else self.text[rows]
                group.append((rows, self._ready(self.head.prepare_texts(part))))
            yield group

    def of(self, group: Group, record: Any) -> Iterator[tuple[slice, slice, Any, Any]]:
        """The group's tiles: rows, columns, prepared texts and videos."""
        _, wide = self._sizes(record)
        for left in range(0, len(record), wide):
            columns = slice(left, min(left + wide, len(record)))
            taken = _filled(record, columns, wide) if self.even else record[columns]
            if not self.lying:
                taken = _widened(taken, self.text.sentence.dtype)
            videos = self._ready(self.head.prepare_videos(taken))
            for rows, texts in group:
                yield rows, columns, texts, videos

    @functools.cached_property
    def _first(self) -> Any:
        return self._ready(self.head.prepare_texts(self.text[:1]))

    def _ready(self, prepared: Any) -> Any:
        return self.head.rounded(prepared) if self.bf16 else prepared


def _widened(items: Any, dtype: torch.dtype) -> Any:
    """Items with floating-point tensors of other precisions converted to this one."""
    return items.map(lambda x: x.to(dtype) if x.is_floating_point() else x)


def _filled(items: Any, part: slice, size: int) -> Any:
    """A part of some items, padded to a size by repeating its last one."""
    taken = items[part]
    missing = size - len(taken)
    return type(taken).cat([taken, *[taken[-1:]] * missing]) if missing else taken


def _rows(items: _Batched) -> int:
    """Vectors per item, in the tensor that has most."""
    shapes = [t.shape[1:-1] for t in items.tensors.values() if t.is_floating_point() and t.ndim > 1]
    return max((math.prod(shape) for shape in shapes), default=1)


def check_text(text: TextFeatures, dim: int) -> None:
    """Raise a ValueError for text features that do not fit or are not finite."""
    for name, features in (("sentence", text.sentence), ("words", text.words)):
        if features.shape[-1] != dim:
            raise ValueError(
                f"text.{name} has width {features.shape[-1]}, the head {dim}: "
                "were both made by the same model?"
            )
        _require_finite(features, f"text.{name}")
    if text.words.shape[:2] != text.word_mask.shape:
        raise ValueError(
            f"text.word_mask has shape {tuple(text.word_mask.shape)}; text.words "
            f"{tuple(text.words.shape)} needs {tuple(text.words.shape[:2])}"
        )
    if len(text.sentence) != len(text.words):
        raise ValueError(
            f"text.sentence holds {len(text.sentence)} texts, text.words {len(text.words)}"
        )


def check_video(video: VideoFeatures, dim: int, masked: bool = True) -> None:
    """Raise a ValueError for video features that do not fit, are not finite or have no frame."""
    for name, features in (("frames", video.frames), ("encoded", video.encoded)):
        if features.shape[-1] != dim:
            raise ValueError(
                f"video.{name} has width {features.shape[-1]}, the head {dim}: "
                "were both made by the same model?"
            )
        if features.shape[:2] != video.frame_mask.shape:
            raise ValueError(
                f"video.frame_mask has shape {tuple(video.frame_mask.shape)}; video.{name} "
                f"{tuple(features.shape)} needs {tuple(features.shape[:2])}"
            )
        _require_finite(features, f"video.{name}")
    if video.patches is not None:
        if video.patches.shape[:2] != video.frame_mask.shape:
            raise ValueError(
                f"video.patches has shape {tuple(video.patches.shape)}; video.frame_mask "
                f"{tuple(video.frame_mask.shape)} needs patches of the same videos and frames"
            )
        _require_finite(video.patches, "video.patches")
    if masked:
        empty = (~video.frame_mask.any(1)).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                f"video.frame_mask hides all frames of video {empty[0]} (of {len(video)}; "
                f"{len(empty)} such): a video needs at least one frame"
            )


def check_words(text: TextFeatures, words: int) -> None:
    """Raise a ValueError if the texts' length is not that of a head's matrices."""
    if text.words.shape[1] != words:
        raise ValueError(
            f"text.words has {text.words.shape[1]} positions; the head was built for words={words}"
        )


def check_frames(video: VideoFeatures, frames: int) -> None:
    """Raise a ValueError if the videos' length is not that of a head's matrices."""
    if video.frames.shape[1] != frames:
        raise ValueError(
            f"video.frames has {video.frames.shape[1]} frames; the head was built for frames={frames}"
        )


def _require_finite(features: Tensor, name: str) -> None:
    # A finite sum implies finite summands, and is many times cheaper than checking each.
    suspect = ~torch.isfinite(features.detach().flatten(1).sum(1))
    bad = suspect.clone()
    bad[suspect] = ~torch.isfinite(features[suspect]).flatten(1).all(1)
    if bad.any():
        raise ValueError(
            f"{name} is not finite for {int(bad.sum())} of {len(features)} items, the first at "
            f"index {int(bad.nonzero()[0])}"
        )
