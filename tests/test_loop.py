import numpy as np
import pytest
import torch

from pipeline.training.loop import Tokens


def test_a_caption_is_tokenised_once_and_comes_in_the_order_asked_for():
    asked: list[str] = []

    def tokenise(captions: list[str]) -> torch.Tensor:
        asked.extend(captions)
        return torch.tensor([[49406, len(caption), 49407] for caption in captions])

    captions = ["a", "bb", "ccc", "dddd"]
    tokens = Tokens(captions, tokenise)
    for rows in ([2, 0, 2], [0, 2], [3, 2, 1], [1, 1]):
        found = tokens.of(np.array(rows))
        assert found.dtype == torch.int64
        assert torch.equal(found, torch.tensor([[49406, i + 1, 49407] for i in rows]))
    assert sorted(asked) == captions


@pytest.mark.parametrize("name", ["demo", "ViT-B-32-quickgelu"])
def test_kept_tokens_are_the_tokenizers(name: str):
    from tcmgc.towers import backbone

    tokenise = backbone.tokenizer(name, 12)
    captions = ["a red circle", "a red circle and " * 9, "", "ein gelbes Quadrat, 三角形"]
    tokens = Tokens(captions, tokenise)
    assert torch.equal(tokens.of(np.array([3, 1, 0, 2])), tokenise(captions)[[3, 1, 0, 2]])
