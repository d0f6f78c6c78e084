import pytest
import torch

from tcmgc.config import Temporal
from tcmgc.towers.backbone import load_towers
from tcmgc.towers.temporal import TemporalEncoder


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
