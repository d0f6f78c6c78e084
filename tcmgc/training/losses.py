"""Contrastive losses and similarity decorrelation (Eq. 33-37), each formula once.

Every function takes this worker's rows of scores (its texts against all videos of the batch) and
returns its share of the term. The shares of all workers add up to the term of the whole batch, and
so do their gradients. With one worker, the rows are the whole matrix and the share is the term.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tcmgc.config import Loss, NoTerm
from tcmgc.towers.features import Scores
from tcmgc.training.distributed import gather

Rows = Float[Tensor, "texts videos"]


def info_nce(
    rows: Rows,
    scale: Tensor | float,
    mine: slice | None = None,
    columns: Float[Tensor, "videos texts"] | None = None,
    same: Bool[Tensor, "texts videos"] | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Shares of the text-to-video loss (Eq. 33) and of the video-to-text loss (Eq. 34).

    Args:
        rows: This worker's texts against all videos, unscaled; text i of the batch belongs to video i.
        scale: lambda.
        mine: Which of the batch's pairs these are; None: all.
        columns: All texts (rows) against this worker's videos (columns); None: take them from
            `rows`, which must be the whole matrix.
        same: True if a video is the text's own at another position of the batch; such pairs are
            not negatives.

    Raises:
        ValueError: `rows` should be the whole matrix and is not square.
    """
    mine = _whole(rows, "similarity") if mine is None else mine
    columns = rows if columns is None else columns
    total = rows.shape[1]
    target = torch.arange(mine.start, mine.stop, device=rows.device)
    across, down = scale * rows, scale * columns.T
    if same is not None:
        across, down = (logits.masked_fill(same, float("-inf")) for logits in (across, down))
    return (
        F.cross_entropy(across, target, reduction="sum") / total,
        F.cross_entropy(down, target, reduction="sum") / total,
    )


def sigmoid(
    rows: Rows,
    scale: Tensor | float,
    bias: Tensor | float = 0.0,
    mine: slice | None = None,
    same: Bool[Tensor, "texts videos"] | None = None,
) -> Float[Tensor, ""]:
    """Share of SigLIP's loss: ``-1/n sum_ij log sigmoid(z_ij (scale s_ij + bias))``, z = 1 on pairs, else -1.

    Zhai et al. 2023 (arXiv 2303.15343), Eq. 2. Arguments as :func:`info_nce`.
    """
    mine = _whole(rows, "similarity") if mine is None else mine
    own = torch.zeros_like(rows, dtype=torch.bool)
    own.diagonal(mine.start).fill_(True)
    logits = scale * rows + bias
    terms = F.logsigmoid(torch.where(own, logits, -logits))
    if same is not None:
        terms = terms.masked_fill(same, 0.0)
    return -terms.sum() / rows.shape[1]


def similarity_decorrelation(
    grains: Mapping[str, Rows],
    pairs: Literal["positives", "negatives", "all"] = "positives",
    biased: bool = False,
    mine: slice | None = None,
) -> Float[Tensor, ""]:
    """Share of SDR: the variance over a pair's scores, averaged over pairs (Eq. 36, Table A.1).

    Args:
        grains: The scores of each contrast, this worker's texts against all videos.
        pairs: Matching pairs, all others, or both.
        biased: Divide by the number of scores instead of that minus 1.
        mine: Which of the batch's pairs these are; None: all.

    Raises:
        ValueError: fewer than two contrasts, a matrix that should be whole and is not square,
            or no pair of that kind.
    """
    if len(grains) < 2:
        raise ValueError(
            f"similarity decorrelation needs at least two contrasts; got {list(grains)}"
        )
    if mine is None:
        for name, scores in grains.items():
            mine = _whole(scores, name)
        assert mine is not None
    stacked = torch.stack(list(grains.values()), dim=-1)
    total = stacked.shape[1]
    variance = stacked.var(dim=-1, correction=0 if biased else 1)
    positives = variance.diagonal(mine.start).sum()
    if pairs == "negatives" and total < 2:
        raise ValueError("similarity decorrelation of negatives needs at least two pairs; got 1")
    sums: dict[str, tuple[Callable[[], Tensor], int]] = {
        "positives": (lambda: positives, total),
        "negatives": (lambda: variance.sum() - positives, total * (total - 1)),
        "all": (variance.sum, total**2),
    }
    value, count = sums[pairs]
    return value() / count


class Objective:
    """The training loss: a contrast, alpha times SDR, and optionally a term on features.

    Args:
        options: The config's loss.
    """

    def __init__(self, options: Loss) -> None:
        self.options = options
        self.weight = {"sum": 1.0, "mean": 0.5}[options.directions]
        self.term: Callable[..., Tensor] | None = None
        if not isinstance(options.term, NoTerm):
            self.term = options.term.implementation()(options.term)

    def __call__(
        self,
        scores: Scores,
        scale: Tensor,
        mine: slice,
        *,
        columns: Tensor | None = None,
        bias: Tensor | float = 0.0,
        same: Bool[Tensor, "texts videos"] | None = None,
    ) -> dict[str, Tensor]:
        """Shares of ``loss`` and its terms, without the term on features.

        Args:
            scores: This worker's texts against all videos.
            scale: Logit scale.
            mine: Which of the batch's pairs this worker has.
            columns: All texts against this worker's videos; None gathers them.
            bias: Added to logits by the sigmoid loss.
            same: As in :func:`info_nce`.
        """
        options, rows = self.options, scores.similarity
        if options.contrast == "sigmoid":
            each = {"sigmoid": rows}
            if options.each_score:
                each = {f"sigmoid_{name}": grain for name, grain in scores.grains.items()}
            terms = {name: sigmoid(part, scale, bias, mine, same) for name, part in each.items()}
            loss = torch.stack(list(terms.values())).sum()
        else:
            if columns is None:
                # A column needs every worker's texts: only scores are sent, not features.
                columns = gather(rows, rows.shape[1])[:, mine]
            t2v, v2t = info_nce(rows, scale, mine, columns, same)
            loss = self.weight * (t2v + v2t)
            terms = {"info_nce_t2v": t2v, "info_nce_v2t": v2t}
        if options.alpha:
            grains = scores.grains
            if options.sdr_on_logits:
                grains = {name: grain * scale for name, grain in grains.items()}
            terms["sdr"] = similarity_decorrelation(
                grains, options.sdr_pairs, options.sdr_biased, mine
            )
            loss = loss + options.alpha * terms["sdr"]
        return {"loss": loss, **terms}

    def on_features(self, model: Any, text: Any, video: Any) -> Tensor | None:
        """The term on the whole batch's features; None if there is none."""
        return None if self.term is None else self.term(model, text, video)


def _whole(scores: Tensor, name: str) -> slice:
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(
            f"{name} must be square, text i with video i; got shape {tuple(scores.shape)}"
        )
    return slice(0, len(scores))
