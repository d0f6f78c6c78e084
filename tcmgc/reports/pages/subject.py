"""The subject of a page's sections: a model and a split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from tcmgc.datasets import Clip
from tcmgc.heads import Head, score_tiled
from tcmgc.retrieval import qualitative
from tcmgc.towers.features import TextFeatures, VideoFeatures


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode, and its features of a split."""

    name: str
    """Short name for titles of plots."""
    head: Head
    scale: float
    """The logit scale."""
    clips: Sequence[Clip]
    captions: Sequence[str]
    owner: Int[np.ndarray, "texts"]
    """The clip of each caption."""
    spell: Callable[[str], list[tuple[str, list[int]]]]
    """A caption's words, each with its token positions."""
    words: int
    """Token positions of a caption, start and end included; longer captions are cut."""
    text: TextFeatures
    video: VideoFeatures

    @torch.no_grad()
    def score(self) -> Float[np.ndarray, "texts videos"]:
        """Similarities of all captions with all videos."""
        record = self.head.record(self.video)
        scores = score_tiled(self.head, self.text, record, self.scale, grains=False)
        return scores.similarity.cpu().numpy()

    def matching(self) -> Float[torch.Tensor, "grains texts"]:
        """The score of every contrast for every caption with its own video."""
        return qualitative.matching_scores(self.head, self.text, self.video, self.owner, self.scale)
