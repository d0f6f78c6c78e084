import pytest
import torch
from torch import nn

from tcmgc.config import Temporal
from tcmgc.config.temporal import Lstm
from tcmgc.config.temporal import PatchTransformer as PatchOptions
from tcmgc.towers.backbone import load_towers
from tcmgc.towers.temporal import FrameLstm, PatchTransformer, TemporalEncoder


def encoder(**options):
    torch.manual_seed(0)
    return TemporalEncoder(Temporal(layers=2, heads=4, **options), 32, 6).double()


def test_padded_frames_are_not_looked_at():
    frames = torch.randn(2, 6, 32, dtype=torch.float64)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    changed = frames.clone()
    changed[:, 4:] = 7.0
    model = encoder()
    torch.testing.assert_close(
        model(frames, mask)[:, :4], model(changed, mask)[:, :4], rtol=0, atol=0
    )
    torch.testing.assert_close(
        model(frames[:, :4], mask[:, :4]), model(frames, mask)[:, :4], rtol=1e-12, atol=1e-12
    )


def test_attention_is_pytorchs():
    model, frames = encoder(), torch.randn(3, 6, 32, dtype=torch.float64)
    mask = torch.tensor([[True] * 6, [True] * 5 + [False], [True] + [False] * 5])
    block = model.blocks[0]
    expected, _ = block.attn(frames, frames, frames, key_padding_mask=~mask, need_weights=False)
    torch.testing.assert_close(block._attend(frames, mask), expected, rtol=1e-10, atol=1e-10)


def test_order_matters_and_residual_adds_the_input():
    frames, mask = torch.randn(1, 6, 32, dtype=torch.float64), torch.ones(1, 6, dtype=torch.bool)
    plain, residual = encoder(), encoder(residual=True)
    torch.testing.assert_close(residual(frames, mask), plain(frames, mask) + frames)
    assert not torch.allclose(plain(frames.flip(1), mask), plain(frames, mask).flip(1))


def test_start_from_the_text_tower():
    text, _, dim = load_towers("demo", None)
    model = TemporalEncoder(Temporal(layers=2, heads=4), dim, 12)
    model.initialise_from(text.transformer.resblocks, text.positional_embedding)
    torch.testing.assert_close(model.positions.weight, text.positional_embedding[:12])
    torch.testing.assert_close(
        model.blocks[1].mlp.c_fc.weight, text.transformer.resblocks[1].mlp.c_fc.weight
    )
    with pytest.raises(ValueError, match=r"text tower \(2 layers.*cannot start 3 layers"):
        TemporalEncoder(Temporal(layers=3, heads=4), dim, 12).initialise_from(
            text.transformer.resblocks, text.positional_embedding
        )


def test_heads_that_do_not_divide():
    with pytest.raises(ValueError, match="5 heads do not divide the width 32"):
        TemporalEncoder(Temporal(layers=1, heads=5), 32, 6)


def test_lstm_is_pytorchs_over_packed_frames():
    torch.manual_seed(0)
    model = FrameLstm(Lstm(), 8, 6)
    frames = torch.randn(3, 6, 8)
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    packed = nn.utils.rnn.pack_padded_sequence(frames, mask.sum(1), batch_first=True)
    out, _ = nn.utils.rnn.pad_packed_sequence(model.lstm(packed)[0], batch_first=True)
    torch.testing.assert_close(model(frames, mask), frames + out)


def over_patches(**options):
    torch.manual_seed(0)
    return PatchTransformer(PatchOptions(layers=2, heads=4, patches=2, **options), 32, 6).double()


def test_frames_see_all_patches_but_those_of_padding():
    torch.manual_seed(1)
    frames, patches = torch.randn(2, 6, 32).double(), torch.randn(2, 6, 2, 32).double()
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    model = over_patches()
    out = model(frames, mask, patches)
    short = model(frames[1:, :4], mask[1:, :4], patches[1:, :4])
    torch.testing.assert_close(out[1:, :4], short, rtol=1e-12, atol=1e-12)
    changed = patches.clone()
    changed[0, 5, 1] = torch.randn(32)
    assert not torch.allclose(model(frames, mask, changed)[0, 0], out[0, 0])
    # As published, the mask is tiled: 4 of 6 frames are kept in each third of the 18 tokens.
    tiled = over_patches(as_published=True)
    torch.testing.assert_close(tiled(frames[:1], mask[:1], patches[:1]), out[:1])
    tokens = torch.cat([frames[:, :, None], patches], dim=2).flatten(1, 2)
    kept = torch.arange(18) % 6 < 4
    expected = tiled.encode(tokens[1:], kept[None])[:, ::3]
    torch.testing.assert_close(tiled(frames, mask, patches)[1:], expected)
    assert not torch.allclose(expected, out[1:])


def test_patches_that_are_not_there():
    with pytest.raises(ValueError, match="needs the patches of a token operation"):
        over_patches()(torch.randn(1, 6, 32), torch.ones(1, 6, dtype=torch.bool))
    with pytest.raises(ValueError, match="24 tokens a video, but positions for 18"):
        over_patches()(
            torch.randn(1, 6, 32).double(),
            torch.ones(1, 6, dtype=torch.bool),
            torch.randn(1, 6, 3, 32).double(),
        )


def test_a_video_without_a_real_frame_stays_finite():
    """CenterCLIP masks every segment of a very short video; its additive mask then sees them all."""
    frames, mask = torch.randn(1, 6, 32).double(), torch.zeros(1, 6, dtype=torch.bool)
    torch.testing.assert_close(encoder()(frames, mask), encoder()(frames, ~mask))
