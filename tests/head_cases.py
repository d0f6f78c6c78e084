"""Heads and features that the tests of heads share."""

from dataclasses import fields, replace
from itertools import chain, combinations
from typing import Any

import torch

from tcmgc.config import (
    GRAINS,
    Aggregate,
    Attention,
    HeadOptions,
    MeanHead,
    MeanMaxHead,
    Reorganise,
    TcMgcHead,
    TightHead,
    TokenSelectionHead,
    UcofiaHead,
    WtiHead,
    XClipHead,
    XPoolHead,
)
from tcmgc.heads import Head, Sizes, TcMgc
from tcmgc.towers.features import Scores, TextFeatures, VideoFeatures

DIM, WORDS, FRAMES, TEXTS, VIDEOS = 16, 10, 5, 4, 3


def texts(
    count: int = TEXTS, words: int = WORDS, dtype: torch.dtype = torch.float64, dim: int = DIM
) -> TextFeatures:
    generator = torch.Generator().manual_seed(1)
    sentence = torch.randn(count, dim, dtype=dtype, generator=generator)
    features = torch.randn(count, words, dim, dtype=dtype, generator=generator)
    lengths = torch.arange(count) % (words - 3) + 4
    return TextFeatures(sentence, features, torch.arange(words) < lengths[:, None])


def videos(
    count: int = VIDEOS,
    frames: int = FRAMES,
    dtype: torch.dtype = torch.float64,
    dim: int = DIM,
    patches: int = 0,
) -> VideoFeatures:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(count, frames, dim, dtype=dtype, generator=generator)
    lengths = frames - torch.arange(count) % frames
    mask = torch.arange(frames) < lengths[:, None]
    found = None
    if patches:
        found = torch.randn(count, frames, patches, dim, dtype=dtype, generator=generator)
    return VideoFeatures(features, features + 0.1, mask, found)


def shaken(head: Head, dtype: torch.dtype = torch.float64) -> Any:
    """Away from identities and zeros, so that every parameter matters."""
    generator = torch.Generator().manual_seed(3)
    head = head.to(dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, dtype=dtype, generator=generator)
    return head


SIZES = Sizes(DIM, WORDS, FRAMES)
PATCHES = 2
PEERS: dict[str, HeadOptions] = {
    "X-Pool": XPoolHead(heads=2, dropout=0.0),
    "X-CLIP": XClipHead(),
    "mean": MeanHead(),
    "tight": TightHead(layers=2, heads=2),
    "WTI": WtiHead(),
    "WTI as published": WtiHead(as_published=True, layers=1),
    "TI": WtiHead(weights="equal"),
    "token selection": TokenSelectionHead(),
    "token selection as published": TokenSelectionHead(as_published=True),
    "UCoFiA": UcofiaHead(temperature=0.1),
    "UCoFiA, evaluation tree": UcofiaHead(tree="eval"),
    "mean-max": MeanMaxHead(),
}
"""All heads but TC-MGC's."""


def peer(name: str) -> Any:
    """A head of another system, in evaluation mode, away from its starting weights."""
    options = PEERS[name]
    return shaken(options.implementation()(options, replace(SIZES, patches=PATCHES))).eval()


RELEASED: dict[str, Any] = {
    "projections": False,
    "mask_frames": False,
    "learnt_products": True,
    "temperature": 0.01,
    "lsa_on_logits": True,
}
"""The reading in the paper's released code, without its dropout."""


def tcmgc_options(**flat: Any) -> TcMgcHead:
    """TC-MGC's options from the names of their fields, whichever part they are of."""
    parts: dict[str, Any] = {}
    for name, kind in (
        ("attention", Attention),
        ("reorganise", Reorganise),
        ("aggregate", Aggregate),
    ):
        known = [field.name for field in fields(kind) if field.name in flat]
        parts[name] = kind(**{field: flat.pop(field) for field in known})
    return TcMgcHead(**parts, **flat)


def make(dim: int = DIM, words: int = WORDS, frames: int = FRAMES, **options: Any) -> TcMgc:
    options = {"keep_rate": 0.3} | options
    return shaken(TcMgc(tcmgc_options(**options), Sizes(dim, words, frames)))


MODES = ("none", "remove", "fuse")
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "heads 2": {"heads": 2},
    "heads 4": {"heads": 4},
    "heads 8": {"heads": 8},
    "no residual": {"residual": False},
    "released": RELEASED,
    "no projections, heads": {"projections": False, "heads": 4},
    "softmax vectors": {"vectors": "softmax", "temperature": 0.3},
    "softmax scores": {"scores": "softmax"},
    "mean scores": {"scores": "mean"},
    "frames unmasked": {"mask_frames": False},
    "large k": {"keep_rate": 0.9},
    "k = m": {"keep_rate": 1.0, "sentence_frame": "remove"},
    **{f"words {a}, frames {b}": {"frame_word_words": a, "frame_word_frames": b} for a in MODES for b in MODES},
    **{f"vector {mode}": {"video_word": mode, "sentence_frame": mode} for mode in MODES},
}  # fmt: skip
SUBSETS = list(chain.from_iterable(combinations(GRAINS, size) for size in (1, 2, 3, 4)))


def agree(found: Scores, expected: Scores, tolerance: float) -> None:
    assert found.grains.keys() == expected.grains.keys()
    for name, grain in expected.grains.items():
        assert (found.grains[name] - grain).abs().max() <= tolerance, name
    assert (found.similarity - expected.similarity).abs().max() <= tolerance
