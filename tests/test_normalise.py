"""Score normalisation: matrices small enough to compute by hand, and UCoFiA's own numbers."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from head_cases import make
from head_cases import texts as some_texts
from head_cases import videos as some_videos
from safetensors import safe_open
from torch import Tensor

from tcmgc.config import UcofiaHead
from tcmgc.heads import Sizes
from tcmgc.heads.ucofia import Ucofia
from tcmgc.retrieval import normalise
from tcmgc.retrieval.metrics import retrieval_metrics
from tcmgc.retrieval.normalise import Bank, dual_softmax, query_bank, sinkhorn_bias

GOLDENS = Path(
    os.environ.get("TCMGC_GOLDENS", Path(__file__).resolve().parents[1] / "../shared/goldens")
)
UCOFIA = sorted((GOLDENS / "systems").glob("ucofia_eval_*.safetensors"))


def test_dual_softmax_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    expected = torch.tensor([[0.0, math.log(3) * 3 / 4], [0.0, 0.0]])
    torch.testing.assert_close(dual_softmax(logits), expected)


def test_dual_softmax_takes_a_hub_from_the_queries_it_is_not_for() -> None:
    # Video 0 is near to every text; text 1's own video is 1.
    logits = torch.tensor([[9.0, 1.0], [6.0, 5.5]])
    plain, other = logits.numpy(), dual_softmax(logits).numpy()
    assert retrieval_metrics(plain, np.arange(2))["t2v/R1"] == 50
    assert retrieval_metrics(other, np.arange(2))["t2v/R1"] == 100


def test_query_bank_by_hand() -> None:
    similarity = torch.tensor([[0.5, 0.4], [0.1, 0.3]])
    bank = torch.tensor([[0.9, 0.1], [0.8, 0.2]])  # both are nearest to item 0
    found = query_bank(similarity, bank, beta=1.0)
    shift = [math.log(math.exp(0.9) + math.exp(0.8)), math.log(math.exp(0.1) + math.exp(0.2))]
    # The first query's nearest item is active, the second's is not.
    expected = torch.tensor([[0.5 - shift[0], 0.4 - shift[1]], [0.1, 0.3]])
    torch.testing.assert_close(found, expected)


def test_query_bank_ranks_as_the_published_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(20, 9, generator=generator)
    bank = torch.rand(30, 9, generator=generator)
    active = set(bank.topk(2, 1).indices.flatten().tolist())
    published = similarity.clone()
    for row, scores in enumerate(similarity):
        if int(scores.argmax()) in active:
            published[row] = (20 * scores).exp() / (20 * bank).exp().sum(0)
    found = query_bank(similarity, bank, k=2)
    assert torch.equal(found.argsort(1), published.argsort(1))


def test_sinkhorn_balances_rows_and_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    bias = sinkhorn_bias(bank, iterations=200)
    # With the bias every query spreads one unit over the gallery, and all items get the same.
    plan = (bank + bias).softmax(1)
    torch.testing.assert_close(plan.sum(0), torch.full((4,), 6 / 4, dtype=torch.float64))


def test_sinkhorn_as_published_by_its_own_formula() -> None:
    generator = torch.Generator().manual_seed(1)
    bank = 5 * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    weights = (bank - bank.max()).exp()
    columns = 1 / weights.sum(0)
    for _ in range(4):
        rows = 1 / (weights @ columns)
        columns = 1 / (rows @ weights)
    torch.testing.assert_close(sinkhorn_bias(bank), columns.log().log_softmax(0))


def test_sinkhorn_of_logits_that_underflow_is_finite() -> None:
    bank = torch.tensor([[0.0, -1.0], [-500.0, -501.0]])
    assert sinkhorn_bias(bank).isfinite().all()


@pytest.mark.parametrize("file", UCOFIA or [None], ids=lambda path: path and path.stem)
def test_sinkhorn_equals_the_authors(file: Path | None) -> None:
    if file is None:
        pytest.skip(f"no systems/ucofia_eval_* in {GOLDENS}; set TCMGC_GOLDENS to the goldens")
    with safe_open(file, "pt") as golden:
        settings = json.loads(golden.metadata()["config"])
        names = ("bank_grains", "bias", "grains", "similarity_normalised")
        bank, bias, logits, published = (golden.get_tensor(f"output.{name}") for name in names)
    of_videos = settings["tree"] == "eval_t2v"
    found = [sinkhorn_bias(x if of_videos else x.T) for x in bank.unbind(-1)]
    torch.testing.assert_close(torch.stack(found, 1), bias, rtol=0, atol=1e-5)
    # The whole way: the head's scores of three contrasts, of which the third is a logit already.
    scale = settings["exp_logit_scale"]
    head = Ucofia(UcofiaHead(), Sizes(4, settings["words"], settings["frames"], patches=3))
    factors = torch.tensor(head.factors(scale)).view(3, 1, 1)
    scores, known = (x.movedim(-1, 0) / factors for x in (logits, bank))
    texts, videos = (known, scores) if of_videos else (scores, known)
    there, back = normalise.normalised("sk", head, scores, scale, Bank(texts, videos))
    similarity = scale * (there if of_videos else back)
    torch.testing.assert_close(similarity, published, rtol=0, atol=1e-4)


def _scored() -> tuple[normalise.Head, Tensor, Bank]:
    head = make().eval()
    with torch.no_grad():
        record, train = head.record(some_videos(3)), head.record(some_videos(5))
        test = torch.stack(list(head.score(some_texts(4), record).grains.values()))
        bank = Bank(
            torch.stack(list(head.score(some_texts(9), record).grains.values())),
            torch.stack(list(head.score(some_texts(4), train).grains.values())),
        )
    return head, test, bank


@pytest.mark.parametrize("name", normalise.NORMALISATIONS)
def test_both_directions_of_every_normalisation(name: str) -> None:
    head, test, bank = _scored()
    with torch.no_grad():
        t2v, v2t = normalise.normalised(name, head, test, 20.0, bank)
        plain = head.combine(test, 20.0)
    assert t2v.shape == v2t.shape == plain.shape
    # What is added to a score, or multiplies it, depends on its query and its gallery item; a change
    # that all queries share shows that each direction has its own gallery.
    if name == "dsl":
        torch.testing.assert_close((t2v / plain / 20).sum(0), torch.ones(3, dtype=plain.dtype))
        torch.testing.assert_close((v2t / plain / 20).sum(1), torch.ones(4, dtype=plain.dtype))
    elif name == "qb":
        texts, videos = (head.combine(one, 20.0) for one in (bank.texts, bank.videos))
        torch.testing.assert_close(t2v, query_bank(plain, texts))
        torch.testing.assert_close(v2t, query_bank(plain.T, videos.T).T)
    else:
        of_video = torch.stack([sinkhorn_bias(20 * grain) for grain in bank.texts]) / 20
        of_text = torch.stack([sinkhorn_bias(20 * grain.T) for grain in bank.videos]) / 20
        torch.testing.assert_close(t2v, head.combine(test + of_video[:, None], 20.0))
        torch.testing.assert_close(v2t, head.combine(test + of_text[:, :, None], 20.0))


def test_sinkhorn_bias_of_one_contrast_alone_is_the_bias_of_its_logits() -> None:
    head = make(grains=("video_sentence",)).eval()
    with torch.no_grad():
        record = head.record(some_videos(3))
        test = torch.stack(list(head.score(some_texts(4), record).grains.values()))
        bank = torch.stack(list(head.score(some_texts(9), record).grains.values()))
        back = torch.stack(
            list(head.score(some_texts(4), head.record(some_videos(5))).grains.values())
        )
        t2v, _ = normalise.normalised("sk", head, test, 20.0, Bank(bank, back))
    logits = 20 * test[0] + sinkhorn_bias(20 * bank[0])
    torch.testing.assert_close(20 * t2v, logits)


def test_what_cannot_be_computed_is_refused_before_anything_is() -> None:
    with pytest.raises(ValueError, match="no normalisation 'csls'; known are dsl, qb, sk"):
        normalise.check(["csls"], bank=True)
    with pytest.raises(ValueError, match="named twice"):
        normalise.check(["dsl", "dsl"], bank=True)
    with pytest.raises(ValueError, match="'sk' needs a bank of training queries"):
        normalise.check(["dsl", "sk"], bank=False)
    normalise.check(["dsl"], bank=False)
    head, test, _ = _scored()
    with pytest.raises(ValueError, match="needs a bank"):
        normalise.normalised("qb", head, test, 1.0)
    with pytest.raises(ValueError, match="bank of training queries is empty"):
        query_bank(torch.rand(2, 3), torch.rand(0, 3))
    with pytest.raises(ValueError, match="scored against 4 items, the test queries against 3"):
        query_bank(torch.rand(2, 3), torch.rand(5, 4))


def test_metrics_of_two_matrices() -> None:
    there = np.array([[1.0, 0.0], [0.0, 1.0]])
    back = there[:, ::-1].copy()
    metrics = retrieval_metrics(there, np.arange(2), back)
    assert metrics["t2v/R1"] == 100
    assert metrics["v2t/R1"] == 0
    assert metrics["SumR"] == metrics["t2v/RSum"] + metrics["v2t/RSum"]
