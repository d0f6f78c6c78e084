"""Heads in float32, in C++ and compiled, against float64 and each other."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from head_cases import FRAMES, SIZES, VARIANTS, VIDEOS, agree, make, texts, videos

from tcmgc.config import XClipHead
from tcmgc.heads import TcMgc, XClip, native, score_tiled
from tcmgc.heads.literal import literal_score
from tcmgc.heads.native.library import library
from tcmgc.heads.parts.compile import can_compile
from tcmgc.heads.parts.lanes import largest
from tcmgc.towers.features import TextFeatures, VideoFeatures

ADVERSARIAL: dict[str, Any] = {
    "identical frames": lambda f: f[:, :1].expand_as(f).clone(),
    "nearly identical frames": lambda f: f[:, :1] + 1e-4 * f,
    "opposite frames": lambda f: torch.cat([f[:, :2], -f[:, :2], f[:, :1]], 1),
    "large norms": lambda f: 1e4 * f,
    "small norms": lambda f: 1e-3 * f,
    "one value": lambda f: torch.ones_like(f),
}


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("name", [*ADVERSARIAL, "one frame", "one-hot attention", "even attention"])
def test_float32_stays_close_to_float64(name: str, heads: int) -> None:
    head, text, video = make(heads=heads), texts(), videos()
    mask, features = video.frame_mask, video.encoded
    if name == "one frame":
        mask = torch.arange(FRAMES) < torch.ones(VIDEOS, 1)
    elif name in ADVERSARIAL:
        features = ADVERSARIAL[name](features)
        mask = torch.ones_like(mask)
    with torch.no_grad():
        head.attention.query.weight *= {"one-hot attention": 1e3}.get(name, 1.0)
        if name in ("even attention", "opposite frames"):
            for parameter in (*head.attention.query.parameters(), head.attention.value.bias,
                              head.attention.out.bias, head.attention.norm_inputs.bias):  # fmt: skip
                parameter.zero_()
    exact = literal_score(head, text, VideoFeatures(features, features, mask))
    head.float()
    low = VideoFeatures(features.float(), features.float(), mask)
    small = TextFeatures(text.sentence.float(), text.words.float(), text.word_mask)
    record = head.record(low)
    with torch.no_grad():
        scores = [score_tiled(head, small, record, compile=way) for way in (None, False)]
    for found in (head.score(small, record), *scores):
        for grain, expected in zip(found.grains.values(), exact.grains.values(), strict=True):
            assert (grain - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert (
            found.similarity - exact.similarity
        ).abs().max() <= 1e-4 * exact.similarity.abs().max()
    gradients = torch.autograd.grad(
        head.score(small, head.record(low)).similarity.sum(), list(head.parameters())
    )
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_bfloat16_operands_keep_scores_close() -> None:
    head, text, video = make(), texts(), videos()
    head.float()
    text = TextFeatures(text.sentence.float(), text.words.float(), text.word_mask)
    record = head.record(
        VideoFeatures(video.frames.float(), video.encoded.float(), video.frame_mask)
    )
    exact, low = (score_tiled(head, text, record, bf16=flag).similarity for flag in (False, True))
    assert low.dtype == torch.float32
    assert 0 < (exact - low).abs().max() < 2e-2
    clip = XClip(XClipHead(), SIZES)
    record = clip.record(videos(dtype=torch.float32))
    with pytest.raises(ValueError, match="bfloat16"):
        score_tiled(clip, text, record, bf16=True)


COMPILED = """
import torch
from tcmgc.config import Attention, Reorganise, TcMgcHead
from tcmgc.heads import Sizes, TcMgc, score_tiled
from tcmgc.towers.features import TextFeatures, VideoFeatures
torch.set_num_threads(1)
draw = lambda *shape: torch.randn(*shape, dtype=torch.float64)
for heads, frames in ((2, 2),):
    options = TcMgcHead(attention=Attention(heads=heads), reorganise=Reorganise(keep_rate=0.4))
    head = TcMgc(options, Sizes(8, 3, frames)).double()
    text = TextFeatures(draw(5, 8), draw(5, 3, 8), torch.ones(5, 3) > 0)
    seen = draw(5, frames, 8)
    record = head.record(VideoFeatures(seen, seen, torch.ones(5, frames) > 0))
    expected = score_tiled(head, text, record, compile=False)
    # Two rows and two columns of tiles, filled up to one shape.
    memory = 9 * head.pair_bytes(head.prepare_texts(text), record)
    found = score_tiled(head, text, record, memory=memory, compile=True)
    assert (found.similarity - expected.similarity).abs().max() < 1e-10
    for name, grain in expected.grains.items():
        assert (found.grains[name] - grain).abs().max() < 1e-10, name
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 4
"""


needs_compiler = pytest.mark.skipif(
    not native.available(torch.empty(0)), reason="needs a C++ compiler"
)


@needs_compiler
def test_compiled_equals_eager() -> None:
    # In a process of its own: torch.compile cannot follow the checks of shapes made under pytest.
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_without_a_compiler_scoring_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    head, text, video = make(), texts(), videos()
    record = head.record(video)
    can_compile.cache_clear()
    monkeypatch.setattr(torch, "compile", fail)
    with pytest.warns(UserWarning, match="the same result, more slowly"):
        found = score_tiled(head, text, record, compile=True)
    can_compile.cache_clear()
    agree(found, score_tiled(head, text, record), 0)


def single(text: TextFeatures, video: VideoFeatures) -> tuple[TextFeatures, VideoFeatures]:
    return (
        TextFeatures(text.sentence.float(), text.words.float(), text.word_mask),
        VideoFeatures(video.frames.float(), video.encoded.float(), video.frame_mask),
    )


@needs_compiler
@pytest.mark.parametrize("mask_words", [False, True])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_native_scores_equal_literal_ones(options: dict[str, Any], mask_words: bool) -> None:
    head = make(**options, mask_words=mask_words).eval()
    # More videos than a vector holds, and not a multiple of it; fewer words than k in one text.
    text, video = texts(4), videos(19)
    text.word_mask[0, 2:] = False
    expected = (
        head.score(text, head.record(video)) if mask_words else literal_score(head, text, video)
    )
    head.float()
    small, low = single(text, video)
    with torch.no_grad():
        agree(score_tiled(head, small, head.record(low)), expected, 5e-6)


@needs_compiler
@pytest.mark.parametrize("mode", ["remove", "fuse"])
def test_native_scores_with_equal_words(mode: str) -> None:
    head = make(video_word=mode, sentence_frame=mode, frame_word_words=mode, frame_word_frames=mode)
    text, video = texts(2), videos(9)
    text.words[:, 1:] = text.words[:, :1]
    expected = literal_score(head, text, video)
    head.float()
    small, low = single(text, video)
    with torch.no_grad():
        agree(score_tiled(head, small, head.record(low)), expected, 5e-6)


@needs_compiler
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("words", "frames"), [(10, 1), (11, 2), (12, 3), (26, 12), (47, 5)])
@pytest.mark.parametrize("bf16", [False, True])
def test_native_products_of_any_size(words: int, frames: int, heads: int, bf16: bool) -> None:
    # Rows that fill the registers, that leave some over, that take several goes; an odd last frame.
    head = make(words=words, frames=frames, heads=heads).float()
    text, video = single(texts(3, words=words), videos(37, frames=frames))
    with torch.no_grad():
        record = head.record(video)
        found = score_tiled(head, text, record, bf16=bf16)
        with native.off():
            expected = score_tiled(head, text, record, bf16=bf16)
    # Products in bfloat16 have eight bits, of sums in another order.
    agree(found, expected, 2e-2 if bf16 else 5e-6)


def gradients(head: TcMgc, text: TextFeatures, video: VideoFeatures) -> list[torch.Tensor]:
    leaves = [text.sentence, text.words, video.encoded]
    for leaf in leaves:
        leaf.requires_grad_()
    similarity = head.score(text, head.record(video)).similarity
    weights = torch.arange(similarity.numel(), dtype=similarity.dtype).sin().view_as(similarity)
    return list(torch.autograd.grad((weights * similarity).sum(), [*leaves, *head.parameters()]))


@needs_compiler
@pytest.mark.parametrize(
    "options", [{}, {"heads": 2}, {"residual": False}, {"heads": 4, "frames": 7}]
)
@pytest.mark.parametrize("count", [1, 8, 19])
def test_native_gradients_equal_those_of_float64(options: dict[str, Any], count: int) -> None:
    head = make(**options)
    text, video = texts(3), videos(count, frames=head.frames)
    exact = gradients(head, text, video)
    head.float()
    small, low = single(text, video)
    given = [TextFeatures(*(x.detach() for x in (small.sentence, small.words)), text.word_mask),
             VideoFeatures(low.frames.detach(), low.encoded.detach(), video.frame_mask)]  # fmt: skip
    found = gradients(head, *given)
    with native.off():
        plain = gradients(head, *given)
    scale = max(gradient.norm().item() for gradient in exact)
    for mine, torchs, expected in zip(found, plain, exact, strict=True):
        allowed = 1e-5 * expected.norm().item() + 1e-6 * scale
        assert (mine - expected).norm() <= allowed
        assert (torchs - expected).norm() <= allowed
    assert not all(torch.equal(mine, torchs) for mine, torchs in zip(found, plain, strict=True))


@needs_compiler
def test_native_results_do_not_depend_on_threads() -> None:
    head, (text, video) = make().float(), single(texts(5), videos(19))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            scores = score_tiled(head, text, head.record(video)).similarity
            found.append([scores, *gradients(head, text, video)])
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-6, atol=1e-7)


def test_without_a_compiler_torch_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    head, (text, video) = make().float(), single(texts(), videos())
    record = head.record(video)
    with native.off():
        expected = score_tiled(head, text, record)
    monkeypatch.setenv("CXX", "/no/such/compiler")
    library.cache_clear()
    try:
        with pytest.warns(UserWarning, match="the same result, more slowly"):
            found = score_tiled(head, text, record)
    finally:
        library.cache_clear()
    agree(found, expected, 0)


@needs_compiler
@pytest.mark.parametrize("dim", [-3, -2])
@pytest.mark.parametrize("kept", [1, 4, 6])
def test_native_largest_and_their_gradient(dim: int, kept: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # Whole numbers: equal values everywhere, also across the cut.
    values = torch.randint(4, (3, 6, 6, 11), generator=generator).float().requires_grad_()
    top = largest(values, kept, dim)
    assert torch.equal(top, values.topk(kept, dim).values)
    weights = torch.randn(top.shape, generator=generator)
    found = torch.autograd.grad((weights * largest(values, kept, dim)).sum(), values)[0]
    exact = values.detach().double().requires_grad_()
    expected = torch.autograd.grad((weights * largest(exact, kept, dim)).sum(), exact)[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
