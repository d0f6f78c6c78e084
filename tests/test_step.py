"""Any number of workers, any chunk size: the loss and gradients of one worker with the whole batch."""

import functools
import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from small_tower import FRAMES, SIZE, TOWER, VOCABULARY, WORDS
from torch import Tensor
from workers import Workers

from tcmgc import config, model, recipes
from tcmgc.config import Config, Data, Loss, Temporal, Towers, tokens
from tcmgc.training.batch import Batch
from tcmgc.training.distributed import share, world
from tcmgc.training.step import How, Whole, _Piece, backward
from tcmgc.training.threads import Threads

SELECTION = tokens.ShiftSelect(blocks=(-1,), patches=2, samples=20)
NO_SDR = Loss(alpha=0.0, directions="mean", learn_scale=True, scale=20.0)
CASES: dict[str, dict[str, Any]] = {
    "TC-MGC as the paper has it": {},
    "TC-MGC as released": {"released": True, "head.attention.dropout": 0.0},
    "TC-MGC, padded words masked": {"head.mask_words": True},
    "SDR of negatives, learnt scale": {
        "loss.sdr_pairs": "negatives",
        "loss.learn_scale": True,
        "loss.sdr_on_logits": True,
        "loss.scale": 20.0,
    },
    "SDR of all, biased": {"loss.sdr_pairs": "all", "loss.sdr_biased": True},
    "X-Pool": {"head": config.XPoolHead(dropout=0.0), "loss": NO_SDR},
    "X-CLIP": {"head": config.XClipHead(), "loss": NO_SDR},
    "TC-MGC with dropout": {"head.attention.dropout": 0.3},
    "X-Pool with dropout": {"head": config.XPoolHead(dropout=0.3), "loss": NO_SDR},
    "sigmoid loss": {
        "loss": Loss(contrast="sigmoid", alpha=0.0, scale=10.0, learn_scale=True, bias=-3.0)
    },
    "the same video twice": {"loss.mask_same_video": True},
    "CLIP4Clip, seqLSTM": {"head": config.MeanHead(), "temporal": config.Lstm(), "loss": NO_SDR},
    "CLIP4Clip, tightTransf": {
        "head": config.TightHead(layers=2, heads=2, initialise_from_text=False),
        "loss": Loss(alpha=0.0, scale=1.0),
    },
    "CLIP4Clip, 3d patches": {
        "head": config.MeanHead(),
        "tokens": tokens.Patch3d(),
        "loss": NO_SDR,
    },
    "CenterCLIP": {
        "head": config.MeanHead(),
        "tokens": tokens.Cluster(blocks=(-1,), segments=(2,), clusters=(5,)),
        "loss": NO_SDR,
    },
    "DRL": {
        "head": config.WtiHead(),
        "loss": replace(NO_SDR, term=config.ChannelDecorrelation(weight=0.01, rest=0.06)),
    },
    "DRL as published, TI": {
        "head": config.WtiHead(weights="equal", as_published=True),
        "loss": replace(NO_SDR, term=config.ChannelDecorrelation(of="tokens", as_published=True)),
    },
    "pooled channels": {
        "head": config.MeanHead(),
        "loss": replace(NO_SDR, term=config.ChannelDecorrelation(of="pooled", weight=0.01)),
    },
    "TS2-Net": {
        "head": config.TokenSelectionHead(),
        "tokens": SELECTION,
        "temporal": config.PatchTransformer(
            layers=1, heads=2, patches=2, initialise_from_text=False
        ),
        "loss": NO_SDR,
    },
    "UCoFiA": {"head": config.UcofiaHead(temperature=0.1), "tokens": SELECTION, "loss": NO_SDR},
    "Video-ColBERT": {
        "head": config.MeanMaxHead(),
        "loss": Loss(contrast="sigmoid", each_score=True, alpha=0.0, scale=10.0, learn_scale=True),
    },
    "frozen towers": {"towers.freeze": "all"},
    "activations recomputed": {"towers.checkpoint_activations": True},
}


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tower") / "test-tower.json"
    path.write_text(json.dumps(TOWER))
    return str(path)


@pytest.fixture(scope="module", params=[2, 4], ids=lambda size: f"{size} workers")
def group(request: pytest.FixtureRequest) -> Iterator[Workers]:
    group = Workers(request.param)
    yield group
    group.close()


def settings(case: str, tower: str) -> Config:
    changes = dict(CASES[case])
    base = Config(
        data=Data(dataset="demo", root="nowhere", max_words=WORDS, max_frames=FRAMES),
        towers=Towers(name=tower, pretrained=None, freeze="none"),
        tokens=changes.pop("tokens", config.NoTokens()),
        temporal=changes.pop("temporal", Temporal(layers=1, heads=2)),
        head=changes.pop("head", config.TcMgcHead()),
        loss=changes.pop("loss", Loss(scale=20.0)),
    )
    if changes.pop("released", False):
        base = recipes.released(base)
        changes |= {"temporal.layers": 2, "temporal.heads": 2}
    if base.head.scores == 4 and hasattr(base.head, "reorganise"):
        changes["head.reorganise.keep_rate"] = 0.5
    return config.replace(base, changes)


def whole_batch(pairs: int) -> Batch:
    random = torch.Generator().manual_seed(3)
    tokens = torch.randint(1, VOCABULARY - 1, (pairs, WORDS), generator=random)
    lengths = torch.randint(3, WORDS + 1, (pairs,), generator=random)
    tokens[torch.arange(WORDS) >= lengths[:, None]] = 0
    tokens[torch.arange(pairs), lengths - 1] = VOCABULARY - 1
    frames = torch.randint(1, FRAMES + 1, (pairs,), generator=random)
    pixels = torch.randint(
        0, 256, (pairs, FRAMES, 3, SIZE, SIZE), generator=random, dtype=torch.uint8
    )
    return Batch(tokens, pixels, torch.arange(FRAMES) < frames[:, None])


def step(
    case: str,
    tower: str,
    pairs: int,
    chunk_size: int,
    dtype: torch.dtype,
    pieces: int = 0,
    threads: int = 1,
    known: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Loss terms and gradients on this worker after one step.

    With `known` it knows all words, which it may not ask for then, and sends its rank along.
    """
    torch.set_num_threads(1)
    chosen = settings(case, tower)
    retriever = model.build(chosen).to(dtype).train()
    with (
        torch.no_grad()
    ):  # some weights start at 0 or the identity, where their gradient says little
        random = torch.Generator().manual_seed(5)
        for parameter in retriever.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random, dtype=dtype))
    rank, workers = world()
    mine = share(pairs, rank, workers)
    whole = whole_batch(pairs)
    local = whole[mine]
    more: dict[str, Any] = {"also": {"rank": rank}} if known else {}
    words = whole.tokens.unique() if known else None
    asks = patch(
        "tcmgc.training.step._gathered_words", side_effect=AssertionError("asked for words")
    )
    with asks if known else nullcontext():
        terms = backward(
            retriever,
            local,
            pairs,
            model.build_objective(chosen),
            How(chunk_size, pieces, Threads(threads)),
            whole=Whole(words, torch.arange(pairs) // 2),
            seed=7,
            **more,
        )
    grads = {name: p.grad for name, p in retriever.named_parameters() if p.grad is not None}
    return terms, grads


alone = functools.lru_cache(maxsize=None)(step)
"""The same on this process alone, kept for the other numbers of workers."""


def assert_same(
    found: list[tuple[dict[str, Tensor], dict[str, Tensor]]],
    wanted: tuple[dict[str, Tensor], dict[str, Tensor]],
    dtype: torch.dtype,
) -> None:
    terms, grads = wanted
    norm = torch.cat([grad.flatten() for grad in grads.values()]).norm().item()
    assert norm > 0
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for got_terms, got in found:
        for name, value in terms.items():
            assert got_terms[name].item() == pytest.approx(value.item(), rel=tolerance), name
        assert got.keys() == grads.keys()
        for name, grad in grads.items():
            if dtype == torch.float64:
                # The floor is for what is 0 by symmetry, such as the bias of keys: all rounding.
                allowed = tolerance * grad.norm().item() + 1e-14 * norm
            else:
                allowed = tolerance * norm
            assert (got[name] - grad).norm().item() <= allowed, name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_workers_have_the_gradients_of_one(
    case: str, dtype: torch.dtype, group: Workers, tower: str
):
    # 6 are 2, 2, 1, 1 on four workers.
    for pairs in (6, 8) if case == "TC-MGC as the paper has it" else (6,):
        wanted = alone(case, tower, pairs, 0, dtype)
        assert_same(group.run(step, case, tower, pairs, 0, dtype), wanted, dtype)


@pytest.mark.parametrize("case", CASES)
def test_chunks_have_the_gradients_of_the_whole(case: str, group: Workers, tower: str):
    wanted = alone(case, tower, 6, 0, torch.float64)
    for chunk_size in (1, 3, 6):
        assert_same([alone(case, tower, 6, chunk_size, torch.float64)], wanted, torch.float64)
    together = group.run(step, case, tower, 6, 1, torch.float64)
    assert_same(together, wanted, torch.float64)


@pytest.mark.parametrize("case", CASES)
def test_pieces_have_the_gradients_of_the_whole(case: str, group: Workers, tower: str):
    wanted = alone(case, tower, 8, 0, torch.float64)
    for pieces, chunk_size in ((4, 0), (8, 0), (4, 1)):
        together = group.run(step, case, tower, 8, chunk_size, torch.float64, pieces)
        assert_same(together, wanted, torch.float64)


@pytest.mark.parametrize("chunk_size", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_pieces_are_the_same_to_the_bit_on_any_number_of_workers(
    case: str, chunk_size: int, group: Workers, tower: str
):
    _, wanted = alone(case, tower, 8, chunk_size, torch.float32, 4, 3)
    for _, got in group.run(step, case, tower, 8, chunk_size, torch.float32, 4):
        assert got.keys() == wanted.keys()
        for name, grad in wanted.items():
            assert torch.equal(got[name], grad), name


@pytest.mark.parametrize("pieces", [0, 4])
def test_what_is_known_is_not_sent_and_numbers_go_along(pieces: int, group: Workers, tower: str):
    case = "TC-MGC as the paper has it"
    wanted = alone(case, tower, 8, 0, torch.float64)
    found = group.run(step, case, tower, 8, 0, torch.float64, pieces, 1, True)
    for terms, _ in found:
        assert terms.pop("rank").item() == sum(range(len(found)))
        assert terms.keys() == wanted[0].keys()
    assert_same(found, wanted, torch.float64)


def test_words_that_are_not_all(tower: str):
    chosen = settings("TC-MGC as the paper has it", tower)
    batch = whole_batch(4)
    words = batch.tokens.unique()[:-1]
    with pytest.raises(ValueError, match="words lack some of"):
        backward(model.build(chosen), batch, 4, model.build_objective(chosen), whole=Whole(words))


def test_without_pieces_bits_depend_on_the_workers(group: Workers, tower: str):
    """The comparison itself: shares computed at once agree to rounding, and no further."""
    case = "TC-MGC as the paper has it"
    _, wanted = alone(case, tower, 8, 0, torch.float32)
    _, got = group.run(step, case, tower, 8, 0, torch.float32)[0]
    assert any(not torch.equal(got[name], grad) for name, grad in wanted.items())


def test_pieces_that_cannot_be_dealt_out(tower: str):
    for pieces in (3, 4):
        with pytest.raises(
            ValueError, match=f"train.pieces is {pieces}: it must be a power of two"
        ):
            step("TC-MGC as the paper has it", tower, 6, 0, torch.float32, pieces)


def test_records_without_gradient_would_be_noticed(tower: str, monkeypatch: pytest.MonkeyPatch):
    """The comparison itself: videos whose records give no gradient differ by far."""
    case = "TC-MGC as the paper has it"
    wanted = alone(case, tower, 6, 0, torch.float64)
    kept = _Piece.backward_to_records

    def dropped(piece: _Piece) -> tuple[Any, Any]:
        weights, records = kept(piece)
        return weights, [None for _ in records]

    monkeypatch.setattr(_Piece, "backward_to_records", dropped)
    found = step(case, tower, 6, 0, torch.float64)
    with pytest.raises(AssertionError):
        assert_same([found], wanted, torch.float64)
