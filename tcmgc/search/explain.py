"""Why a window was found: the frames that the query's words attend to, and each contrast's score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from tcmgc.heads import score_tiled
from tcmgc.search.index import Index

_SENTENCE, _WORDS = {"video_sentence", "video_word"}, {"sentence_frame", "frame_word"}


@dataclass(frozen=True)
class Contrast:
    """One of a pair's scores."""

    name: str
    score: float
    weight: float | None
    """Its weight in the similarity; None if all weights are equal."""


@dataclass(frozen=True)
class Explanation:
    """One query and one window."""

    score: float
    contrasts: tuple[Contrast, ...]
    times: tuple[float, ...]
    """When each of the model's frames is shown, in seconds from the video's first frame."""
    words: tuple[str, ...]
    sentence_weights: Float[np.ndarray, "frames"] | None
    """The complete query's weights of the frames, which sum to 1; None if the head does not attend."""
    word_weights: Float[np.ndarray, "words frames"] | None
    """The same for each word."""


@torch.inference_mode()
def explain(index: Index, query: str, window: int) -> Explanation:
    """Explain the score of a query and a window from the window's record.

    Args:
        index: contains the window.
        query: a sentence.
        window: its number in the index.

    Raises:
        ValueError: an empty query.
    """
    if not query.strip():
        raise ValueError("the query is empty; give the sentence that the window was found by")
    encoder = index.encoder
    head, scale = encoder.head, encoder.model.scale()
    text = encoder.texts([query])
    segment, row = index.at(window)
    stored = segment.records(torch.tensor([row])).float()
    record = encoder.layout.record(stored).to(encoder.device)
    scores = score_tiled(head, text, record, scale)
    weigh = getattr(head, "score_weights", None)
    shares = [None] * len(scores.grains)
    if weigh is not None and len(scores.grains) > 1:
        shares = weigh(scores, scale)[:, 0, 0].tolist()
    times = segment.tensors["times"][row]
    real = ~torch.isnan(times)
    sentence = words = None
    spelled = whole_words(query, encoder.spell(query))
    if head.attends:
        raw = torch.cat([text.sentence.unsqueeze(1), text.words], 1)
        weights = head.attention.weights(raw, record)[0, :, :, 0].mean(1)  # type: ignore[union-attr, operator]
        weights = weights[:, : len(times)][:, real.to(weights.device)].cpu().numpy()
        grains = set(head.grains)
        sentence = weights[0] if grains & _SENTENCE else None
        if grains & _WORDS:
            rows = [weights[1:][places].mean(0) for _, places in spelled]
            words = np.stack(rows) if rows else None
    return Explanation(
        float(scores.similarity[0, 0]),
        tuple(
            Contrast(name, float(grain[0, 0]), share)
            for (name, grain), share in zip(scores.grains.items(), shares, strict=True)
        ),
        tuple(times[real].tolist()),
        tuple(word for word, _ in spelled),
        sentence,
        words,
    )


def whole_words(query: str, tokens: Sequence[tuple[str, list[int]]]) -> list[tuple[str, list[int]]]:
    """Merge tokens of one word: those with no space of the query between them."""
    words: list[tuple[str, list[int]]] = []
    text, at = query.lower(), 0
    for token, places in tokens:
        found = text.find(token, at)
        apart = found < 0 or not words or found > at
        at = at if found < 0 else found + len(token)
        if apart:
            words.append((token, list(places)))
        else:
            words[-1] = (words[-1][0] + token, [*words[-1][1], *places])
    return words
