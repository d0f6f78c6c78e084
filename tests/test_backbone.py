import json

import open_clip
import pytest
import torch

from tcmgc import model, recipes
from tcmgc.towers import backbone
from tcmgc.towers.backbone import TOWERS, WordEmbedding, image_size, load_towers, tokenizer


@pytest.fixture(scope="module")
def towers():
    torch.manual_seed(0)
    return load_towers("demo", None, freeze="none")


@pytest.fixture(scope="module")
def clip():
    """The same weights as open_clip runs them."""
    open_clip.add_model_config(TOWERS / "demo.json")
    torch.manual_seed(0)
    return open_clip.create_model("demo", load_weights=False).eval()


def test_the_sentence_is_open_clips_text_feature(towers, clip):
    tokens = tokenizer("demo", 32)(["a red circle", "two blue squares and then something else"])
    sentence, words, mask = towers[0](tokens)
    torch.testing.assert_close(sentence, clip.encode_text(tokens), rtol=1e-5, atol=1e-5)
    assert words.shape == (2, 32, 128)
    assert mask.sum(1).tolist() == [5, 9]
    torch.testing.assert_close(words[0, 4], sentence[0])


def test_fewer_positions_give_the_same_words(towers):
    captions = ["a red circle", "x"]
    short, long = tokenizer("demo", 8)(captions), tokenizer("demo", 24)(captions)
    for a, b in zip(towers[0](short)[:2], towers[0](long)[:2], strict=True):
        torch.testing.assert_close(a, b[:, :8] if b.ndim == 3 else b, rtol=1e-5, atol=1e-5)


def test_long_captions_are_cut_and_end_with_the_end_token():
    tokens = tokenizer("demo", 8)(["one two three four five six seven eight nine"])
    assert tokens.shape == (1, 8)
    assert tokens[0, -1] == tokens.max()


def test_frames_are_open_clips_image_features(towers, clip):
    pixels = torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    frames, given, patches = towers[1](pixels, mask)
    assert given is mask
    assert patches is None
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(3, 1, 1)
    expected = clip.encode_image((pixels.flatten(0, 1) / 255 - mean) / std).view(2, 3, -1)
    torch.testing.assert_close(frames[mask], expected[mask], rtol=1e-4, atol=1e-5)
    assert not frames[0, 2].any()


def test_padding_can_be_encoded_as_black_level(towers, clip):
    pixels = torch.zeros(1, 2, 3, 64, 64, dtype=torch.uint8)
    mask = torch.tensor([[True, False]])
    blank = towers[1](pixels, mask, encode_padding=True)[0][0, 1]
    torch.testing.assert_close(
        blank, clip.encode_image(torch.zeros(1, 3, 64, 64))[0], rtol=1e-4, atol=1e-5
    )


def test_what_is_frozen():
    def trained(freeze):
        text, visual, _ = load_towers("demo", None, freeze=freeze)
        return {
            n for n, p in [*text.named_parameters(), *visual.named_parameters()] if p.requires_grad
        }

    everything, some = trained("none"), trained("embeddings")
    assert everything - some == {
        "token_embedding.weight",
        "positional_embedding",
        "visual.conv1.weight",
        "visual.class_embedding",
        "visual.positional_embedding",
        "visual.ln_pre.weight",
        "visual.ln_pre.bias",
    }
    assert trained("all") == set()


def test_recomputed_activations_give_the_same_gradients():
    def gradients(checkpoint):
        torch.manual_seed(1)
        text, visual, _ = load_towers(
            "demo", None, freeze="none", checkpoint_activations=checkpoint
        )
        pixels = (
            torch.arange(3 * 64 * 64, dtype=torch.int64)
            .remainder(256)
            .to(torch.uint8)
            .view(1, 1, 3, 64, 64)
        )
        text.train(), visual.train()
        text(torch.tensor([[49406, 320, 49407]]))[0].sum().backward()
        visual(pixels, torch.ones(1, 1, dtype=torch.bool))[0].sum().backward()
        return [p.grad for m in (text, visual) for p in m.parameters() if p.grad is not None]

    for a, b in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(a, b)


def test_a_model_json_of_the_users(tmp_path):
    values = json.loads((TOWERS / "demo.json").read_text())
    values["vision_cfg"]["image_size"] = 32
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values))
    assert image_size(str(path)) == 32
    assert load_towers(str(path), None)[2] == 128


def test_published_weights_in_a_file(tmp_path, clip):
    path = tmp_path / "weights.pt"
    torch.save(clip.state_dict(), path)
    text, visual, _ = load_towers("demo", str(path))
    torch.testing.assert_close(text.ln_final.weight, clip.ln_final.weight)
    torch.testing.assert_close(visual.visual.proj, clip.visual.proj)


def test_sizes_of_the_papers_towers():
    assert {image_size(name) for name in ("ViT-B-32-quickgelu", "ViT-B-16-quickgelu")} == {224}


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-33", None, "open_clip has no model 'ViT-B-33'; near it: ViT-B-32"),
        ("nowhere/mine.json", None, "there is no file nowhere/mine.json"),
        (
            "ViT-B-32-quickgelu",
            "opanai",
            "neither a file nor a tag of ViT-B-32-quickgelu; its tags: openai",
        ),
        ("ViT-B-32-256", None, "the text encoder NoneType of Module is not known"),
    ],
)
def test_towers_that_cannot_be_had(name, pretrained, message, monkeypatch):
    if name == "ViT-B-32-256":
        # An empty model stands for one of an open_clip that is not known here yet.
        monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: torch.nn.Module())
    with pytest.raises(ValueError, match=message):
        load_towers(name, pretrained)


def test_weights_of_another_shape(tmp_path, clip):
    state = clip.state_dict()
    state["ln_final.weight"] = torch.ones(3)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt .* does not fit demo.*ln_final"):
        load_towers("demo", str(tmp_path / "other.pt"))


def test_more_words_than_positions():
    with pytest.raises(ValueError, match=r"data\.max_words is 64; demo has positions for 32"):
        tokenizer("demo", 64)


def test_ours_are_listed_first():
    assert backbone.known_towers()[0] == "demo"


def _table() -> WordEmbedding:
    return WordEmbedding(torch.nn.Parameter(torch.arange(20.0).reshape(10, 2)))


def test_gradients_of_the_used_rows_are_those_of_the_whole_table():
    words, plain = _table(), _table()
    # The second batch uses other rows: those of the first must be zero again.
    for ids in (torch.tensor([[1, 7], [7, 9]]), torch.tensor([[0, 7]])):
        scale = torch.arange(float(ids.numel())).reshape(*ids.shape, 1) + 1
        with words.only(torch.cat([ids, torch.tensor([[3] * 2])])):
            assert words.used is not None
            assert words.used.shape[0] == ids.unique().numel() + 1
            (words(ids) * scale).sum().backward()
        plain.weight.grad = None
        (plain(ids) * scale).sum().backward()
        torch.testing.assert_close(words.weight.grad, plain.weight.grad)
    assert words.used is None
    torch.testing.assert_close(words(ids), plain(ids))


def test_a_step_takes_gradients_of_the_used_rows_in_place_of_the_table():
    retriever = model.build(recipes.demo())
    table, ids = retriever.text.token_embedding.weight, torch.tensor([[49406, 320, 49407]])
    outside = retriever.learnt
    with retriever.text.token_embedding.only(ids):
        inside = retriever.learnt
    assert len(inside) == len(outside)
    assert any(weight is table for weight in outside)
    assert not any(weight is table for weight in inside)
    assert sum(weight.shape == (3, table.shape[1]) for weight in inside) == 1


def test_an_embedding_that_is_not_learnt_has_no_gradient():
    words = _table().requires_grad_(False)
    ids = torch.tensor([[1, 2]])
    with words.only(ids):
        assert words.used is None
        assert not words(ids).requires_grad
    assert words.weight.grad is None
