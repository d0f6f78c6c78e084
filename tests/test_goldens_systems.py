"""Whole models against numbers from their authors' published code, from token ids and pixels on.

Every file in the goldens' ``systems`` folder is a test, of any size.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import golden_files
import pytest
import systems
import torch
from torch import Tensor

from tcmgc import config, model
from tcmgc.heads import score_tiled
from tcmgc.model import Retriever
from tcmgc.towers import published, weights
from tcmgc.towers.tokens import cluster as clustering
from tcmgc.towers.tokens.cluster import Cluster
from tcmgc.towers.tokens.selection import ShiftSelect
from tcmgc.training.batch import Batch
from tcmgc.training.step import backward

FILES = golden_files.found("systems/*.safetensors")


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    """Equal to a share of the largest entry."""
    assert ours.shape == theirs.shape
    largest = theirs.abs().max().item()
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=0, atol=tolerance * largest)


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> systems.Golden:
    return systems.read(request.param)


@pytest.fixture(scope="module")
def retriever(golden: systems.Golden, tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    return systems.build(golden, tmp_path_factory.mktemp("tower")).eval()


def encode(golden: systems.Golden, retriever: Retriever) -> tuple[Tensor, ...]:
    """Frames, mask, patches; padded frames' pixels are encoded as the file has them."""
    mask = golden.inputs["frame_mask"].bool()
    return retriever.visual(golden.inputs["pixels"], mask, encode_padding=True)


@torch.no_grad()
def test_towers(
    golden: systems.Golden, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = golden.outputs
    sentence, words, _ = retriever.text(golden.inputs["tokens"])
    close(sentence, out["sentence"])
    if "words" in out:
        close(words, out["words"])
    with monkeypatch.context() as patch:
        silence(patch)
        found: list[tuple[Tensor, Tensor]] = []
        if "cluster0.medoids" in out:
            record_clusters(golden, patch, found)
        frames, mask, patches = encode(golden, retriever)
    close(frames, out["frames"])
    if found:
        check_clusters(golden, found)
        assert torch.equal(mask.long(), out["frame_mask_after"])
    if "selected" in out:
        both = torch.cat([frames[:, :, None], patches], dim=2).flatten(1, 2)
        close(both, out["selected"])
        check_selection(golden, retriever, patch)
    if "temporal" in out:
        close(retriever.temporal(frames, mask, patches), out["temporal"])


UNSCALED = ("xpool", "drl")
"""Their files hold similarities without the logit scale."""


@torch.no_grad()
def test_similarity(
    golden: systems.Golden, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scale = golden.outputs, retriever.scale()
    text = retriever.encode_text(golden.inputs["tokens"])
    assert torch.equal(text.word_mask.long(), golden.inputs["text_mask"].long())

    def check(name: str, **changes: object) -> None:
        with monkeypatch.context() as patch:
            if golden.system in ("ts2net", "ucofia"):
                silence(patch)
            for method, value in changes.items():
                patch.setattr(ShiftSelect, method, value)
            if golden.config.get("ties"):
                record_clusters(golden, patch, [])
            video = retriever.encode_video(
                golden.inputs["pixels"], golden.inputs["frame_mask"].bool()
            )
        record = retriever.head.record(video)
        factor = 1.0 if golden.system in UNSCALED else scale
        whole = retriever.head.score(text, record, scale)
        tiled = score_tiled(retriever.head, text, record, scale, memory=1)
        for scores in (whole, tiled):
            tolerance = 1e-2 if name.endswith("_expected") else 1e-4
            close(factor * scores.similarity, out[name], tolerance)
        if name == "similarity" and "grains" in out:
            close(grains(golden, whole.grains, scale), out["grains"])

    check("similarity")
    if "similarity_noisy" in out:
        videos, frames, patches = (*out["tokens"].shape[:2], out["tokens"].shape[2] - 1)
        torch.manual_seed(golden.config["noise_seed"])
        noise = torch.normal(0.0, 1.0, (videos * frames, 500, patches))
        check("similarity_noisy", noise=lambda *_: noise)
        check("similarity_expected", select=lambda *_: out["selection_expected"])


def grains(golden: systems.Golden, found: dict[str, Tensor], scale: Tensor) -> Tensor:
    """The parts of a similarity, as their file has them: all with the scale but UCoFiA's patch-word."""
    unscaled = ("patch_word",)
    return torch.stack(
        [score * (1 if name in unscaled else scale) for name, score in found.items()], -1
    )


VARIANTS = {"loss": "grad", "loss_plain": "grad_plain"}


def test_loss_and_gradients(
    golden: systems.Golden, retriever: Retriever, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One training step on as many pairs as there are texts and videos."""
    out, inputs = golden.outputs, golden.inputs
    variants = {loss: grad for loss, grad in VARIANTS.items() if loss in out}
    if not variants:
        pytest.skip("this tree of the authors' code cannot train: the file has no loss")
    pairs = min(len(inputs["tokens"]), len(inputs["pixels"]))
    mask = inputs["frame_mask"][:pairs].bool()
    batch = Batch(inputs["tokens"][:pairs], inputs["pixels"][:pairs], mask)
    for loss, grad in variants.items():

        def step(loss: str = loss) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            with monkeypatch.context() as patch:
                prepare_training(golden, loss, batch, patch)
                retriever.train()
                terms = backward(retriever, batch, pairs, systems.objective(golden))
                retriever.eval()
            learnt = dict(retriever.named_parameters())
            return terms, {n: p.grad for n, p in learnt.items() if p.grad is not None}

        terms, found = step()
        close(terms["loss"], out[loss])
        if "train_decorrelation" in out and golden.config["drl"]["cdcr"]:
            share = golden.config["drl"]["cdcr_lambda"]
            close(terms["features"], share * out["train_decorrelation"])
        expected = systems.gradients(golden, grad)
        assert expected
        unlike = [name for name in expected if not same(name, found, expected[name])]
        if unlike:
            moved = movement(retriever, found, lambda: step()[1])
            least = 10 * torch.finfo(torch.float32).tiny
            off = [n for n in unlike if not same(n, found, expected[n], 3 * moved[n] + least)]
            assert not off, f"gradients of {', '.join(off)} are not the authors'"


def same(name: str, found: dict[str, Tensor], theirs: Tensor, allowed: float = 0.0) -> bool:
    """Whether a gradient is equal to a share of its largest entry, or to what is allowed."""
    ours = found[name]
    theirs = theirs[: len(ours)] if "positions" in name else theirs
    known = theirs.isfinite()
    difference = (ours[known] - theirs[known]).abs().max()
    return bool(difference <= max(1e-4 * theirs[known].abs().max().item(), allowed))


def movement(
    retriever: Retriever, found: dict[str, Tensor], gradients: Callable[[], dict[str, Tensor]]
) -> dict[str, float]:
    """How far each gradient moves when all weights do by a relative 2e-7, as float32 rounds them.

    Behind saturated softmaxes some matrices' gradients are sums that nearly cancel, down to 1e-38.
    """
    kept = {name: value.clone() for name, value in retriever.state_dict().items()}
    before = {name: gradient.clone() for name, gradient in found.items()}
    moved = dict.fromkeys(before, 0.0)
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in retriever.parameters():
                weight.mul_(1 + 2e-7 * torch.randn(weight.shape, generator=random))
        for name, gradient in gradients().items():
            moved[name] = max(moved[name], (gradient - before[name]).abs().max().item())
        retriever.load_state_dict(kept)
    return moved


def prepare_training(
    golden: systems.Golden, loss: str, batch: Batch, patch: pytest.MonkeyPatch
) -> None:
    """The random numbers of the authors' run, and their choice among ties."""
    if golden.config.get("ties"):
        record_clusters(golden, patch, [])
    if golden.system not in ("ts2net", "ucofia"):
        return
    silence(patch)
    if loss == "loss":
        rows, patches = batch.frame_mask.numel(), golden.outputs["tokens"].shape[2] - 1
        torch.manual_seed(golden.config["noise_seed"])
        noise = torch.normal(0.0, 1.0, (rows, 500, patches))
        patch.setattr(ShiftSelect, "noise", lambda *_: noise)


NAMES = {
    "clip4clip": ("CLIP4Clip", "CLIP4Clip, seqLSTM", "CLIP4Clip, tightTransf"),
    "xclip": ("X-CLIP",),
    "xpool": ("X-Pool",),
    "ts2net": ("TS2-Net",),
    "ucofia": ("UCoFiA",),
    "centerclip": ("CenterCLIP",),
    "drl": ("DRL", "CLIP4Clip"),
    "tcmgc": ("TC-MGC",),
}


@pytest.mark.parametrize("form", ["bare", "distributed", "wrapped"])
def test_files_are_recognised(golden: systems.Golden, form: str, tmp_path: Path) -> None:
    """By their names of weights, as the authors save them; as a tower's weights they are refused by name."""
    state = golden.params
    if form == "distributed":
        state = {f"module.{name}": value for name, value in state.items()}
    value = {"epoch": 1, "state_dict": state, "optimizer": {}} if form == "wrapped" else state
    torch.save(value, tmp_path / "file.bin")
    found = weights.read(tmp_path / "file.bin")
    system = published.recognise(found.tensors)
    assert system is not None
    assert system.name in NAMES[golden.system]
    with pytest.raises(ValueError, match=f"is a whole model of {system.name}"):
        weights.into_clip(torch.nn.Module(), found, "demo")


def test_a_file_of_another_method_or_size(golden: systems.Golden, tmp_path: Path) -> None:
    """Named, with the weights that do not fit."""
    torch.save(golden.params, tmp_path / "file.bin")
    settings = systems.settings(golden, tmp_path, str(tmp_path / "file.bin"))
    system = published.recognise(golden.params)
    assert system is not None
    if golden.system != "ucofia":
        other = dataclasses.replace(
            settings,
            tokens=config.ShiftSelect(),
            head=config.UcofiaHead(),
            loss=config.Loss(alpha=0.0),
        )
        with pytest.raises(ValueError, match=f"a model of {system.name} and does not fit.*head"):
            model.build(other)
    small = {
        name: value
        for name, value in golden.params.items()
        if "ln_final" not in name and "final_layer" not in name
    }
    torch.save(small, tmp_path / "file.bin")
    with pytest.raises(ValueError, match=f"{system.name} and does not fit.*missing: text.ln_final"):
        model.build(settings)


def silence(patch: pytest.MonkeyPatch) -> None:
    """Selection without noise, by the authors' own path."""
    patch.setattr(
        ShiftSelect,
        "noise",
        lambda self, rows, patches, seeds: torch.zeros(len(rows.video), 1, patches),
    )


def check_selection(
    golden: systems.Golden, retriever: Retriever, patch: pytest.MonkeyPatch
) -> None:
    """Scores and selections, without noise, with the file's noise, and with much noise."""
    out, operation = golden.outputs, retriever.visual.operation
    tokens = out["tokens"].flatten(0, 1)
    rows = clustering.Rows(torch.ones(out["tokens"].shape[:2], dtype=torch.bool))
    close(operation.score(tokens, rows), out["scores"])
    count = tokens.shape[1] - 1
    torch.manual_seed(golden.config["noise_seed"])
    noise = torch.normal(0.0, 1.0, (len(tokens), 500, count))
    patch.setattr(ShiftSelect, "noise", lambda self, rows, patches, seeds: noise)
    close(operation.select(tokens, rows, None), out["selection_noisy"])
    patch.undo()
    draws = 20
    many = [
        operation.select(tokens, rows, torch.full((len(rows.mask),), seed)) for seed in range(draws)
    ]
    share = out["selection_expected"]
    samples = 1 / (500 * draws) + 1 / (500 * golden.config["noise_draws"])
    deviation = (share * (1 - share) * samples).sqrt()
    assert ((torch.stack(many).mean(0) - share).abs() <= 5 * deviation + 1e-3).all()


def record_clusters(
    golden: systems.Golden, patch: pytest.MonkeyPatch, found: list[tuple[Tensor, Tensor]]
) -> None:
    """Keep what clustering finds; where the file's medoids are ties by rounding, put them in."""
    theirs = Cluster.cluster

    def cluster(self, points, real, clusters, length):  # type: ignore[no-untyped-def]
        assigned, places = theirs(self, points, real, clusters, length)
        if golden.config.get("ties"):
            places = by_video(golden, golden.outputs[f"cluster{len(found)}.medoids"])
        found.append((assigned, places))
        return assigned, places

    patch.setattr(Cluster, "cluster", cluster)


def by_video(golden: systems.Golden, rows: Tensor) -> Tensor:
    """Rows of all first segments, then all second ones and so on, by video."""
    return rows.unflatten(0, (-1, golden.config["videos"])).transpose(0, 1).flatten(0, 1)


def check_clusters(golden: systems.Golden, found: list[tuple[Tensor, Tensor]]) -> None:
    if golden.config.get("ties"):
        return
    for number, (assigned, places) in enumerate(found):
        theirs = golden.outputs
        assert torch.equal(places, by_video(golden, theirs[f"cluster{number}.medoids"]))
        assert torch.equal(assigned, by_video(golden, theirs[f"cluster{number}.assignment"]))
