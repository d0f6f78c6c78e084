"""Names of weights in published systems, and their names here: one small table per system.

A table is a list of (pattern, name). The first pattern that matches the start of a name applies; the
rest of the name stays. A name of None: their code stores the weight and never uses it. A name that
ends in "^T": the weight is transposed, because their code multiplies from the left.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Table = tuple[tuple[str, str | None], ...]
State = dict[str, Tensor]

CLIP: Table = (
    (r"clip\.visual\.position_ids$", None),
    (r"clip\.(text|vision)_model\.embeddings\.position_ids$", None),
    (r"clip\.visual\.conv2\.weight$", "visual.operation.weight"),
    (r"clip\.visual\.transformer\.resblocks\.\d+\.tokencluster_inter\.spg$", None),
    (
        r"clip\.visual\.transformer\.resblocks\.(\d+)\.tokencluster_inter\.cluster_embed$",
        r"visual.operation.embeddings.\1",
    ),
    (
        r"clip\.visual\.transformer\.resblocks\.(\d+)\.attn\.net\.",
        r"visual.visual.transformer.resblocks.\1.attn.",
    ),
    (r"clip\.visual\.", "visual.visual."),
    (r"clip\.logit_scale$", "scale.log"),
    (r"clip\.", "text."),
)
"""The towers, in every system."""

FRAMES: Table = (
    (r"frame_position_embeddings\.", "temporal.positions."),
    (r"transformerClip\.resblocks\.", "temporal.blocks."),
)
"""CLIP4Clip's seqTransf, in most systems."""

SELECTION: Table = (
    (r"visual_token_selector\.score_predictor\.in_conv\.0\.", "visual.operation.score.norm."),
    (r"visual_token_selector\.score_predictor\.in_conv\.1\.", "visual.operation.score.local."),
    (r"visual_token_selector\.score_predictor\.out_conv\.0\.", "visual.operation.score.both."),
    (r"visual_token_selector\.score_predictor\.out_conv\.2\.", "visual.operation.score.out."),
    (r"visual_prompt_encoder\.", None),
    (r"text_token_selector\.", None),
)
"""TS2-Net's selector, also used by UCoFiA."""


def _block(start: str) -> Table:
    """X-Pool's attention block below ``start``."""
    names = {
        "cross_attn.q_proj": "query",
        "cross_attn.k_proj": "key",
        "cross_attn.v_proj": "value",
        "cross_attn.out_proj": "out",
        "layer_norm1": "norm_inputs",
        "layer_norm2": "norm_attended",
        "layer_norm3": "norm_output",
        "linear_proj": "linear",
    }
    return tuple(
        (re.escape(f"{start}.{theirs}."), f"head.attention.{ours}.")
        for theirs, ours in names.items()
    )


TCMGC: Table = (
    (r"conditional_transformer\.pool_frames\.cross_attn\.", None),
    *_block("conditional_transformer.pool_frames"),
    (r"global_mat_weight$", "head.sentence_product"),
    (r"local_mat_weight$", "head.word_product"),
    (r"attentive_word_logit_weight$", "head.video_word.weight^T"),
    (r"concat_frame_word_logit_weight$", "head.sentence_frame.weight^T"),
    (r"attentive_word_mat_weight$", "head.frame_word.first_words.weight^T"),
    (r"attentive_frame_word_mat_weight2$", "head.frame_word.then_frames.weight^T"),
    (r"attentive_frame_word_mat_weight$", "head.frame_word.first_frames.weight^T"),
    (r"attentive_word_mat_weight2$", "head.frame_word.then_words.weight^T"),
    (r"logit_weight$", "head.aggregate.weight^T"),
)
XCLIP: Table = (
    (r"global_mat_weight$", "head.sentence_product"),
    (r"local_mat_weight$", "head.word_product"),
    (r"word_logit_weight$", "head.video_word"),
    (r"frame_logit_weight$", "head.sentence_frame"),
    (r"word_mat_weight$", "head.first_words"),
    (r"frame_mat_weight2$", "head.then_frames"),
    (r"frame_mat_weight$", "head.first_frames"),
    (r"word_mat_weight2$", "head.then_words"),
)
UCOFIA: Table = (
    (r"global_mat_weight$", "head.sentence_product"),
    (r"global_mat_weight_1$", "head.video_product"),
    (r"local_mat_weight$", "head.word_product"),
    (r"local_mat_weight1$", "head.token_product"),
    (r"frame_logit_weight$", "head.frame_sentence"),
    (r"word_mat_weight$", "head.first_words"),
    (r"pixel_mat_weight2$", "head.then_tokens"),
    (r"pixel_mat_weight$", "head.first_tokens"),
    (r"word_mat_weight2$", "head.then_words"),
    (r"(word_logit_weight|frame_mat_weight2?|word_mat_weight_for_pixel)$", None),
)
DRL: Table = (
    (r"text_weight_fc\.(?=weight|bias)", "head.word_network.0."),
    (r"video_weight_fc\.(?=weight|bias)", "head.frame_network.0."),
    (r"text_weight_fc\.", "head.word_network."),
    (r"video_weight_fc\.", "head.frame_network."),
)
TIGHT: Table = (
    (r"clip\.logit_scale$", None),
    (r"cross\.embeddings\.position_embeddings\.", "head.positions."),
    (r"cross\.transformer\.resblocks\.", "head.blocks."),
    (r"cross\.pooler\.ln_pool\.", "head.norm."),
    (r"cross\.pooler\.dense\.", "head.dense."),
    (r"similarity_dense\.", "head.out."),
)
"""Its scores do not use the scale that its files contain."""


@dataclass(frozen=True)
class System:
    """A published system's files."""

    name: str
    table: Table
    """Table of its own weights, tried before the towers' table."""
    marks: tuple[str, ...]
    """Its files are recognised by weights whose names begin with these."""


SYSTEMS: tuple[System, ...] = (
    System("TC-MGC", FRAMES + TCMGC, ("conditional_transformer.pool_frames.",)),
    System("X-Pool", _block("pool_frames"), ("pool_frames.",)),
    System("TS2-Net", FRAMES + SELECTION, ("visual_token_selector.", "text_token_selector.")),
    System("UCoFiA", FRAMES + SELECTION + UCOFIA, ("visual_token_selector.", "pixel_mat_weight")),
    System("X-CLIP", FRAMES + XCLIP, ("local_mat_weight", "word_logit_weight")),
    System("DRL", FRAMES + DRL, ("text_weight_fc.",)),
    System(
        "CLIP4Clip, seqLSTM",
        ((r"lstm_visual\.", "temporal.lstm."), (r"frame_position_embeddings\.", None)),
        ("lstm_visual.",),
    ),
    System("CLIP4Clip, tightTransf", TIGHT, ("cross.transformer.",)),
    System("CenterCLIP", FRAMES, ("clip.visual.position_ids",)),
    System("CLIP4Clip", FRAMES, ("clip.",)),
)
"""More specific marks come first. DRL's TI has CLIP4Clip's names and is read as CLIP4Clip."""


def recognise(names: Mapping[str, object]) -> System | None:
    """The system whose files have weights of these names; None if there is none."""
    for system in SYSTEMS:
        if all(any(name.startswith(mark) for name in names) for mark in ("clip.", *system.marks)):
            return system
    return None


def translate(state: State, system: System) -> State:
    """A published state dict under our names, without weights that the authors' code never uses."""
    if any(name.startswith("clip.vision_model.") for name in state):
        inner = {name[5:]: value for name, value in state.items() if name.startswith("clip.")}
        others = {name: value for name, value in state.items() if not name.startswith("clip.")}
        state = {f"clip.{name}": value for name, value in from_huggingface(inner).items()} | others
    table = [(re.compile(pattern), name) for pattern, name in (*system.table, *CLIP)]
    out: State = {}
    for theirs, value in state.items():
        found = next(((p, name) for p, name in table if p.match(theirs)), None)
        if found is None:
            out[theirs] = value  # keeps its name, so that it is reported as unknown
        elif (name := found[1]) is not None:
            ours = found[0].sub(name.removesuffix("^T"), theirs, count=1)
            out[ours] = value.T if name.endswith("^T") else value
    return out


_HF_BLOCK: Table = (
    ("self_attn.out_proj.", "attn.out_proj."),
    ("layer_norm1.", "ln_1."),
    ("layer_norm2.", "ln_2."),
    ("mlp.fc1.", "mlp.c_fc."),
    ("mlp.fc2.", "mlp.c_proj."),
)
_HF_TOWERS: Table = (
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("logit_scale", "logit_scale"),
)


def from_huggingface(state: State) -> State:
    """The weights of transformers' ``CLIPModel`` under OpenAI's names, which open_clip uses, too.

    Query, key and value projections are concatenated; projections to the joint space are transposed.

    Raises:
        ValueError: names that a ``CLIPModel`` does not have.
    """
    out: State = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.endswith("embeddings.position_ids"):
            continue
        if name in ("text_projection.weight", "visual_projection.weight"):
            out[{"t": "text_projection", "v": "visual.proj"}[name[0]]] = value.T.contiguous()
            continue
        block = re.match(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.*)", name)
        if block:
            tower, number, rest = block.groups()
            prefix = f"{'visual.' if tower == 'vision' else ''}transformer.resblocks.{number}."
            part = re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", rest)
            if part:
                parts.setdefault(f"{prefix}attn.in_proj_{part[2]}", {})[part[1]] = value
                continue
            table, ours = _HF_BLOCK, prefix
        else:
            table, ours, rest = _HF_TOWERS, "", name
        match = [(old, new) for old, new in table if rest.startswith(old)]
        if not match:
            raise ValueError(f"transformers' CLIPModel has no weight named {name}")
        old, new = match[0]
        out[f"{ours}{new}{rest[len(old) :]}"] = value
    for name, three in parts.items():
        out[name] = torch.cat([three[which] for which in "qkv"])
    return out
