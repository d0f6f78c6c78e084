"""What of the towers is trained, and that encoders run as in evaluation."""

import json

import pytest
import torch

from tcmgc.config import tokens as options
from tcmgc.towers import freezing
from tcmgc.towers.backbone import load_towers


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> str:
    values = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    }
    path = tmp_path_factory.mktemp("resnet") / "frozen_resnet.json"
    path.write_text(json.dumps(values))
    return str(path)


def test_batch_normalisation_stands_still(resnet):
    """In training, a frame's feature is the same in any batch, and statistics do not move."""
    torch.manual_seed(0)
    visual = load_towers(resnet, None, freeze="none")[1].train()
    statistics = {k: v.clone() for k, v in visual.state_dict().items() if "running" in k}
    assert statistics
    pixels = torch.randint(0, 256, (2, 2, 3, 64, 64), dtype=torch.uint8)
    mask = torch.ones(2, 2, dtype=torch.bool)
    frames = visual(pixels, mask)[0]
    frames.square().sum().backward()
    torch.testing.assert_close(visual(pixels[:1], mask[:1])[0], frames[:1])
    for name, value in statistics.items():
        assert torch.equal(visual.state_dict()[name], value)
    assert visual.visual.bn1.weight.grad.abs().sum() > 0


def test_training_mode_reaches_token_operations_only():
    text, visual, _ = load_towers("demo", None, tokens=options.ShiftSelect())
    text.train(), visual.train()
    assert visual.operation.training
    assert not any(part.training for part in (*text.modules(), *visual.visual.modules()))
    assert not visual.eval().operation.training


def test_random_weights_that_would_never_learn():
    freezing.check(None, "none", learns_tokens=True)
    freezing.check("openai", "embeddings", learns_tokens=True)
    freezing.check(None, "all")
    with pytest.raises(
        ValueError, match=r"embeddings with towers.pretrained None .* set towers.freeze none"
    ):
        freezing.check(None, "embeddings")
    with pytest.raises(
        ValueError, match=r"leave the weights of the token operation \(tokens\) random"
    ):
        freezing.check("openai", "all", learns_tokens=options.ShiftSelect.learns)
