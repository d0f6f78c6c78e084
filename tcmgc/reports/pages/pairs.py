"""Sections with frames: retrieved videos, and attention over frames (Figures 9, 11 and 14)."""

import numpy as np
import torch
from jaxtyping import Float, UInt8

from tcmgc.datasets import Clip
from tcmgc.frames.reader import FrameReader
from tcmgc.reports.pages import cards
from tcmgc.reports.pages.page import Section, card
from tcmgc.reports.pages.subject import Subject
from tcmgc.retrieval import qualitative

_TOP = 3


def retrieval(subject: Subject, reader: FrameReader, pairs: int, seed: int) -> list[Section]:
    """Queries that rank their video first (Fig. 9), and queries that do not (Fig. 14).

    Args:
        subject: model and features.
        reader: reads the clips' frames.
        pairs: number of queries of either kind.
        seed: decides the choice.
    """
    scores = subject.score()
    ranking = qualitative.rank(scores, subject.owner, _TOP + 1)
    ranks, order, owner = ranking.ranks.tolist(), ranking.order.tolist(), subject.owner.tolist()
    hit = ranking.ranks == 1
    count = len(hit)

    def result(query: int, video: int, place: int) -> cards.Result:
        clip = subject.clips[video]
        own = ranks[query]
        return cards.Result(
            clip.id,
            place,
            float(scores[query, video]),
            "hit" if video == owner[query] else "miss" if place <= own else "other",
            clip.captions[0] if clip.captions else "",
            _frames(reader, clip),
        )

    def read(query: int) -> int | None:
        text = subject.captions[query]
        return qualitative.characters_read(text, subject.spell(text), subject.words)

    hits, failures = [], []
    for query in qualitative.choose(hit, pairs, seed):
        top = enumerate(order[query][:_TOP], 1)
        shown = [result(query, video, place) for place, video in top]
        hits.append(card(cards.retrieval(subject.captions[query], "", shown, read(query))))
    for query in qualitative.choose(~hit, pairs, seed):
        own = owner[query]
        wrong = [pair for pair in enumerate(order[query], 1) if pair[1] != own][:_TOP]
        shown = [result(query, own, ranks[query])]
        shown += [result(query, video, place) for place, video in wrong]
        note = f"its video ranks {ranks[query]} of {len(subject.clips)}"
        drawn = cards.retrieval(subject.captions[query], note, shown, read(query))
        failures.append(card(drawn))
    found = int(hit.sum())
    return [
        Section(
            "Retrieved first",
            f"{found} of {count} captions ({found / count:.1%}) find their own video first among "
            f"{len(subject.clips)}. {_drawn(len(hits), seed)} Each with the first {_TOP} videos, "
            "four frames, the similarity and a caption of each. What ranks below a caption's own "
            "video is not wrong."
            if hits
            else f"None of {count} captions finds its own video first, so there is nothing to show.",
            "".join(hits),
        ),
        Section(
            "Failures",
            f"{count - found} of {count} captions ({1 - found / count:.1%}) find another video "
            f"first. {_drawn(len(failures), seed)} Each with its own video and the best of the others."
            if failures
            else f"All of {count} captions find their own video first, so there is nothing to show.",
            "".join(failures),
        ),
    ]


def attention(subject: Subject, reader: FrameReader, pairs: int, seed: int) -> Section:
    """Attention of the sentence and each word over the caption's own video (Fig. 11)."""
    title = "Attention over frames"
    if not subject.head.attends:
        return Section(
            title,
            f"Left out: the head {type(subject.head).__name__} of this checkpoint compares texts with "
            "frames that no text has weighed; it has no language-video attention.",
        )
    chosen = qualitative.choose(np.ones(len(subject.captions), bool), pairs, seed)
    owners = subject.owner[chosen].tolist()
    found = qualitative.pair_attention(
        subject.head,
        subject.text[torch.tensor(chosen)],
        subject.video[torch.tensor(owners)],
    )
    shown = []
    for query, owner, weights in zip(chosen, owners, found, strict=True):
        clip, text = subject.clips[owner], subject.captions[query]
        frames = _frames(reader, clip)
        vectors = [v for v in (weights.sentence, weights.words) if v is not None]
        padding = any(bool(vector[..., len(frames) :].any()) for vector in vectors)
        words = []
        spelled = subject.spell(text)
        if weights.words is not None:
            words = [
                (word, _fold(weights.words[at].mean(0), len(frames), padding))
                for word, at in spelled
            ]
        sentence = (
            None if weights.sentence is None else _fold(weights.sentence, len(frames), padding)
        )
        seconds = reader.timestamps(clip)
        drawn = cards.Weights(
            text,
            clip.id,
            frames,
            seconds,
            sentence,
            words,
            padding,
            read=qualitative.characters_read(text, spelled, subject.words),
            padded=vectors[0].shape[-1] - len(frames) if vectors else 0,
        )
        shown.append(card(cards.attention(drawn)))
    return Section(
        title,
        f"How the sentence (bars) and each word (shades) weigh the frames of their own video. "
        f"{_drawn(len(shown), seed)} Uniform attention gives each of n frames 1/n: the dashed line at the bars, "
        f"no shade at the words; both are full at {cards.FULL:g} times that. A row's weights sum to 100%; with several attention heads they are "
        "the heads' mean, and those of a word that is cut into several tokens the tokens' mean where "
        "a token alone is no whole character.",
        "".join(shown),
    )


def _frames(reader: FrameReader, clip: Clip) -> UInt8[np.ndarray, "frames 3 size size"]:
    pixels, mask = reader.read([clip])
    return pixels[0, mask[0]]


def _fold(
    weights: Float[np.ndarray, "max_frames"], count: int, padding: bool
) -> Float[np.ndarray, "columns"]:
    """Weights of the real frames, followed, if requested, by the sum for padded ones."""
    kept = weights[:count]
    return np.append(kept, weights[count:].sum()) if padding else kept


def _drawn(count: int, seed: int) -> str:
    return f"Shown: {count}, drawn at random with seed {seed}."
