"""A model's behaviour on single pairs: the numbers behind the paper's Figures 9 to 14."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tcmgc.heads import Head, score_tiled
from tcmgc.heads.parts.aggregate import ScoreAggregation
from tcmgc.retrieval.metrics import text_to_video
from tcmgc.towers.features import TextFeatures, VideoFeatures

_TEXTS = 64
"""Texts scored together against their own videos."""


@dataclass(frozen=True)
class PairAttention:
    """One text's weights of the frames of one video (Eq. 5 and 9), averaged over attention heads.

    Weights over all frames, padded ones included, sum to 1. A part that does not attend in the
    model's contrasts is None.
    """

    sentence: Float[np.ndarray, "frames"] | None
    words: Float[np.ndarray, "words frames"] | None


@dataclass(frozen=True)
class Ranking:
    """The rank of every text's video, and the videos in ranked order."""

    ranks: Int[np.ndarray, "texts"]
    """From 1, as :func:`tcmgc.retrieval.metrics.text_to_video`: ties are won."""
    order: Int[np.ndarray, "texts shown"]
    """The best columns of each row, best first; a text's own video precedes its ties."""


@torch.no_grad()
def pair_attention(head: Head, text: TextFeatures, video: VideoFeatures) -> list[PairAttention]:
    """Attention weights of each text over the frames of the video at the same position.

    Args:
        head: one that ``attends``, in evaluation mode.
        text: as many texts as videos.
        video: their videos.
    """
    record: Any = head.record(video)
    block: Any = head.attention
    sentences = {"video_sentence", "video_word"} & set(head.grains)
    words = {"sentence_frame", "frame_word"} & set(head.grains)

    def weigh(queries: Tensor, at: slice) -> np.ndarray:
        found = block.weights(queries, record[at])
        return found[0, :, :, 0].mean(1).cpu().numpy()

    pairs = []
    for index in range(len(text)):
        at = slice(index, index + 1)
        pairs.append(
            PairAttention(
                weigh(text.sentence[at].unsqueeze(1), at)[0] if sentences else None,
                weigh(text.words[at], at) if words else None,
            )
        )
    return pairs


def rank(
    similarity: Float[np.ndarray, "texts videos"], owner: Int[np.ndarray, "texts"], shown: int
) -> Ranking:
    """Rank videos for every text.

    Args:
        similarity: scores.
        owner: the column of each text's video.
        shown: how many of the best videos to return.
    """
    own = np.arange(similarity.shape[1]) == owner[:, None]
    order = np.lexsort((~own, -similarity), axis=1)[:, :shown]
    return Ranking(text_to_video(similarity, owner).optimistic, order)


def characters_read(
    caption: str, spelled: Sequence[tuple[str, Sequence[int]]], positions: int
) -> int | None:
    """How many characters of a caption the model reads; None if it reads all of them.

    Args:
        caption: the original caption.
        spelled: its words as the model sees them, with their token positions.
        positions: token positions of a caption, start and end included.
    """
    if sum(len(places) for _, places in spelled) < positions - 2:
        return None
    at, small = 0, caption.lower()
    for word, _ in spelled:
        found = small.find(word.lower(), at) if word else at
        if found < 0:  # the tokenizer changed the text: an entity, a letter of another form
            continue
        at = found + len(word)
    return at if caption[at:].strip() else None


def choose(which: np.ndarray, count: int, seed: int) -> list[int]:
    """At most ``count`` positions where ``which`` is True, drawn at random, in ascending order."""
    places = np.flatnonzero(which)
    drawn = np.random.default_rng(seed).permutation(places)[:count]
    return sorted(drawn.tolist())


@torch.no_grad()
def matching_scores(
    head: Head,
    text: TextFeatures,
    video: VideoFeatures,
    owner: Int[np.ndarray, "texts"],
    scale: Tensor | float = 1.0,
) -> Float[Tensor, "grains texts"]:
    """The score of every contrast for every text with its own video (Fig. 12)."""
    record = head.record(video)
    columns = []
    for start in range(0, len(text), _TEXTS):
        videos, place = np.unique(owner[start : start + _TEXTS], return_inverse=True)
        scores = score_tiled(
            head,
            text[start : start + _TEXTS],
            record[torch.from_numpy(videos)],
            scale,
            compile=False,
        )
        rows = torch.arange(len(place))
        found = [scores.grains[name][rows, torch.from_numpy(place)] for name in head.grains]
        columns.append(torch.stack(found))
    return torch.cat(columns, 1)


def shares(scores: Float[np.ndarray, "grains pairs"]) -> Float[np.ndarray, "grains pairs"]:
    """Each contrast's share of a pair's similarity under averaging: ``|s| / sum |s|``."""
    size = np.abs(scores)
    return size / size.sum(0)


@torch.no_grad()
def grain_weights(
    aggregate: ScoreAggregation, scores: Float[Tensor, "grains pairs"], scale: Tensor | float
) -> dict[str, Float[np.ndarray, "grains pairs"]]:
    """Each contrast's weight for each pair (Fig. 13): by a softmax alone, and as learnt.

    Args:
        aggregate: the head's, of kind ``lsa`` or ``softmax``; the latter gives one entry.
        scores: of matching pairs.
        scale: the logit scale.
    """
    plain = ScoreAggregation(len(scores), "softmax", aggregate.on_logits)
    found = {"softmax": plain.weights(scores, scale).cpu().numpy()}
    if aggregate.kind == "lsa":
        found["linear softmax"] = aggregate.weights(scores, scale).cpu().numpy()
    return found


def embed(features: Sequence[Float[Tensor, "_ dim"]], seed: int) -> list[np.ndarray]:
    """t-SNE of several groups of features together, by cosine: a position in the plane for each point.

    Args:
        features: one tensor per group; at least three points over all.
        seed: seed of the layout.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    together = torch.cat(list(features)).double().cpu().numpy()
    tsne = TSNE(
        perplexity=min(30.0, (len(together) - 1) / 3),
        metric="cosine",
        init="random",
        random_state=seed,
    )
    # For some hundred points, threads spend more time waiting for each other than working.
    with threadpool_limits(1):
        places = tsne.fit_transform(together)
    ends = np.cumsum([len(group) for group in features])
    return np.split(places, ends[:-1])
