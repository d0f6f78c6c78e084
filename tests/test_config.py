import dataclasses
import json

import pytest

from tcmgc import config, recipes
from tcmgc.config import Config, Data, Loss, TcMgcHead, XPoolHead, kept_count


@pytest.mark.parametrize("name", [*recipes.RECIPES, "msrvtt_9k_xclip:smoke"])
def test_a_recipe_survives_json(name):
    one = recipes.recipe(name)
    assert config.from_dict(json.loads(json.dumps(config.to_dict(one)))) == one


def test_unknown_recipe_lists_the_known():
    with pytest.raises(ValueError, match=r"no recipe 'msrvt'.*msrvtt_9k"):
        recipes.recipe("msrvt")


@pytest.mark.parametrize(
    ("m", "expected"), [(32, [3, 6, 9, 12, 16, 19, 22, 25, 28]), (10, list(range(1, 10)))]
)
def test_kept_count_is_the_papers(m, expected):
    # Tables 5-8: the parameter columns are k x k for these k at m = 32.
    assert [kept_count(m, r / 10) for r in range(1, 10)] == expected


def test_kept_count_does_not_fall_short_of_a_decimal():
    assert int(100 * 0.29) == 28  # what plain floats do
    assert kept_count(100, 0.29) == 29


def test_replace_by_dotted_path_makes_all_changes_before_checking():
    base = recipes.recipe("msrvtt_9k")
    changed = config.replace(
        base, {"loss.alpha": 0.0, "head.grains": ["frame_word"], "head.attention.heads": 4}
    )
    assert changed.head == dataclasses.replace(
        base.head,
        grains=("frame_word",),
        attention=dataclasses.replace(base.head.attention, heads=4),
    )


def test_a_wrong_path_names_the_near_ones():
    with pytest.raises(ValueError, match=r"no field 'head.attention.head'.*head\.attention\.heads"):
        config.replace(recipes.recipe("msrvtt_9k"), {"head.attention.head": 2})


def test_a_head_of_another_kind_has_no_such_field():
    with pytest.raises(ValueError, match=r"no field 'head.reorganise.keep_rate'"):
        config.replace(recipes.recipe("msrvtt_9k_xpool"), {"head.reorganise.keep_rate": 0.2})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head.reorganise.keep_rate": 0.0}, "keep_rate must be in"),
        ({"head.reorganise.keep_rate": 0.01}, "keeps no word of data.max_words 32"),
        ({"train.batch_size": 1}, "needs a negative"),
        ({"train.epochs": 1.5}, "train.epochs: expected int; got 1.5"),
        ({"head.grains": ["sentence"]}, "head.grains: expected one of video_sentence"),
        ({"head.grains": ["frame_word"]}, "nothing to decorrelate"),
        ({"loss.learn_scale": True, "loss.scale": 200.0}, "starts above"),
        ({"data.sampler": "all"}, "data.sampler: expected one of uniform"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        config.replace(recipes.recipe("msrvtt_9k"), changes)


def test_grains_are_kept_in_the_papers_order():
    head = TcMgcHead(grains=("frame_word", "video_sentence"))
    assert head.grains == ("video_sentence", "frame_word")


def test_one_score_cannot_be_decorrelated():
    data = Data(dataset="demo", root="data/demo")
    with pytest.raises(ValueError, match="XPoolHead has one score"):
        Config(data=data, head=XPoolHead())
    assert Config(data=data, head=XPoolHead(), loss=Loss(alpha=0.0)).head == XPoolHead()


def test_fingerprint_follows_the_result_and_not_the_place():
    base = recipes.recipe("msrvtt_9k")
    assert config.fingerprint(
        config.replace(base, {"train.workers": 4, "data.cache": "elsewhere"})
    ) == config.fingerprint(base)
    assert config.fingerprint(config.replace(base, {"train.seed": 1})) != config.fingerprint(base)


def test_a_damaged_config_names_its_file(tmp_path):
    path = tmp_path / "config.json"
    config.save(recipes.recipe("demo"), path)
    assert config.load(path) == recipes.recipe("demo")
    path.write_text(path.read_text()[:40])
    with pytest.raises(ValueError, match=r"config\.json is not a config"):
        config.load(path)
