"""Heads and losses against numbers computed elsewhere, whatever sizes they have."""

import json
import re
from pathlib import Path

import golden_files
import pytest
import torch
from head_cases import tcmgc_options
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tcmgc.config import XPoolHead
from tcmgc.heads import Sizes, TcMgc, XPool, score_tiled
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training.losses import info_nce, similarity_decorrelation

BLOCK = {
    "layer_norm1": "norm_inputs",
    "layer_norm2": "norm_attended",
    "layer_norm3": "norm_output",
    "linear_proj": "linear",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
}
AGGREGATION = {
    "isa_video_word": "video_word.weight",
    "isa_sentence_frame": "sentence_frame.weight",
    "bi_isa_f3": "frame_word.first_frames.weight",
    "bi_isa_f4": "frame_word.then_words.weight",
    "bi_isa_f5": "frame_word.first_words.weight",
    "bi_isa_f6": "frame_word.then_frames.weight",
    "lsa": "aggregate.weight",
}


def each(pattern: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", golden_files.found(pattern), ids=golden_files.label)


def parameters(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, value in golden.items():
        if name.startswith("param."):
            name = name.removeprefix("param.").removeprefix("cross_attn.")
            block, _, leaf = name.partition(".")
            state[AGGREGATION[name] if not leaf else f"attention.{BLOCK[block]}.{leaf}"] = value
    return state


def all_true(features: Tensor) -> Tensor:
    return torch.ones(features.shape[:2], dtype=torch.bool)


@each("tcmgc/*.safetensors")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["f64", "f32"]
)
def test_golden_tcmgc(path: Path, dtype: torch.dtype, tolerance: float) -> None:
    golden = load_file(path)
    with safe_open(path, "pt") as opened:
        config = json.loads(opened.metadata()["config"])
    words, frames = golden["input.words"], golden["input.frames"].to(dtype)
    options = tcmgc_options(
        heads=config["heads"],
        residual=config["residual"],
        temperature=config["tau"],
        keep_rate=config["k"] / words.shape[1],
        video_word=config["video_word"],
        sentence_frame=config["sentence_frame"],
        frame_word_words=config["frame_word_words"],
        frame_word_frames=config["frame_word_frames"],
    )
    sizes = Sizes(words.shape[2], words.shape[1], frames.shape[1])
    head = TcMgc(options, sizes).to(dtype)
    head.load_state_dict(parameters(golden))
    text = TextFeatures(golden["input.sentence"].to(dtype), words.to(dtype), all_true(words))
    for prefix, mask in (
        ("", all_true(frames)),
        ("masked_", golden["input.frame_mask"].bool()),
    ):
        record = head.record(VideoFeatures(frames, frames, mask))
        for scores in (head.score(text, record), score_tiled(head, text, record)):

            def agree(
                found: Tensor,
                name: str,
                golden: dict[str, Tensor] = golden,
                file: str = path.name,
            ) -> None:
                expected = golden[f"output.{name}"].to(dtype)
                difference = (found - expected).abs().max().item()
                assert difference <= tolerance, f"{file} {name}: {difference}"

            agree(torch.stack(list(scores.grains.values()), -1), f"{prefix}grains")
            agree(scores.similarity, f"{prefix}similarity")
            pairs = min(scores.similarity.shape)
            similarity = scores.similarity[:pairs, :pairs]
            grains = {name: grain[:pairs, :pairs] for name, grain in scores.grains.items()}
            to_video, to_text = info_nce(similarity, 20.0)
            agree(to_video, f"{prefix}loss_t2v")
            agree(to_text, f"{prefix}loss_v2t")
            for kind in ("positives", "negatives", "all"):
                agree(similarity_decorrelation(grains, kind), f"{prefix}loss_sdr_{kind}")
            biased = similarity_decorrelation(grains, "positives", biased=True)
            agree(biased, f"{prefix}loss_sdr_positives_biased")


@each("peers/xpool_*.safetensors")
def test_golden_xpool(path: Path) -> None:
    golden = load_file(path)
    frames = golden["input.frames"]
    heads = int(re.search(r"heads(\d+)", path.name)[1])
    head = XPool(XPoolHead(heads=heads), Sizes(frames.shape[2], 1, frames.shape[1])).eval()
    head.load_state_dict(parameters(golden))
    if "words" in path.name:
        found = head.attention(golden["input.words"], frames, all_true(frames))
        expected = golden["output.conditioned_frames"]
        assert torch.allclose(found.permute(2, 0, 1, 3), expected, atol=1e-4), path.name
        return
    sentence = golden["input.sentence"].unsqueeze(1)
    pooled = head.attention(sentence, frames, all_true(frames))[:, 0].transpose(0, 1)
    assert torch.allclose(pooled, golden["output.pooled"], atol=1e-4), path.name
    text = TextFeatures(sentence[:, 0], sentence, all_true(sentence))
    record = head.record(VideoFeatures(frames, frames, all_true(frames)))
    similarity = head.score(text, record).similarity
    assert torch.allclose(similarity, golden["output.similarity"], atol=1e-4), path.name
