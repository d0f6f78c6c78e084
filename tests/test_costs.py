"""Counts of weights and multiply-adds against the paper's Table 14 and against counting by hand."""

import functools
from dataclasses import replace

import pytest
import torch
from torch import nn

from tcmgc import model, recipes
from tcmgc.config import Config, Temporal, XClipHead
from tcmgc.retrieval import costs
from tcmgc.towers import backbone
from tune_spaces.published import EFFICIENCY, METHODS

TABLE_14 = {row.name: row for row in EFFICIENCY}


@pytest.fixture(scope="module")
def one_tower() -> pytest.MonkeyPatch:
    """Towers at random weights are made once: their numbers are only counted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "load_towers", functools.cache(backbone.load_towers))
        yield patch


def _method(name: str) -> Config:
    config = recipes.applied(recipes.recipe("msrvtt_9k"), METHODS[name])
    return replace(config, towers=replace(config.towers, pretrained=None, freeze="none"))


@pytest.mark.parametrize("name", TABLE_14)
def test_parameters_by_the_papers_counter(name: str, one_tower: pytest.MonkeyPatch) -> None:
    counted = costs.parameters(model.build(_method(name))).counted
    assert round(counted / 1e6, 2) == TABLE_14[name].parameters


def test_multiply_adds_by_the_papers_counter(one_tower: pytest.MonkeyPatch) -> None:
    config = _method("X-CLIP")
    found = costs.multiply_adds(config, model.build(config))
    assert round(found.counted / 1e9, 2) == TABLE_14["X-CLIP"].multiply_adds
    # The counter leaves out all attention: about a third of what the towers really compute.
    assert found.text + found.video > 1.4 * found.counted


def _small(tower: str) -> Config:
    config = recipes.demo()
    return replace(
        config,
        data=replace(config.data, max_words=12, max_frames=2),
        towers=replace(config.towers, name=tower),
        temporal=Temporal(layers=1, heads=2),
    )


def test_every_product_of_a_small_model(tower: str) -> None:
    config = replace(_small(tower), head=XClipHead(), loss=replace(_small(tower).loss, alpha=0.0))
    found = costs.multiply_adds(config, model.build(config))
    width, words, frames, patches = 32, 12, 2, 4

    def block(tokens: int) -> int:
        return tokens * 12 * width**2 + 2 * tokens**2 * width

    text = block(words) + words * width**2  # the projection of every word
    text += (1 + words) * width**2  # X-CLIP's two learnt products
    assert found.text == text
    video = frames * (patches * 3 * 16 * 16 * width + block(patches + 1) + width**2)
    video += block(frames)
    assert found.video == video
    # Sentence by video, words by video, sentence by frames, words by frames; then the sums over
    # words and frames, by a square matrix each and the weighted sum.
    assert found.pair >= (1 + words) * (1 + frames) * width


def test_the_papers_counter_by_hand() -> None:
    module = nn.ModuleDict(
        {
            "linear": nn.Linear(3, 5),
            "conv": nn.Conv2d(2, 4, 3, bias=False),
            "attention": nn.MultiheadAttention(8, 2),
            "norm": nn.LayerNorm(7),
            "words": nn.Embedding(10, 6),
            "lstm": nn.LSTM(4, 4),
        }
    )
    found = costs.parameters(module)
    lstm = 4 * (4 * 4 + 4 * 4 + 4 + 4)
    assert found.counted == (3 * 5 + 5) + 4 * 2 * 9 + lstm
    assert found.all == found.counted + (3 * 64 + 24) + (64 + 8) + 14 + 60
    assert found.trained == found.all
    module["norm"].requires_grad_(False)
    assert costs.parameters(module).trained == found.all - 14
    with costs._layer_counter(module) as counted:
        module["linear"](torch.zeros(2, 6, 3))
        module["conv"](torch.zeros(1, 2, 5, 5))
        module["lstm"](torch.zeros(9, 2, 4))
        module["attention"](*[torch.zeros(3, 1, 8)] * 3)
    assert counted == [2 * 6 * 3 * 5, 9 * 4 * 2 * 9, 9 * 2 * 4 * (4 + 4) * 4]


def test_measured_costs(tower: str) -> None:
    config = _small(tower)
    config = replace(config, train=replace(config.train, batch_size=4))
    retriever = model.build(config)
    step = costs.training_step(config, retriever, repeats=1)
    assert step.seconds > 0
    words = retriever.text.token_embedding.weight  # of which a step takes the rows in use
    gradients = sum(4 * p.numel() for p in retriever.learnt if p is not words)
    assert gradients < step.bytes < 1e9
    assert costs.encoding_time(config, retriever, videos=2, repeats=1) > 0
    assert costs.similarity_time(config, retriever, 3, 5, repeats=1) > 0
    larger = replace(config, train=replace(config.train, batch_size=32, pieces=0))
    assert costs.training_step(larger, retriever, repeats=1).bytes > step.bytes
