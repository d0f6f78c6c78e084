import json

import numpy as np
import pytest
import torch

from tcmgc import config, model, recipes
from tcmgc.training import frozen, optim, order
from tcmgc.training.batch import Batch
from tcmgc.training.losses import Objective
from tcmgc.training.step import backward

PAIRS, VIDEOS, FRAMES, WORDS = 12, 6, 3, 8


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    place = tmp_path_factory.mktemp("towers") / "tiny.json"
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 16, "patch_size": 16}
    text = {"context_length": 16, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
    place.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    return str(place)


def settings(tower, **changes):
    demo = recipes.recipe("demo")
    fields = {
        "towers.name": tower,
        "towers.freeze": "all",
        "data.max_frames": FRAMES,
        "data.max_words": WORDS,
        "head.reorganise.keep_rate": 0.5,
        "train.batch_size": 4,
        "train.epochs": 2,
        "train.separate_captions": False,
    }
    return config.replace(demo, {**fields, **changes})


def inputs():
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 90, (PAIRS, WORDS), generator=rng)
    tokens[torch.arange(PAIRS), torch.randint(2, WORDS, (PAIRS,), generator=rng)] = 99
    pixels = torch.randint(0, 255, (VIDEOS, FRAMES, 3, 32, 32), generator=rng, dtype=torch.uint8)
    mask = torch.ones(VIDEOS, FRAMES, dtype=torch.bool)
    mask[::2, -1] = False
    return tokens, pixels * mask[..., None, None, None], mask


def extracted(built):
    tokens, pixels, mask = inputs()
    names = [[f"{video}-{n}" for n in range(PAIRS // VIDEOS)] for video in range(VIDEOS)]
    places = {name: place for place, name in enumerate(name for one in names for name in one)}
    return frozen.extract(
        built,
        lambda start, stop: (pixels[start:stop], mask[start:stop]),
        names,
        lambda captions: tokens[[places[caption] for caption in captions]],
        batch_size=4,
    )


@pytest.mark.parametrize(
    "changes", [{}, {"head.attention.mask_frames": False}, {"temporal.layers": 0}]
)
def test_training_on_features_is_training_with_towers_that_stand_still(tower, changes):
    chosen = settings(tower, **changes)
    literal = model.build(chosen)
    split = extracted(literal)
    run = frozen.FrozenTrainer(chosen, {"train": split, "val": split})
    tokens, pixels, mask = inputs()
    o = chosen.optim
    optimiser, objective = optim.build_optimiser(literal, o), Objective(chosen.loss)
    literal.train()
    losses = []
    for step in range(3):
        optim.set_rate(optimiser, optim.rate(step, 6, o))
        optimiser.zero_grad()
        pairs = torch.from_numpy(order.batch_of(order.epoch_order(PAIRS, 0, 0), step, 4))
        videos = split.owner[pairs]
        batch = Batch(tokens[pairs], pixels[videos], mask[videos])
        losses.append(backward(literal, batch, 4, objective)["loss"].item())
        optim.clip_gradients(literal, o.clip_norm)
        optimiser.step()
    assert run.epoch()["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    mine = dict(run.model.named_parameters())
    for name, parameter in literal.named_parameters():
        torch.testing.assert_close(mine[name], parameter, rtol=1e-4, atol=1e-6)


def test_features_survive_the_file(tower, tmp_path):
    built = model.build(settings(tower))
    split = extracted(built)
    frozen.save({"train": extracted(built), "val": split}, tmp_path / "f.safetensors")
    found = frozen.load(tmp_path / "f.safetensors")
    assert set(found) == {"train", "val"}
    for name, value in found["val"].text.tensors.items():
        assert torch.equal(value, getattr(split.text, name))
    assert torch.equal(found["val"].frames, split.frames)
    assert found["val"].owner.tolist() == np.repeat(range(VIDEOS), 2).tolist()


def test_a_damaged_file_of_features_is_named(tmp_path):
    (tmp_path / "f.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no features"):
        frozen.load(tmp_path / "f.safetensors")


def test_towers_that_are_trained_are_refused(tower):
    with pytest.raises(ValueError, match=r"towers.freeze is 'none'"):
        frozen.FrozenTrainer(settings(tower, **{"towers.freeze": "none"}), {})


def test_where_nothing_learns_the_score_is_the_towers_own(tower):
    plain = settings(
        tower,
        **{
            "temporal.layers": 0,
            "head.text_conditioned": False,
            "head.grains": ["video_sentence"],
            "head.aggregate.scores": "mean",
            "head.reorganise.keep_rate": 1.0,
            "loss.alpha": 0.0,
        },
    )
    split = extracted(model.build(plain))
    run = frozen.FrozenTrainer(plain, {"train": split, "val": split})
    before = run.evaluate()
    assert run.epoch() == {}
    assert run.evaluate() == before


@pytest.mark.parametrize("separate", [False, True])
def test_fewer_pairs_make_fewer_steps_on_other_pairs_each_epoch(tower, separate):
    chosen = settings(tower, **{"train.separate_captions": separate})
    split = extracted(model.build(chosen))
    seen = []
    run = frozen.FrozenTrainer(chosen, {"train": split, "val": split}, pairs=4)
    step = run._step
    run._step = lambda optimiser, pairs: seen.append(pairs.tolist()) or step(optimiser, pairs)
    run.epoch()
    run.epoch()
    assert [len(pairs) for pairs in seen] == [4, 4]
    for epoch in (0, 1):
        expected = order.of_epoch(split.owner.numpy(), 4, 0, epoch, separate=separate)
        assert seen[epoch] == expected[:4].tolist()


def test_a_loss_that_is_not_finite_stops_the_run(tower):
    wild = settings(tower)
    split = extracted(model.build(wild))
    run = frozen.FrozenTrainer(wild, {"train": split, "val": split})
    run.model.scale.log.fill_(1000.0)
    with pytest.raises(FloatingPointError, match=r"lower optim\.lr_new"):
        run.epoch()
