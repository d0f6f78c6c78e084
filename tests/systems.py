"""Whole models of the published systems at the goldens' sizes, from the goldens' own metadata."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tcmgc import config, model
from tcmgc.config import temporal as temporal_options
from tcmgc.config import tokens as token_options
from tcmgc.towers import published
from tcmgc.training.losses import Objective


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
    c = golden.config
    if golden.system in ("ts2net", "ucofia"):
        which = "video" if c.get("tree") == "eval_t2v" else "frame"
        return token_options.ShiftSelect(blocks=(10, 11), selector=which, as_published=True)
    if golden.system == "centerclip":
        return _centerclip(c)
    if c.get("linear_patch") == "3d":
        return token_options.Patch3d()
    return token_options.NoTokens()


def _centerclip(whole: dict[str, Any]) -> token_options.TokenOptions:
    c = whole["centerclip"]
    targets, counts = [whole["frames"], *c["target_frames_blocks"]], c["cluster_num_blocks"]
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
    c = golden.config
    header = c["sim_header"]
    if golden.system == "drl":
        header = c["drl"]["agg_module"]
    if header in ("meanP", "none", "None", "tightTransf", None):
        return None
    if header == "seqLSTM":
        return temporal_options.Lstm()
    common = {
        "layers": c["temporal_layers"],
        "heads": 0,
        "residual": True,
        "norm_eps": 1e-5 if golden.system == "centerclip" else 1e-12,
    }
    if golden.system == "ts2net":
        return temporal_options.PatchTransformer(**common, as_published=True)
    return temporal_options.Temporal(**common)


def head(golden: Golden) -> config.HeadOptions:
    """The golden's scoring rule, with its authors' defects and without dropout."""
    c = golden.config
    if golden.system == "xpool":
        return config.XPoolHead(heads=c["mha_heads"], dropout=0.0)
    if golden.system == "xclip":
        return config.XClipHead()
    if golden.system == "tcmgc":
        return _tcmgc(c["tcmgc"])
    if golden.system == "ucofia":
        return config.UcofiaHead(tree="train" if c["tree"] == "train" else "eval")
    if golden.system == "ts2net":
        return config.TokenSelectionHead(as_published=True)
    if golden.system == "drl" and c["drl"]["interaction"] in ("ti", "wti"):
        weights = {"ti": "equal", "wti": "learnt"}[c["drl"]["interaction"]]
        return config.WtiHead(weights=weights, layers=c["drl"]["wti_arch"], as_published=True)
    if c["sim_header"] == "tightTransf":
        return config.TightHead(layers=c["temporal_layers"], dropout=0.0)
    return config.MeanHead()


def _tcmgc(c: dict[str, Any]) -> config.TcMgcHead:
    tau = 1 / c["softmax_lambda"]
    return config.TcMgcHead(
        grains=tuple(config.GRAINS[int(n) - 1] for n in c["interaction_type"].split(",")),
        attention=config.Attention(
            heads=c["num_mha_heads"], projections=False, mask_frames=False, initialise="normal"
        ),
        reorganise=config.Reorganise(keep_rate=c["keep_rate"]),
        aggregate=config.Aggregate(temperature=tau, lsa_on_logits=True),
        learnt_products=True,
    )


def loss(golden: Golden) -> config.Loss:
    """The golden's loss."""
    c = golden.config
    if c["sim_header"] == "tightTransf":
        return config.Loss(alpha=0.0, directions="mean", scale=1.0)
    common: dict[str, Any] = {"directions": "mean", "scale": 20.0, "learn_scale": True}
    if golden.system == "tcmgc":
        alpha = c["tcmgc"]["sdr_loss_weight"] if c["tcmgc"]["sdr_loss_flag"] else 0.0
        return config.Loss(alpha=alpha, sdr_on_logits=True, **common)
    if golden.system == "drl" and c["drl"]["cdcr"]:
        d = c["drl"]
        common["term"] = config.ChannelDecorrelation(
            of={1: "pooled", 2: "tokens", 3: "weighted_tokens"}[d["cdcr"]],
            weight=d["cdcr_lambda"],
            diagonal=d["cdcr_alpha1"],
            rest=d["cdcr_alpha2"],
            as_published=True,
        )
    return config.Loss(alpha=0.0, **common)


def build(golden: Golden, folder: Path) -> model.Retriever:
    """The golden's model with its weights, from a file as its authors save it."""
    path = folder / "published.bin"
    torch.save(golden.params, path)
    return model.build(settings(golden, folder, str(path)))


def settings(golden: Golden, folder: Path, pretrained: str | None) -> config.Config:
    """The golden's method and sizes."""
    return config.Config(
        data=config.Data(
            dataset="demo",
            root="nowhere",
            max_words=golden.config["words"],
            max_frames=golden.config["frames"],
        ),
        towers=config.Towers(name=tower_json(golden, folder), pretrained=pretrained, freeze="none"),
        tokens=tokens(golden),
        temporal=temporal(golden) or config.Temporal(layers=0),
        head=head(golden),
        loss=loss(golden),
    )


def objective(golden: Golden) -> Objective:
    """The golden's loss, as a step takes it."""
    return Objective(loss(golden))


def gradients(golden: Golden, variant: str) -> dict[str, Tensor]:
    """Gradients of a variant of the loss under our names; NaN where the file has none for a part of a weight."""
    start = f"{variant}."
    given = {k[len(start) :]: v for k, v in golden.outputs.items() if k.startswith(start)}
    for name, value in list(given.items()):
        for one, other in itertools.permutations(("q_proj", "k_proj", "v_proj"), 2):
            if f"self_attn.{one}." in name:  # transformers' projections are one weight here
                given.setdefault(name.replace(one, other), torch.full_like(value, torch.nan))
    system = published.recognise(golden.params)
    assert system is not None
    return published.translate(given, system)
