"""Whole models of the published systems at the goldens' sizes, from the goldens' own metadata."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tcmgc.config import temporal as temporal_options
from tcmgc.config import tokens as token_options
from tcmgc.towers import published
from tcmgc.towers.backbone import load_towers


@dataclasses.dataclass(frozen=True)
class Golden:
    """A file of inputs, parameters and outputs."""

    config: dict[str, Any]
    inputs: dict[str, Tensor]
    params: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @property
    def system(self) -> str:
        return self.config["adapter"]


def read(path: Path) -> Golden:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = json.loads(file.metadata()["config"])

    def part(name: str) -> dict[str, Tensor]:
        start = name + "."
        return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}

    return Golden(config, part("input"), part("param"), part("output"))


def tower_json(golden: Golden, folder: Path) -> str:
    """An open_clip JSON of the golden's CLIP."""
    c = golden.config["clip"]
    values = {
        "embed_dim": c["embed_dim"],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": c["image"],
            "patch_size": c["patch"],
            "width": c["vision_width"],
            "layers": c["vision_layers"],
            "head_width": c["vision_width"] // c["vision_heads"],
        },
        "text_cfg": {
            "context_length": c["context"],
            "vocab_size": c["vocab"],
            "width": c["text_width"],
            "heads": c["text_heads"],
            "layers": c["text_layers"],
        },
    }
    name = "golden_" + "_".join(str(v) for v in c.values())
    path = folder / f"{name}.json"
    path.write_text(json.dumps(values))
    return str(path)


def tokens(golden: Golden) -> token_options.TokenOptions:
    """The golden's token operation, with its authors' defects."""
    config = golden.config
    if golden.system in ("ts2net", "ucofia"):
        which = "video" if config.get("tree") == "eval_t2v" else "frame"
        return token_options.ShiftSelect(blocks=(10, 11), selector=which, as_published=True)
    if golden.system == "centerclip":
        return _centerclip(config)
    if config.get("linear_patch") == "3d":
        return token_options.Patch3d()
    return token_options.NoTokens()


def _centerclip(config: dict[str, Any]) -> token_options.TokenOptions:
    c = config["centerclip"]
    targets, counts = [config["frames"], *c["target_frames_blocks"]], c["cluster_num_blocks"]
    steps = [
        (block, targets[block + 1], counts[block])
        for block in range(len(counts))
        if counts[block] > 1
        and (targets[block] > targets[block + 1] or counts[max(block - 1, 0)] > counts[block])
    ]
    blocks, segments, clusters = zip(*steps, strict=True)
    algorithm = c.get("cluster_algo", "kmediods++")
    if algorithm in ("temporal_shift", "token_shift"):
        of = {"temporal_shift": "patches", "token_shift": "class"}[algorithm]
        return token_options.ChannelShift(of=of, blocks=blocks, as_published=True)
    return token_options.Cluster(
        algorithm={"kmediods++": "kmedoids"}.get(algorithm, algorithm),
        blocks=blocks,
        segments=segments,
        clusters=clusters,
        aggregation="medoid" if c.get("aggregation") in (None, "None") else "mean",
        distance=c.get("cluster_distance", "euclidean"),
        p=c.get("minkowski_norm_p", 2.0),
        normalise=bool(c.get("pre_norm", False)),
        threshold=c.get("cluster_threshold", 1e-6),
        iterations=c.get("cluster_iter_limit", 100),
        cluster_embedding=bool(c.get("cluster_embedding", 0)),
        graph={"KNN": "knn", "HeatKernel": "heat"}[c.get("spectral_graph", "HeatKernel")],
        sigma=c.get("spectral_sigma", 2.0),
        neighbours=0 if c.get("spectral_knn_k", 0) < 5 else c["spectral_knn_k"],
        spatial_temporal=bool(c.get("spectral_spg", False)),
        as_published=True,
    )


def temporal(golden: Golden) -> temporal_options.TemporalOptions | None:
    """The golden's temporal encoder; None: frames stay as they are."""
    config = golden.config
    header = config["sim_header"]
    if golden.system == "drl":
        header = config["drl"]["agg_module"]
    if header in ("meanP", "none", "None", "tightTransf", None):
        return None
    if header == "seqLSTM":
        return temporal_options.Lstm()
    common = {
        "layers": config["temporal_layers"],
        "heads": 0,
        "residual": True,
        "norm_eps": 1e-5 if golden.system == "centerclip" else 1e-12,
    }
    if golden.system == "ts2net":
        return temporal_options.PatchTransformer(**common, as_published=True)
    return temporal_options.Temporal(**common)


class Towers(torch.nn.Module):
    """Towers and temporal encoder of a golden, with its weights."""

    def __init__(self, golden: Golden, folder: Path) -> None:
        super().__init__()
        operation, encoder = tokens(golden), temporal(golden)
        frames = golden.config["frames"]
        self.text, self.visual, dim = load_towers(
            tower_json(golden, folder), None, freeze="none", tokens=operation, frames=frames
        )
        self.temporal = None
        if encoder is not None:
            left = operation.frames_after(frames)
            self.temporal = encoder.implementation()(encoder, dim, left)
        system = published.recognise(golden.params)
        assert system is not None
        self.load(published.translate(golden.params, system))

    def load(self, state: dict[str, Tensor]) -> None:
        own = self.state_dict()
        mine = {
            name: value[: len(own[name])] if name == "temporal.positions.weight" else value
            for name, value in state.items()
            if name.split(".")[0] in ("text", "visual", "temporal")
        }
        missing, unknown = self.load_state_dict(mine, strict=False)
        assert (missing, unknown) == ([], [])
