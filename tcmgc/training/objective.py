"""The training loss from one worker's rows of scores (Eq. 33-37).

The same terms on a whole matrix, for reading and for one process: :mod:`tcmgc.training.losses`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tcmgc.towers.features import Scores
from tcmgc.training.distributed import gather


class Objective:
    """Symmetric InfoNCE plus alpha times similarity decorrelation, as a sum over workers.

    Each call gives this worker's share of every term: the shares of all workers add up to the
    term on the whole batch, so that adding up gradients gives the whole batch's gradient.

    Args:
        alpha: Weight of SDR; 0 leaves it out.
        sdr_pairs: Which pairs SDR looks at: ``positives``, ``negatives`` or ``all``.
        sdr_biased: Divide variances by n instead of n - 1.
        sdr_on_logits: SDR on similarities times the logit scale.
        directions: ``sum`` of both directions of InfoNCE, or their ``mean``.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        sdr_pairs: str = "positives",
        sdr_biased: bool = False,
        sdr_on_logits: bool = False,
        directions: str = "sum",
    ) -> None:
        self.alpha = alpha
        self.sdr_pairs = sdr_pairs
        self.sdr_biased = sdr_biased
        self.sdr_on_logits = sdr_on_logits
        self.weight = {"sum": 1.0, "mean": 0.5}[directions]

    def __call__(
        self, scores: Scores, scale: Tensor, mine: slice, columns: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Shares of ``loss`` and its terms.

        Args:
            scores: This worker's texts against all videos.
            scale: Logit scale.
            mine: Which of the batch's pairs this worker holds.
            columns: All texts against this worker's videos; None gathers them.
        """
        total = scores.similarity.shape[1]
        rows = scores.similarity
        target = torch.arange(mine.start, mine.stop, device=rows.device)
        if columns is None:
            # A column needs every worker's texts: only the scores travel, not the features.
            columns = gather(rows, total)[:, mine]
        t2v = F.cross_entropy(scale * rows, target, reduction="sum") / total
        v2t = F.cross_entropy(scale * columns.T, target, reduction="sum") / total
        terms = {"info_nce_t2v": t2v, "info_nce_v2t": v2t}
        loss = self.weight * (t2v + v2t)
        if self.alpha:
            terms["sdr"] = self._decorrelation(scores, scale, mine, total)
            loss = loss + self.alpha * terms["sdr"]
        return {"loss": loss, **terms}

    def _decorrelation(self, scores: Scores, scale: Tensor, mine: slice, total: int) -> Tensor:
        grains = torch.stack(list(scores.grains.values()), dim=-1)
        if self.sdr_on_logits:
            grains = grains * scale
        variance = grains.var(dim=-1, correction=0 if self.sdr_biased else 1)
        positives = variance.diagonal(mine.start).sum()
        sums: dict[str, tuple[Callable[[], Tensor], int]] = {
            "positives": (lambda: positives, total),
            "negatives": (lambda: variance.sum() - positives, total * (total - 1)),
            "all": (variance.sum, total**2),
        }
        value, count = sums[self.sdr_pairs]
        return value() / count
