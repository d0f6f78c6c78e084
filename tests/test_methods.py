"""Methods as functions from config to config."""

import json
from dataclasses import replace

import pytest
import torch
from small_tower import FRAMES, TOWER, WORDS
from test_step import whole_batch

from tcmgc import config, model, recipes
from tcmgc.config import Config, from_dict, to_dict
from tcmgc.recipes import methods
from tcmgc.training.step import backward

BASES = ("demo", "msrvtt_9k", "msrvtt_9k_b16", "didemo", "vatex", "activitynet", "table")


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_method_goes_on_every_recipe(name: str) -> None:
    for base in (recipes.recipe(recipe) for recipe in BASES):
        for fair in (True, False):
            found = recipes.applied(base, name, fair=fair)
            assert from_dict(to_dict(found)) == found
            assert found.data.dataset == base.data.dataset
            assert found.towers.name == base.towers.name
            assert methods.note(base, name, fair=fair).startswith(f"{name}: ")
        fair_one = recipes.applied(base, name, fair=True)
        same = replace(
            base,
            **{part: getattr(fair_one, part) for part in ("tokens", "temporal", "head", "loss")},
        )
        assert fair_one == same  # nothing but the parts


def on_small_tower(name: str, path: str) -> Config:
    """The method's parts on a tower of two blocks."""
    demo = recipes.applied(recipes.demo(), name, fair=True)
    data = replace(demo.data, max_words=WORDS, max_frames=FRAMES)
    own = methods.find(name).loss  # not the demo's small form
    loss = replace(own, scale=min(own.scale, 20.0))
    found = replace(demo, data=data, towers=replace(demo.towers, name=path), loss=loss)
    if isinstance(found.tokens, config.ShiftSelect):
        found = config.replace(found, {"tokens.samples": 20})
    if isinstance(found.head, config.TcMgcHead):
        found = config.replace(found, {"head.reorganise.keep_rate": 0.5})
    return found


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_method_learns_and_is_the_same_at_every_evaluation(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A few steps on one batch bring its loss down; all its own weights learn; evaluation draws nothing."""
    path = tmp_path_factory.mktemp("tower") / "two-blocks.json"
    vision, text = ({**TOWER[f"{part}_cfg"]} for part in ("vision", "text"))
    tower = {
        **TOWER,
        "vision_cfg": vision | {"layers": 2},
        "text_cfg": text | {"context_length": 16},
    }
    path.write_text(json.dumps(tower))
    chosen = on_small_tower(name, str(path))
    retriever = model.build(chosen)
    optimiser = model.build_optimiser(chosen, retriever)
    objective = model.build_objective(chosen)
    batch, losses, touched = whole_batch(8), [], set()
    for step in range(100):
        retriever.train()
        terms = backward(retriever, batch, 8, objective, seed=step)
        losses.append(terms["loss"].item())
        touched |= {n for n, p in retriever.named_parameters() if p.grad is not None}
        optimiser.step()
        optimiser.zero_grad()
        retriever.scale.clamp()
        if losses[-1] < 0.8 * losses[0]:  # a cross encoder starts slowly
            break
    assert losses[-1] < 0.8 * losses[0]
    idle = {n for n, p in retriever.named_parameters() if p.requires_grad} - touched
    assert all(idle_weight_is_known(name, weight) for weight in idle), idle
    retriever.eval()
    one, two = (evaluated(retriever, batch) for _ in range(2))
    assert torch.equal(one, two)


def idle_weight_is_known(name: str, weight: str) -> bool:
    """Weights that the authors keep and do not use."""
    known = {
        "clip4clip_3d": "visual.visual.conv1.",
        "ucofia_eval_t2v": "head.token_product",
        "ucofia_eval_v2t": "head.token_product",
    }
    return weight.startswith(known.get(name, "never"))


@torch.no_grad()
def evaluated(retriever: model.Retriever, batch: object) -> torch.Tensor:
    text = retriever.encode_text(batch.tokens)
    record = retriever.head.record(retriever.encode_video(batch.pixels, batch.frame_mask))
    return retriever.head.score(text, record, retriever.scale()).similarity


def test_authors_settings_by_data_set() -> None:
    def settings(recipe: str, name: str) -> tuple[int, int, int, int, float, float]:
        found = recipes.applied(recipes.recipe(recipe), name)
        return (
            *(found.data.max_words, found.data.max_frames),
            *(found.train.epochs, found.train.batch_size),
            *(found.optim.lr_clip, found.optim.lr_new),
        )

    assert settings("msrvtt_9k", "clip4clip_meanp") == (32, 12, 5, 128, 1e-7, 1e-4)
    assert settings("didemo", "clip4clip_meanp") == (64, 64, 5, 128, 1e-7, 1e-4)
    assert settings("didemo", "xclip") == (64, 64, 20, 64, 1e-7, 1e-4)
    assert settings("didemo_b16", "xclip") == (64, 64, 20, 16, 1e-7, 1e-4)
    assert settings("activitynet", "xclip") == (64, 64, 20, 112, 1e-7, 1e-4)
    assert settings("msrvtt_9k", "xpool") == (77, 12, 5, 32, 1e-6, 3e-5)
    assert settings("msvd", "xpool") == (77, 12, 5, 32, 1e-6, 1e-5)
    assert settings("activitynet", "centerclip") == (77, 60, 8, 128, 1e-5, 1e-2)
    assert settings("vatex", "ucofia") == (32, 12, 15, 128, 1e-7, 1e-4)
    # Nearest: TS2-Net's 12 frames, where DiDeMo's 64 with patches exceed its position table.
    assert settings("didemo", "ts2net") == (32, 12, 5, 128, 1e-7, 1e-4)
    assert recipes.applied(recipes.recipe("msvd"), "xpool").head.dropout == 0.4
    assert recipes.applied(recipes.recipe("msrvtt_9k_b16"), "centerclip").tokens.clusters == (160,)
    assert recipes.applied(recipes.demo(), "xclip").train == recipes.demo().train


def test_what_is_frozen_and_how_rates_go() -> None:
    base = recipes.recipe("msrvtt_9k")
    for name in ("xpool", "drl", "clip4clip_3d"):
        assert recipes.applied(base, name).towers.freeze == "none"
    assert recipes.applied(base, "clip4clip_meanp").towers.freeze == "embeddings"
    rules = {name: recipes.applied(base, name).optim for name in ("xclip", "xpool", "centerclip")}
    assert {n: (o.kind, o.schedule, o.decay) for n, o in rules.items()} == {
        "xclip": ("adam", "warmup_cosine", "all_but_biases"),
        "xpool": ("hf_adamw", "hf_cosine", "all"),
        "centerclip": ("adamw", "centerclip", "all_but_biases"),
    }


def test_whose_settings_are_taken_is_said() -> None:
    def said(recipe: str, name: str, fair: bool = False) -> str:
        return methods.note(recipes.recipe(recipe), name, fair=fair)

    assert said("msrvtt_7k", "drl") == "drl: its authors' settings for msrvtt"
    assert said("vatex", "drl").endswith(
        "published no settings for vatex; those for msrvtt are taken"
    )
    assert said("didemo", "centerclip").endswith("those for activitynet are taken")
    assert said("demo", "drl").endswith("published no settings for demo; the recipe's own stay")
    assert said("msrvtt_9k", "mean_max").endswith("the recipe's own stay")
    assert "as for every method" in said("vatex", "drl", fair=True)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="no method 'ts2'; near it: ts2net"):
        recipes.applied(recipes.demo(), "ts2")
    demo = recipes.demo()
    with pytest.raises(ValueError, match="UcofiaHead needs patches, which a tower with NoTokens"):
        replace(demo, head=config.UcofiaHead(), loss=config.Loss(alpha=0.0))
    loss = config.Loss(alpha=0.0, term=config.ChannelDecorrelation())
    with pytest.raises(ValueError, match="weighted_tokens, and MeanHead weighs no tokens"):
        replace(demo, head=config.MeanHead(), loss=loss)
    chosen = recipes.applied(demo, "ts2net")
    with pytest.raises(ValueError, match=r"temporal\.patches is 4, but the tower gives 3"):
        config.replace(chosen, {"temporal.patches": 4})
    with pytest.raises(ValueError, match=r"loss\.each_score goes with loss.contrast sigmoid"):
        config.Loss(each_score=True)


@pytest.mark.parametrize("base", BASES)
def test_a_config_s_method_has_its_title(base: str) -> None:
    for name, method in methods.METHODS.items():
        for fair in (True, False):
            found = recipes.applied(recipes.recipe(base), name, fair=fair)
            assert methods.title(found) == method.title
    found = recipes.applied(recipes.recipe(base), "xpool")
    changed = replace(found, head=replace(found.head, dropout=0.11))
    assert methods.title(changed) == "X-Pool"


def test_losses_have_small_forms_on_the_demo_alone() -> None:
    small, own = (recipes.applied(recipes.recipe(base), "drl") for base in ("demo", "msrvtt_9k"))
    assert own.loss.term == config.ChannelDecorrelation()
    assert small.loss.term == replace(own.loss.term, weight=1e-7)
    biases = [
        recipes.applied(recipes.recipe(base), "mean_max", fair=True).loss.bias
        for base in ("demo", "msrvtt_9k")
    ]
    assert biases == [-3.0, -10.0]
