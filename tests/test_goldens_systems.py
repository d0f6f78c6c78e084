"""Whole models against numbers from their authors' published code, from token ids and pixels on.

Every file in the goldens' ``systems`` folder is a test, of any size.
"""

import golden_files
import pytest
import systems
import torch
from torch import Tensor

from tcmgc.towers import published, weights
from tcmgc.towers.tokens import cluster as clustering
from tcmgc.towers.tokens.cluster import Cluster
from tcmgc.towers.tokens.selection import ShiftSelect

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
def towers(golden: systems.Golden, tmp_path_factory: pytest.TempPathFactory) -> systems.Towers:
    return systems.Towers(golden, tmp_path_factory.mktemp("tower")).eval()


def encode(golden: systems.Golden, towers: systems.Towers) -> tuple[Tensor, ...]:
    """Frames, mask, patches; padded frames' pixels are encoded as the file has them."""
    mask = golden.inputs["frame_mask"].bool()
    return towers.visual(golden.inputs["pixels"], mask, encode_padding=True)


@torch.no_grad()
def test_towers(
    golden: systems.Golden, towers: systems.Towers, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = golden.outputs
    sentence, words, _ = towers.text(golden.inputs["tokens"])
    close(sentence, out["sentence"])
    if "words" in out:
        close(words, out["words"])
    with monkeypatch.context() as patch:
        silence(patch)
        found: list[tuple[Tensor, Tensor]] = []
        if "cluster0.medoids" in out:
            record_clusters(golden, patch, found)
        frames, mask, patches = encode(golden, towers)
    close(frames, out["frames"])
    if found:
        check_clusters(golden, found)
        assert torch.equal(mask.long(), out["frame_mask_after"])
    if "selected" in out:
        both = torch.cat([frames[:, :, None], patches], dim=2).flatten(1, 2)
        close(both, out["selected"])
        check_selection(golden, towers, patch)
    if "temporal" in out:
        close(towers.temporal(frames, mask, patches), out["temporal"])


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


def silence(patch: pytest.MonkeyPatch) -> None:
    """Selection without noise, by the authors' own path."""
    patch.setattr(
        ShiftSelect,
        "noise",
        lambda self, rows, patches, seeds: torch.zeros(len(rows.video), 1, patches),
    )


def check_selection(
    golden: systems.Golden, towers: systems.Towers, patch: pytest.MonkeyPatch
) -> None:
    """Scores and selections, without noise, with the file's noise, and with much noise."""
    out, operation = golden.outputs, towers.visual.operation
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
