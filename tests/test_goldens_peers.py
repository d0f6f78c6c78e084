"""Similarities of the other systems from features on, against their authors' published code."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden_files
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tcmgc import config
from tcmgc.config import temporal as encoders
from tcmgc.heads import Head, Sizes, score_tiled
from tcmgc.heads.ucofia import UcofiaVideos
from tcmgc.towers import published
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training.decorrelation import ChannelDecorrelation

SEQ = encoders.Temporal(residual=True, norm_eps=1e-12)
PEERS: dict[str, tuple[str, config.HeadOptions, config.TemporalOptions]] = {
    "clip4clip_meanp": ("CLIP4Clip", config.MeanHead(), encoders.Temporal(layers=0)),
    "clip4clip_seqlstm": ("CLIP4Clip, seqLSTM", config.MeanHead(), encoders.Lstm()),
    "clip4clip_seqtransf": ("CLIP4Clip", config.MeanHead(), SEQ),
    "clip4clip_tighttransf": (
        "CLIP4Clip, tightTransf",
        config.TightHead(),
        encoders.Temporal(layers=0),
    ),
    "drl_wti": ("DRL", config.WtiHead(as_published=True), encoders.Temporal(layers=0)),
    "ts2net": (
        "TS2-Net",
        config.TokenSelectionHead(as_published=True),
        encoders.PatchTransformer(as_published=True),
    ),
    "ucofia": ("UCoFiA", config.UcofiaHead(), SEQ),
    "xclip": ("X-CLIP", config.XClipHead(), SEQ),
}
"""The system whose names the file has, its head and its temporal encoder."""
UNSCALED = ("clip4clip_tighttransf", "drl_wti")
FILES = [path for path in golden_files.found("peers/*.safetensors") if path.stem in PEERS]


def build(
    stem: str, params: dict[str, Tensor], options: Any, encoder: Any, sizes: Sizes
) -> tuple[Head, torch.nn.Module | None]:
    """Head and temporal encoder with the file's weights."""
    name = PEERS[stem][0]
    (system,) = [system for system in published.SYSTEMS if system.name == name]
    state = published.translate(params, system)
    head = options.implementation()(options, sizes).eval()
    temporal = None
    if not encoder.absent:
        temporal = encoder.implementation()(encoder, sizes.dim, sizes.frames).eval()
    for prefix, module in (("head.", head), ("temporal.", temporal)):
        own = {} if module is None else module.state_dict()
        given = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        assert own.keys() == given.keys()
        if module is not None:
            module.load_state_dict({k: v[: len(own[k])] for k, v in given.items()})
    return head, temporal


@pytest.mark.parametrize("path", FILES, ids=golden_files.label)
@torch.no_grad()
def test_similarity_from_features(path: Path) -> None:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        dims = json.loads(file.metadata()["dims"])
    params = {k[6:]: v for k, v in tensors.items() if k.startswith("param.")}
    stem, frames, words = path.stem, tensors["input.frames"], tensors["input.words"]
    mask = tensors["input.frame_mask"].bool()
    _, options, encoder = PEERS[stem]
    layers = len({name.split(".")[-3] for name in params if name.endswith("ln_1.weight")})
    if stem == "clip4clip_tighttransf":
        options = replace(options, layers=layers, heads=dims["heads"])
    elif layers:
        encoder = replace(encoder, layers=layers, heads=dims["heads"])
    tokens = tensors.get("input.patches")
    count = 0 if tokens is None else tokens.shape[1] // frames.shape[1] - 1
    sizes = Sizes(frames.shape[2], words.shape[1], frames.shape[1], count)
    head, temporal = build(stem, params, options, encoder, sizes)
    patches = None if tokens is None else tokens.unflatten(1, (frames.shape[1], -1))[:, :, 1:]
    if stem == "ts2net":  # its tokens are frames and patches in one
        frames = tokens[:, :: 1 + count]
    encoded = frames if temporal is None else temporal(frames, mask, patches)
    text = TextFeatures(tensors["input.sentence"], words, tensors["input.word_mask"].bool())
    video = VideoFeatures(frames, encoded, mask, patches)
    record = head.record(video)
    if stem == "ucofia":  # its tokens have frames of their own
        record = UcofiaVideos(record.video, record.frames, tokens @ head.token_product)
    scale = tensors["param.clip.logit_scale"].exp()
    factor = 1.0 if stem in UNSCALED else scale
    expected = tensors["output.similarity"]
    for scores in (
        head.score(text, record, scale),
        score_tiled(head, text, record, scale, memory=20_000),
    ):
        difference = (factor * scores.similarity - expected).abs().max()
        assert difference <= 1e-4 * expected.abs().max()
    if "output.train_cdcr_loss" in tensors:
        pairs = len(tensors["output.train_similarity"])
        term = ChannelDecorrelation(
            config.ChannelDecorrelation(weight=1.0, diagonal=0.16, rest=0.0, as_published=True)
        )
        model = torch.nn.Module()
        model.head = head
        found, theirs = term(model, text[:pairs], video[:pairs]), tensors["output.train_cdcr_loss"]
        assert (found - theirs).abs() <= 1e-4 * theirs.abs()
