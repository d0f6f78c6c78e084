"""The sections that look into a model: the paper's Figures 9 to 14 for any checkpoint and split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from tcmgc import plots, qualitative
from tcmgc.aggregate import ScoreAggregation
from tcmgc.datasets import Clip
from tcmgc.features import TextFeatures, VideoFeatures
from tcmgc.frame_reader import FrameReader
from tcmgc.heads import Head, score_tiled
from tcmgc.pages import cards
from tcmgc.pages.page import Section, card, plot, table

CLOUD_PAIRS = 40
"""Pairs whose words and frames are put in the plane (Fig. 10)."""
_TOP = 3


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode, and what its towers make of a split."""

    name: str
    """Short, for titles of plots."""
    head: Head
    scale: float
    """The logit scale."""
    clips: Sequence[Clip]
    captions: Sequence[str]
    owner: Int[np.ndarray, "texts"]
    """The clip of each caption."""
    spell: Callable[[str], list[tuple[str, list[int]]]]
    """A caption's words, each with its token positions."""
    text: TextFeatures
    video: VideoFeatures

    @torch.no_grad()
    def score(self) -> Float[np.ndarray, "texts videos"]:
        """Similarities of all captions with all videos."""
        record = self.head.record(self.video)
        scores = score_tiled(self.head, self.text, record, self.scale, grains=False)
        return scores.similarity.cpu().numpy()


def retrieval(subject: Subject, reader: FrameReader, pairs: int, seed: int) -> list[Section]:
    """Queries that find their video first (Fig. 9), and such as do not (Fig. 14).

    Args:
        subject: model and features.
        reader: has the clips' frames.
        pairs: queries shown of either kind.
        seed: decides which.
    """
    scores = subject.score()
    ranking = qualitative.rank(scores, subject.owner, _TOP + 1)
    hit = ranking.ranks == 1
    count = len(hit)

    def result(query: int, video: int, place: int) -> cards.Result:
        clip = subject.clips[video]
        return cards.Result(
            clip.id,
            place,
            float(scores[query, video]),
            bool(video == subject.owner[query]),
            _frames(reader, clip),
        )

    hits, failures = [], []
    for query in qualitative.choose(hit, pairs, seed):
        top = enumerate(ranking.order[query][:_TOP], 1)
        shown = [result(query, video, place) for place, video in top]
        hits.append(card(cards.retrieval(subject.captions[query], "", shown)))
    for query in qualitative.choose(~hit, pairs, seed):
        own = subject.owner[query]
        wrong = [pair for pair in enumerate(ranking.order[query], 1) if pair[1] != own][:_TOP]
        shown = [result(query, own, int(ranking.ranks[query]))]
        shown += [result(query, video, place) for place, video in wrong]
        note = f"its video ranks {ranking.ranks[query]} of {len(subject.clips)}"
        failures.append(card(cards.retrieval(subject.captions[query], note, shown)))
    found = int(hit.sum())
    return [
        Section(
            "Retrieved first",
            f"{found} of {count} captions ({found / count:.1%}) find their own video first among "
            f"{len(subject.clips)}. {_drawn(len(hits), seed)} Each with the first {_TOP} videos, "
            "four frames and the similarity of each."
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
    """What the sentence and each word look at in the caption's own video (Fig. 11)."""
    title = "Attention over frames"
    if not qualitative.attends(subject.head):
        return Section(
            title,
            f"Left out: the head {type(subject.head).__name__} of this checkpoint compares texts with "
            "frames that no text has weighed; it has no language-video attention.",
        )
    chosen = qualitative.choose(np.ones(len(subject.captions), bool), pairs, seed)
    owners = subject.owner[chosen]
    found = qualitative.pair_attention(
        subject.head,
        subject.text[torch.from_numpy(chosen)],
        subject.video[torch.from_numpy(owners)],
    )
    shown = []
    for query, owner, weights in zip(chosen, owners, found, strict=True):
        clip, text = subject.clips[owner], subject.captions[query]
        frames = _frames(reader, clip)
        vectors = [v for v in (weights.sentence, weights.words) if v is not None]
        padding = any(bool(vector[..., len(frames) :].any()) for vector in vectors)
        words = []
        if weights.words is not None:
            spelled = subject.spell(text)
            words = [
                (word, _fold(weights.words[at].mean(0), len(frames), padding))
                for word, at in spelled
            ]
        sentence = (
            None if weights.sentence is None else _fold(weights.sentence, len(frames), padding)
        )
        seconds = reader.timestamps(clip)
        drawn = cards.Weights(text, clip.id, frames, seconds, sentence, words, padding)
        shown.append(card(cards.attention(drawn)))
    return Section(
        title,
        f"How the sentence (bars) and each word (shades) weigh the frames of their own video. "
        f"{_drawn(len(shown), seed)} A row's weights sum to 100%; with several attention heads they are "
        "the heads' mean, and those of a word that is cut into several tokens the tokens' mean where "
        "a token alone is no whole character.",
        "".join(shown),
    )


def clouds(subject: Subject, seed: int) -> Section:
    """Word and frame features of some pairs in the plane (Fig. 10)."""
    title = "Words and frames in the plane"
    first = np.unique(subject.owner, return_index=True)[1]
    chosen = first[qualitative.choose(np.ones(len(first), bool), CLOUD_PAIRS, seed)]
    spelled = [subject.spell(subject.captions[query]) for query in chosen]
    kept = [n for n, words in enumerate(spelled) if words]
    words = [
        subject.text.words[int(chosen[n])][[at for _, places in spelled[n] for at in places]]
        for n in kept
    ]
    frames = [
        subject.video.encoded[owner][subject.video.frame_mask[owner]]
        for owner in (int(subject.owner[chosen[n]]) for n in kept)
    ]
    if min(sum(map(len, words)), sum(map(len, frames))) < 3:
        return Section(title, "Left out: fewer than three words or frames.")
    panels = []
    for name, groups in (("words", words), ("frames", frames)):
        places = qualitative.embed(groups, seed)
        group = np.repeat(np.arange(len(groups)), [len(points) for points in groups])
        panels.append(plots.Cloud(name, np.concatenate(places), group, name))
    titles = {
        f"{name}-{place}": subject.captions[chosen[n]]
        for place, n in enumerate(kept)
        for name in ("words", "frames")
    }
    described = f"t-SNE of the words and of the encoded frames of {len(kept)} pairs"
    drawn = plot(plots.svg(plots.clouds(panels), described, titles))
    return Section(
        title,
        f"t-SNE by cosine of the words (left) and the encoded frames (right) of {len(kept)} pairs, drawn at "
        f"random with seed {seed}. A pair has one colour and shape in both; its caption appears when the "
        "pointer rests on a point. Distances between far groups mean nothing in such a picture.",
        card(drawn),
    )


def similarities(subject: Subject, against: Subject | None) -> Section:
    """The contrasts of matching pairs, with and without SDR (Fig. 12)."""
    title = "Similarities of matching pairs"
    if len(subject.head.grains) == 1:
        return Section(
            title,
            f"Left out: the head {type(subject.head).__name__} of this checkpoint has one score, "
            "so there are no parts to compare.",
        )
    subjects = [subject] if against is None else [subject, against]
    raw, share, rows = [], [], {}
    for one in subjects:
        scores = _matching(one)
        parts = qualitative.shares(scores)
        names = [_spoken(grain) for grain in one.head.grains]
        raw.append(plots.Panel(one.name, "similarity", dict(zip(names, scores, strict=True))))
        share.append(
            plots.Panel(
                one.name,
                "share of |similarity| in a pair",
                dict(zip(names, parts, strict=True)),
                (0.0, 1.0),
            )
        )
        spread = scores.std(0, ddof=1).mean()
        cells = [
            f"{values.mean():.4f} ± {values.std():.4f}, {part.mean():.0%}"
            for values, part in zip(scores, parts, strict=True)
        ]
        rows[one.name] = [*cells, f"{spread:.4f}"]
    described = "Box plots of " + " and ".join(
        f"the similarities of {len(one.captions)} matching pairs, {one.name}" for one in subjects
    )
    columns = [*(_spoken(grain) for grain in subject.head.grains), "spread in a pair"]
    about = (
        f"Each of {len(subject.captions)} captions with its own video. Above, the score of each contrast; "
        "below, what it makes of the pair's whole when contrasts are averaged. SDR is there to "
        "even these out. In the table: mean ± standard deviation over pairs, mean share; and the "
        "standard deviation between a pair's contrasts, averaged."
    )
    if against is None:
        about += (
            " With --against and a checkpoint of the same training without SDR (or with it), "
            "both are drawn side by side."
        )
    drawn = plot(plots.svg(plots.distributions([raw, share]), described))
    return Section(title, about, card(drawn + table(columns, rows)))


def aggregation(subject: Subject) -> Section:
    """What each contrast counts in a matching pair's similarity (Fig. 13)."""
    title = "Aggregation weights"
    name = type(subject.head).__name__
    aggregate = getattr(subject.head, "aggregate", None)
    if len(subject.head.grains) == 1:
        return Section(title, f"Left out: the head {name} of this checkpoint has one score.")
    if not isinstance(aggregate, ScoreAggregation) or aggregate.kind == "mean":
        return Section(
            title,
            f"Left out: the head {name} of this checkpoint takes the mean of its scores, "
            "each counting the same for every pair.",
        )
    scores = qualitative.matching_scores(
        subject.head, subject.text, subject.video, subject.owner, subject.scale
    )
    names = [_spoken(grain) for grain in subject.head.grains]
    weights = qualitative.grain_weights(aggregate, scores, subject.scale)
    panels = [
        plots.Panel(kind, "weight", dict(zip(names, values, strict=True)), (0.0, 1.0))
        for kind, values in weights.items()
    ]
    described = f"Box plots of the weights of {len(names)} contrasts: {', '.join(weights)}"
    body = plot(plots.svg(plots.distributions([panels]), described))
    about = (
        f"What each contrast counts for each of {len(subject.captions)} captions with its own video"
    )
    if aggregate.weight is None:
        return Section(title, f"{about}: a softmax over the scores.", card(body))
    matrix = aggregate.weight.detach().cpu().numpy()
    rows = {
        name: [f"{value:.3f}" for value in row] for name, row in zip(names, matrix, strict=True)
    }
    return Section(
        title,
        f"{about}: left, what a softmax alone would make of the same scores; right, the checkpoint's own "
        "linear softmax. The table is its linear layer, the identity when training began: a row's "
        "logit is the sum of its numbers times the columns' scores.",
        card(body + table(names, rows)),
    )


def _matching(subject: Subject) -> Float[np.ndarray, "grains texts"]:
    scores = qualitative.matching_scores(
        subject.head, subject.text, subject.video, subject.owner, subject.scale
    )
    return scores.cpu().numpy()


def _frames(reader: FrameReader, clip: Clip) -> UInt8[np.ndarray, "frames 3 size size"]:
    pixels, mask = reader.read([clip])
    return pixels[0, mask[0]]


def _fold(
    weights: Float[np.ndarray, "max_frames"], count: int, padding: bool
) -> Float[np.ndarray, "columns"]:
    """Weights of the frames that there are; behind them, if wanted, what padded ones get together."""
    kept = weights[:count]
    return np.append(kept, weights[count:].sum()) if padding else kept


def _drawn(count: int, seed: int) -> str:
    return f"Shown: {count}, drawn at random with seed {seed}."


def _spoken(grain: str) -> str:
    return grain.replace("_", "–")
