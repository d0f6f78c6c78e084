"""Sections that plot numbers: 2-D features, similarities, weights (Figures 10, 12 and 13)."""

import numpy as np

from tcmgc.heads.parts.aggregate import ScoreAggregation
from tcmgc.reports import plots
from tcmgc.reports.pages.page import Section, card, plot, table
from tcmgc.reports.pages.subject import Subject
from tcmgc.retrieval import qualitative

CLOUD_PAIRS = 40
"""Number of pairs whose words and frames are plotted (Fig. 10)."""


def clouds(subject: Subject, seed: int) -> Section:
    """Word and frame features of some pairs in 2-D (Fig. 10)."""
    title = "Words and frames in the plane"
    first = np.unique(subject.owner, return_index=True)[1]
    chosen = first[qualitative.choose(np.ones(len(first), bool), CLOUD_PAIRS, seed)].tolist()
    spelled = [subject.spell(subject.captions[query]) for query in chosen]
    kept = [n for n, words in enumerate(spelled) if words]
    words = [
        subject.text.words[chosen[n]][[at for _, places in spelled[n] for at in places]]
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
    drawn = plot(plots.svg(plots.clouds(panels), described, titles), described)
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
        scores = one.matching().cpu().numpy()
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
    drawn = plot(plots.svg(plots.distributions([raw, share]), described), described)
    listed = table(columns, rows, "similarities of matching pairs, by contrast", "training")
    return Section(title, about, card(drawn + listed))


def aggregation(subject: Subject) -> Section:
    """Each contrast's weight in a matching pair's similarity (Fig. 13)."""
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
    scores = subject.matching()
    names = [_spoken(grain) for grain in subject.head.grains]
    weights = qualitative.grain_weights(aggregate, scores, subject.scale)
    panels = [
        plots.Panel(kind, "weight", dict(zip(names, values, strict=True)), (0.0, 1.0))
        for kind, values in weights.items()
    ]
    described = f"Box plots of the weights of {len(names)} contrasts: {', '.join(weights)}"
    body = plot(plots.svg(plots.distributions([panels]), described), described)
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
        card(body + table(names, rows, "the linear layer of the linear softmax", "logit of")),
    )


def _spoken(grain: str) -> str:
    return grain.replace("_", "–")
