"""Every family of open_clip's towers, tiny: features are open_clip's own, words and patches are there."""

import importlib.util
import json

import open_clip
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from tcmgc import config, model, recipes
from tcmgc.config import tokens as options
from tcmgc.towers import ending, patches
from tcmgc.towers.backbone import Preprocessing, image_size, load_towers, preprocessing, tokenizer
from tcmgc.towers.ending import Ending
from tcmgc.towers.text import text_tower
from tcmgc.towers.tokenizer import counter, spelling
from tcmgc.training import checkpoint

TEXT = {"context_length": 12, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1}
VIT = {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}


@timm.models.register_model
def tcmgc_tiny_siglip(global_pool="map", num_classes=0, **given):
    """SigLIP's shape: no class token, attention pooling."""
    model = VisionTransformer(
        img_size=64,
        patch_size=16,
        embed_dim=32,
        depth=1,
        num_heads=2,
        class_token=False,
        global_pool=global_pool,
        num_classes=num_classes,
    )
    model.default_cfg = {}
    return model


FAMILIES = {
    "CLIP": {"vision_cfg": VIT, "text_cfg": TEXT, "quick_gelu": True},
    "CLIP as custom text": {"vision_cfg": VIT, "text_cfg": TEXT, "custom_text": True},
    "CLIPA": {
        "vision_cfg": {**VIT, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True},
        "text_cfg": {**TEXT, "pool_type": "last", "no_causal_mask": True},
    },
    "worldwide": {"vision_cfg": VIT, "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 2}},
    "layer scale": {"vision_cfg": {**VIT, "ls_init_value": 0.1}, "text_cfg": TEXT},
    "custom blocks": {
        "vision_cfg": {**VIT, "scale_attn": True, "scale_fc": True, "qk_norm": True},
        "text_cfg": TEXT,
    },
    "ResNet": {
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": TEXT,
    },
    "CoCa": {
        "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2},
        "text_cfg": {**TEXT, "embed_cls": True},
        "custom_text": True,
    },
    "SigLIP": {
        "vision_cfg": {
            "image_size": 64,
            "timm_model_name": "tcmgc_tiny_siglip",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            **TEXT,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "act_kwargs": {"approximate": "tanh"},
        },
        "custom_text": True,
    },
    "no projection": {
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "proj_type": "none", "no_causal_mask": True, "pool_type": "last"},
        "custom_text": True,
    },
    "PE-Core": {
        "vision_cfg": {
            "image_size": 384,
            "timm_model_name": "vit_pe_core_tiny_patch16_384",
            "timm_pool": "map",
        },
        "text_cfg": TEXT,
        "custom_text": True,
    },
    "MobileCLIP": {
        "vision_cfg": {"image_size": 64, "timm_model_name": "fastvit_mci0", "timm_pool": "avg"},
        "text_cfg": {**TEXT, "no_causal_mask": True},
        "custom_text": True,
    },
    "timm, class token": {
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token"},
        "text_cfg": TEXT,
        "custom_text": True,
    },
    "ConvNeXt": {
        "vision_cfg": {
            "image_size": 160,
            "timm_model_name": "test_convnext",
            "timm_proj": "linear",
            "timm_pool": "",
        },
        "text_cfg": TEXT,
        "custom_text": True,
    },
}
PATCHES = {"ResNet": 4, "PE-Core": 576, "MobileCLIP": 4, "timm, class token": 100, "ConvNeXt": 25}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """The family, its JSON, and open_clip's model of the same weights as the towers."""
    values = {"embed_dim": 32, **FAMILIES[request.param]}
    stem = f"family_{list(FAMILIES).index(request.param)}"
    path = tmp_path_factory.mktemp("family") / f"{stem}.json"
    path.write_text(json.dumps(values))
    open_clip.add_model_config(path)
    torch.manual_seed(0)
    clip = open_clip.create_model(stem, load_weights=False).eval()
    torch.save(clip.state_dict(), path.with_suffix(".pt"))
    return request.param, str(path), clip


def towers(family, **more):
    _, path, _ = family
    return load_towers(path, path.replace(".json", ".pt"), freeze="none", **more)


@torch.no_grad()
def test_features_are_open_clips(family):
    name, _, clip = family
    text, visual, dim = towers(family)
    tokens = torch.zeros(3, 12, dtype=torch.int64)
    for row, length in enumerate((3, 7, 12)):
        tokens[row, : length - 1] = torch.randint(3, 98, (length - 1,))
        tokens[row, length - 1] = 2 if name == "worldwide" else 99
    sentence, words, mask = text.train()(tokens)
    torch.testing.assert_close(sentence, clip.encode_text(tokens), rtol=1e-5, atol=1e-5)
    assert words.shape == (3, 12, dim)
    assert mask.sum(1).tolist() == [3, 7, 12]
    place = {"CLIPA": 11, "SigLIP": 11, "no projection": 11}.get(name, mask.sum(1) - 1)
    if name != "CoCa":
        torch.testing.assert_close(words[torch.arange(3), place], sentence)
    size = FAMILIES[name]["vision_cfg"]["image_size"]
    pixels = torch.randn(1, 2, 3, size, size)
    frames, _, none = visual.train()(pixels, torch.ones(1, 2, dtype=torch.bool))
    assert none is None
    torch.testing.assert_close(frames[0], clip.encode_image(pixels[0]), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_patches_are_what_pooling_makes_of_each(family):
    name, _, clip = family
    size = FAMILIES[name]["vision_cfg"]["image_size"]
    frames = torch.randn(2, 3, size, size)
    pooled, found = patches.of_any(clip.visual, frames)
    torch.testing.assert_close(pooled, clip.encode_image(frames), rtol=1e-5, atol=1e-5)
    assert found.shape == (2, PATCHES.get(name, 16), 32)
    assert patches.count(clip.visual) == found.shape[1]
    assert found.flatten(0, 1).std(0).min() > 0
    # Where all tokens of a frame are the same, so are its patches and their pooling.
    if name == "ResNet":
        cells = torch.ones(1, 256, 2, 2) * torch.randn(1, 256, 1, 1)
        pool = clip.visual.attnpool
        pool.positional_embedding.zero_()
        torch.testing.assert_close(pool.c_proj(pool.v_proj(cells.flatten(2).mT))[:, 0], pool(cells))
    if name in ("SigLIP", "PE-Core", "timm, class token"):
        trunk = clip.visual.trunk
        one = trunk.forward_features(frames)[:, -1:]
        again = clip.visual.head(trunk.forward_head(one.expand(-1, 9, -1)))
        torch.testing.assert_close(found[:, -1], again, rtol=1e-5, atol=1e-5)


def test_selection_behind_any_tower_and_shift_inside_few(family):
    name, _, clip = family
    operation = options.ShiftSelect(blocks=(), patches=1, samples=5)
    visual = towers(family, tokens=operation)[1]
    size = FAMILIES[name]["vision_cfg"]["image_size"]
    pixels, mask = torch.randn(1, 2, 3, size, size), torch.tensor([[True, False]])
    found = visual.train()(pixels, mask, seeds=torch.tensor([1]))
    assert found[2].shape == (1, 2, 1, 32)
    found[2].sum().backward()
    assert any(p.grad is not None for p in visual.visual.parameters())
    if type(clip.visual).__name__ == "VisionTransformer":
        towers(family, tokens=options.ShiftSelect(patches=1))
    else:
        with pytest.raises(ValueError, match="inside the blocks of open_clip's own vision transf"):
            towers(family, tokens=options.ShiftSelect(patches=1))


def test_which_towers_see_padding(family):
    name, path, _ = family
    if name in ("CLIPA", "SigLIP", "MobileCLIP", "CoCa", "no projection"):
        with pytest.raises(ValueError, match=r"sees all its 12 positions.*set data.max_words 12"):
            tokenizer(path, 8)
    else:
        assert tokenizer(path, 8)(["a"]).shape == (1, 8)
    assert tokenizer(path, 12)(["a"]).shape == (1, 12)


def test_towers_can_start_a_temporal_encoder(family):
    blocks, positions = towers(family)[0].start()
    assert len(blocks) == 1
    assert positions.shape[1] == 32


NAMES = (
    "ViT-B-32", "ViT-B-16", "ViT-L-14", "PE-Core-B-16", "PE-Core-L-14-336", "ViT-B-16-SigLIP2",
    "MobileCLIP2-S0", "MobileCLIP2-B", "EVA02-B-16", "RN50", "coca_ViT-B-32", "convnext_base_w",
    "ViT-H-14-CLIPA", "ViT-H-14-worldwide", "ViTamin-B", "swin_base_patch4_window7_224",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_published_sizes(name):
    """Shapes only: no memory is taken for weights."""
    configuration = open_clip.get_model_config(name)
    words, dim = configuration["text_cfg"].get("context_length", 77), configuration["embed_dim"]
    with torch.device("meta"):
        clip = open_clip.create_model(name, load_weights=False, device="meta").eval()
        tower = text_tower(clip, ending.of_configuration(configuration["text_cfg"]))
        sentence, all_words, _ = tower(torch.zeros(2, words, dtype=torch.int64))
        size = image_size(name)
        pooled, found = patches.of_any(clip.visual, torch.zeros(2, 3, size, size))
    assert sentence.shape == (2, dim)
    assert all_words.shape == (2, words, dim)
    assert pooled.shape == (2, dim)
    assert found.shape[2] == dim


def test_where_captions_end():
    ids = torch.tensor([[5, 9, 2, 0, 0], [5, 6, 7, 8, 4], [2, 0, 0, 0, 0]])
    assert Ending().last(ids).tolist() == [1, 3, 0]
    assert Ending("token", 2).last(ids).tolist() == [2, 4, 0]
    assert Ending("padding", 0).last(ids).tolist() == [2, 4, 0]
    assert Ending("token", 2).mask(ids)[0].tolist() == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B-32-quickgelu", Ending()),
        ("PE-Core-B-16", Ending()),
        ("MobileCLIP2-S0", Ending()),
        ("ViT-B-16-SigLIP2", Ending("token", 1)),
        ("ViT-B-16-SigLIP", Ending("token", 1)),
        ("ViT-L-14-worldwide", Ending("token", 1)),
        ("ViT-H-14-worldwide", Ending("token", 2)),
        ("ViT-L-14-CLIPA", Ending("padding", 0)),
    ],
)
def test_endings_of_published_models(name, expected):
    assert ending.of_configuration(open_clip.get_model_config(name)["text_cfg"]) == expected


@pytest.mark.parametrize(
    ("name", "pretrained", "expected"),
    [
        ("ViT-B-32-quickgelu", "openai", (224, 0.48145466, "bicubic", "shortest")),
        ("PE-Core-B-16", None, (224, 0.5, "bilinear", "squash")),
        ("ViT-B-16-SigLIP2-384", "webli", (384, 0.5, "bicubic", "squash")),
        ("MobileCLIP2-S0", "weights.pt", (256, 0.0, "bilinear", "shortest")),
        ("demo", None, (64, 0.48145466, "bicubic", "shortest")),
    ],
)
def test_preprocessing(name, pretrained, expected):
    found = preprocessing(name, pretrained)
    assert (found.size, found.mean[0], found.kernel, found.resize) == expected


def test_a_folder_of_the_hub(tmp_path):
    """open_clip's own file beside weights: architecture, preprocessing and weights are the folder's."""
    config = {
        "model_cfg": {"embed_dim": 32, **FAMILIES["CLIP"]},
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "resize_mode": "squash"},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    name = f"local-dir:{tmp_path}"
    clip = open_clip.create_model(name, load_weights=False)
    torch.save(clip.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    text, visual, dim = load_towers(name, name, freeze="none")
    assert dim == 32
    assert torch.equal(text.ln_final.weight, clip.ln_final.weight)
    torch.testing.assert_close(visual.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]) * 255)
    assert preprocessing(name, None).resize == "squash"
    assert tokenizer(name, 12)(["a red circle"]).shape == (1, 12)
    with pytest.raises(ValueError, match=r"local-dir:/nowhere is no folder of an open_clip model"):
        load_towers("local-dir:/nowhere", None)


def test_a_tokeniser_that_needs_transformers():
    if importlib.util.find_spec("transformers"):
        pytest.skip("transformers is installed")
    with pytest.raises(
        ValueError, match=r"needs the transformers package: `pip install 'tcmgc\[hf\]'"
    ):
        tokenizer("ViT-B-16-SigLIP2", 64)
    with pytest.raises(ValueError, match="text encoder of roberta-ViT-B-32 is one of the transf"):
        load_towers("roberta-ViT-B-32", None)


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory) -> str:
    """An XLM-R of one layer beside a small ViT, with a tokeniser of ten words, all in local files."""
    transformers = pytest.importorskip(
        "transformers", reason="towers of transformers need tcmgc[hf]"
    )
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("xlm")
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "red", "circle", "ein", "roter", "Kreis"]
    plain = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    transformers.XLMRobertaConfig(
        vocab_size=10,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=20,
    ).save_pretrained(folder)
    values = {
        "embed_dim": 32,
        "vision_cfg": VIT,
        "text_cfg": {
            "context_length": 12,
            "hf_model_name": str(folder),
            "hf_tokenizer_name": str(folder),
            "hf_proj_type": "mlp",
            "hf_pooler_type": "mean_pooler",
        },
    }
    path = folder / "multilingual.json"
    path.write_text(json.dumps(values))
    return str(path)


def test_a_text_tower_of_transformers(multilingual, tmp_path):
    torch.manual_seed(0)
    text, _, dim = load_towers(multilingual, None, freeze="none")
    torch.manual_seed(0)
    clip = open_clip.create_model("multilingual", load_weights=False, pretrained_text=False).eval()
    tokens = tokenizer(multilingual, 12)(["a red circle", "Kreis"])
    sentence, words, mask = text.train()(tokens)
    torch.testing.assert_close(sentence, clip.encode_text(tokens), rtol=1e-5, atol=1e-5)
    assert mask.sum(1).tolist() == [5, 3]
    assert words.shape == (2, 12, dim)
    short = text(tokenizer(multilingual, 6)(["a red circle", "Kreis"]))
    torch.testing.assert_close(short[0], sentence)
    assert spelling(multilingual, 12)("ein roter Kreis") == [
        ("ein", [1]),
        ("roter", [2]),
        ("Kreis", [3]),
    ]
    assert counter(multilingual)(["a red circle", "Kreis"]) == [5, 3]
    with text.token_embedding.only(tokens):
        text(tokens)[0].sum().backward()
    table = text.encoder.transformer.get_input_embeddings()
    assert table.weight.grad[4].abs().sum() > 0
    with pytest.raises(ValueError, match="HfText has no blocks of CLIP's kind"):
        text.start()
    frozen, _, _ = load_towers(multilingual, None, freeze="embeddings")
    trained = {name for name, weight in frozen.named_parameters() if weight.requires_grad}
    assert not any("embeddings" in name for name in trained)
    assert trained
    torch.save(clip.state_dict(), tmp_path / "weights.pt")
    load_towers(multilingual, str(tmp_path / "weights.pt"))


@torch.no_grad()
def test_a_checkpoint_normalises_as_it_was_trained(tmp_path, monkeypatch):
    """Tags of one model may differ in mean and deviation; those of its own weights come back with it."""
    monkeypatch.setattr(model.backbone, "preprocessing", lambda *of: told[of[1]])
    half = (0.5, 0.5, 0.5)
    told = {"laion": Preprocessing(64, half, half), None: preprocessing("demo", None)}
    settings = config.replace(recipes.demo(), {"towers.pretrained": "laion"})
    retriever = model.build(settings, load=False)
    checkpoint.save(tmp_path, settings, retriever, None, {})
    again = checkpoint.load(tmp_path)[1]
    assert again.visual.mean.flatten().tolist() == [127.5] * 3
    assert preprocessing("ViT-L-14", "laion2b_s32b_b82k").mean == half
    assert preprocessing("ViT-L-14", "openai").mean != half
