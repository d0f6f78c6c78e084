import dataclasses
import random

import pytest

from pipeline import tune
from pipeline.sweeps import plan
from tcmgc import model, recipes
from tune_spaces import SPACES, Choice, Range, Rule, Space, Variant, check

DEMO, PAPER = recipes.recipe("demo"), recipes.recipe("msrvtt_9k")
ROWS = [
    pytest.param(space, variant, id=f"{space.name}-{variant.label}")
    for space in SPACES.values()
    for variant in space.variants
    if variant.paper
]


def space(**changes):
    values = {"name": "mine", "title": "Mine", "source": "none"}
    return Space(**{**values, "variants": (Variant(label="a", changes={}),), **changes})


@pytest.mark.parametrize("recipe", ["demo", "msrvtt_9k", "msrvtt_9k_released", "didemo", "vatex"])
@pytest.mark.parametrize("name", SPACES)
def test_every_space_fits_the_recipes_of_this_method(name, recipe):
    check(SPACES[name], recipes.recipe(recipe))


@pytest.mark.parametrize(("space", "variant"), ROWS)
def test_the_papers_sums_and_parameters_agree_with_ours(space, variant):
    told = variant.paper
    for way in ("t2v", "v2t"):
        parts = [told.get(f"{way}/{name}") for name in ("R1", "R5", "R10", "RSum")]
        if None not in parts:
            # Each is rounded; Table 5 and Table 8 have sums that are off by 0.1.
            assert sum(parts[:3]) == pytest.approx(parts[3], abs=0.21)
    if {"t2v/RSum", "v2t/RSum", "SumR"} <= set(told):
        assert told["t2v/RSum"] + told["v2t/RSum"] == pytest.approx(told["SumR"], abs=0.11)
    if "isa_parameters" in told:
        applied = space.apply(PAPER, variant.changes)
        assert model.aggregation_parameters(applied) == told["isa_parameters"]


def test_figure_b1_counts_thousands():
    rows = {variant.label: variant for variant in SPACES["keep_rate"].variants}
    assert rows["r=0.1"].paper["isa_parameters"] == 61  # 0.061 K
    assert rows["r=0.3"].paper["isa_parameters"] == 505  # 0.505 K
    assert len(rows) == 9


def test_figures_7_and_8_have_fifteen_experiments_with_and_without_sdr():
    variants = SPACES["grains"].variants
    assert len({variant.label.split()[0] for variant in variants}) == 15
    assert len(variants) == 4 + 11 * 2 * 3
    for variant in variants:
        applied = SPACES["grains"].apply(PAPER, variant.changes)
        assert bool(applied.loss.alpha) == variant.label.endswith("+SDR")


def test_other_heads_have_no_such_parameters():
    assert model.aggregation_parameters(recipes.recipe("msrvtt_9k_xpool")) is None


def test_a_wrong_name_fails_at_once_with_the_near_ones():
    wrong = space(variants=(Variant(label="a", changes={"head.attention.head": 2}),))
    with pytest.raises(ValueError, match=r"space mine: .*no field 'head.attention.head'.*heads"):
        check(wrong, DEMO)


def test_a_field_of_another_method_is_said_to_be():
    with pytest.raises(
        ValueError,
        match=r"keep_rate changes head\.reorganise\.keep_rate, a field of TcMgcHead; .*XPoolHead",
    ):
        check(SPACES["keep_rate"], recipes.recipe("msrvtt_9k_xpool"))


def test_a_value_that_the_config_refuses_is_said_before_anything_runs():
    wrong = space(variants=(), axes={"head.reorganise.keep_rate": Range(0.5, 1.5)}, samples=2)
    with pytest.raises(ValueError, match=r"space mine: head.reorganise.keep_rate must be in"):
        check(wrong, DEMO)


def test_a_metric_that_no_trial_reports():
    with pytest.raises(ValueError, match=r"no trial reports 'val/sumr'; reported are .*val/SumR"):
        check(space(metric="val/sumr"), DEMO)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": ()}, "space mine is empty"),
        ({"axes": {"loss.alpha": Range(0, 1)}}, "both variants and axes"),
        ({"variants": (), "axes": {"loss.alpha": Choice(())}, "samples": 1}, "no value to choose"),
        ({"variants": (), "axes": {"loss.alpha": Range(1, 0)}, "samples": 1}, "from 1 to 0"),
        ({"variants": (), "axes": {"loss.alpha": Range(0, 1)}}, "samples must be at least 1"),
        ({"epochs": 0}, "at least one epoch"),
        ({"demo_epochs": 0}, "at least one epoch"),
        ({"variants": (Variant(label="a", changes={}),) * 2}, "two variants called 'a'"),
    ],
)
def test_a_space_that_makes_no_sense_cannot_be_made(changes, message):
    with pytest.raises(ValueError, match=message):
        space(**changes)


def test_unknown_spaces_list_the_known():
    with pytest.raises(ValueError, match=r"(?s)no space 'keeprate'.*keep_rate .*Fig\. B\.1.*joint"):
        tune.pick("keeprate")


def test_rules_follow_changes_and_what_the_recipe_has():
    ruled = space(rules=(Rule(when={"temporal.layers": (0, 2)}, then={"temporal.heads": 1}),))
    assert ruled.apply(DEMO, {}).temporal.heads == DEMO.temporal.heads
    assert ruled.apply(DEMO, {"temporal.layers": 2}).temporal.heads == 1


@pytest.mark.parametrize("recipe", ["demo", "msrvtt_9k"])
def test_every_sample_of_the_joint_space_is_a_config(recipe):
    joint, rng = SPACES["joint"], random.Random(0)
    base = recipes.recipe(recipe)
    alone = 0
    for _ in range(60):
        settings = {
            path: rng.choice(axis.values)
            if isinstance(axis, Choice)
            else rng.uniform(axis.low, axis.high)
            for path, axis in joint.axes.items()
        }
        settings = {path: plan.decode(plan.encode(value)) for path, value in settings.items()}
        drawn = joint.apply(base, settings)
        if len(drawn.head.grains) == 1:
            assert drawn.loss.alpha == 0
            alone += 1
        assert model.aggregation_parameters(drawn) is not None
    assert alone > 2


def test_the_budget_is_the_recipes_but_on_the_made_up_corpus():
    assert SPACES["heads"].budget(PAPER) == PAPER.train.epochs
    assert dataclasses.replace(SPACES["heads"], epochs=2).budget(PAPER) == 2
    assert SPACES["heads"].budget(DEMO) == SPACES["heads"].demo_epochs
