"""Weights from files in every form that people have them, and files that are none."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tcmgc import config, model, recipes
from tcmgc.towers import weights
from tcmgc.towers.backbone import load_towers, tokenizer
from tcmgc.training import checkpoint

SMALL = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
State = dict[str, Tensor]


def named(folder: Path, name: str, **changes) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**SMALL, **changes}))
    open_clip.add_model_config(path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def tower(folder) -> str:
    return named(folder, "small_weights")


@pytest.fixture(scope="module")
def clip(tower):
    torch.manual_seed(3)
    return open_clip.create_model("small_weights", load_weights=False).eval()


@pytest.fixture(scope="module")
def state(clip) -> State:
    return {name: value.clone() for name, value in clip.state_dict().items()}


def script(state: State, path: Path) -> None:
    """What OpenAI publishes: a TorchScript archive, in half precision, with three numbers more."""

    class Archive(nn.Module):
        def forward(self, x):
            return x

    root = Archive()
    for name, value in state.items():
        *parents, last = name.split(".")
        at: nn.Module = root
        for parent in parents:
            if parent not in at._modules:
                at.add_module(parent, nn.Module())
            at = at._modules[parent]
        half = value.half() if value.ndim > 1 else value
        at.register_parameter(last, nn.Parameter(half))
    for name, number in (("input_resolution", 64), ("context_length", 24), ("vocab_size", 49408)):
        root.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the published files are not.
        torch.jit.save(torch.jit.trace(root, torch.zeros(1)), str(path))


def huggingface(state: State) -> State:
    """The same weights as transformers' CLIPModel names them."""
    rename = (
        ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
        ("transformer.resblocks.", "text_model.encoder.layers."),
        ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
        ("visual.conv1", "vision_model.embeddings.patch_embedding"),
        ("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
        ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ("token_embedding", "text_model.embeddings.token_embedding"),
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
        ("ln_final", "text_model.final_layer_norm"),
        ("attn.out_proj", "self_attn.out_proj"),
        ("ln_1", "layer_norm1"),
        ("ln_2", "layer_norm2"),
        ("c_fc", "fc1"),
        ("c_proj", "fc2"),
    )
    out = {"text_model.embeddings.position_ids": torch.arange(24)[None]}
    for name, value in state.items():
        if name == "text_projection":
            out["text_projection.weight"] = value.T.contiguous()
        elif name == "visual.proj":
            out["visual_projection.weight"] = value.T.contiguous()
        else:
            for old, new in rename:
                name = name.replace(old, new) if old in name else name
            if "in_proj_" in name:
                for which, part in zip("qkv", value.chunk(3), strict=True):
                    key = name.replace("attn.in_proj_", f"self_attn.{which}_proj.")
                    out[key] = part.contiguous()
            else:
                out[name] = value
    return out


class Scalar:
    """An object of somebody's class beside the weights."""


def save_all(state: State, clip: nn.Module, folder: Path) -> dict[str, Path]:
    """A file in each format that loads."""
    wrapped = {
        "epoch": 3,
        "best": Scalar(),
        "state_dict": {f"module.{k}": v for k, v in state.items()},
    }
    halves = {k: v.half() if v.ndim > 1 else v for k, v in state.items()}
    files = {
        name: folder / name
        for name in (
            "plain.pt", "wrapped.pth.tar", "halves.pt", "compiled.pt", "old.pt",
            "plain.safetensors", "ViT-B-32.pt", "hf.bin",
        )
    }  # fmt: skip
    torch.save(state, files["plain.pt"])
    torch.save(wrapped, files["wrapped.pth.tar"])
    torch.save(halves, files["halves.pt"])
    torch.save({f"_orig_mod.{k}": v for k, v in state.items()}, files["compiled.pt"])
    torch.save(state, files["old.pt"], _use_new_zipfile_serialization=False)
    save_file(state, files["plain.safetensors"])
    script(state, files["ViT-B-32.pt"])
    torch.save(huggingface(state), files["hf.bin"])
    for name, inner, values in (
        ("open_clip", "open_clip_model.safetensors", state),
        ("transformers", "model.safetensors", huggingface(state)),
    ):
        files[name] = folder / name
        files[name].mkdir()
        save_file(values, files[name] / inner)
    return files


@pytest.fixture(scope="module")
def files(state, clip, folder) -> dict[str, Path]:
    return save_all(state, clip, folder)


KINDS = {
    "plain.pt": "a PyTorch file with weights of an open_clip model",
    "wrapped.pth.tar": "a PyTorch file with weights of an open_clip model",
    "halves.pt": "a PyTorch file with weights of an open_clip model",
    "compiled.pt": "a PyTorch file with weights of an open_clip model",
    "old.pt": "a pickle of an older PyTorch with weights of an open_clip model",
    "plain.safetensors": "a safetensors file with weights of an open_clip model",
    "ViT-B-32.pt": "a TorchScript archive with OpenAI's CLIP",
    "hf.bin": "a PyTorch file with weights of transformers' CLIPModel",
    "open_clip": "a safetensors file with weights of an open_clip model",
    "transformers": "a safetensors file with weights of transformers' CLIPModel",
}


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_features_are_open_clips(name, files, tower, clip, caplog):
    tokens = tokenizer(tower, 24)(["a red circle"])
    pixels = torch.rand(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    caplog.set_level("INFO", logger="tcmgc")
    text, visual, _ = load_towers(tower, str(files[name]), freeze="none")
    assert KINDS[name] in caplog.text
    # Halves are not what the model was made with: open_clip loads them, too.
    if name in ("halves.pt", "ViT-B-32.pt"):
        clip = open_clip.create_model("small_weights", load_weights=False).eval()
        open_clip.load_checkpoint(clip, str(files["halves.pt"]))
    mask = torch.ones(1, 2, dtype=torch.bool)
    frames = visual.eval()(pixels, mask)[0]
    torch.testing.assert_close(frames[0], clip.encode_image(pixels[0]), rtol=1e-5, atol=1e-5)
    sentence = text.eval()(tokens)[0]
    torch.testing.assert_close(sentence, clip.encode_text(tokens), rtol=1e-5, atol=1e-5)
    assert {p.dtype for part in (text, visual) for p in part.parameters()} == {torch.float32}


def test_local_dir(files, tower):
    text, _, _ = load_towers(tower, f"local-dir:{files['open_clip']}", freeze="none")
    assert torch.isfinite(text.ln_final.weight).all()


def test_positions_of_another_size_are_open_clips(files, folder):
    name = named(
        folder,
        "larger_weights",
        vision_cfg={**SMALL["vision_cfg"], "image_size": 96},
        text_cfg={**SMALL["text_cfg"], "context_length": 32},
    )
    text, visual, _ = load_towers(name, str(files["plain.pt"]), freeze="none")
    theirs = open_clip.create_model("larger_weights", load_weights=False)
    open_clip.load_checkpoint(theirs, str(files["plain.pt"]))
    torch.testing.assert_close(
        visual.visual.positional_embedding, theirs.visual.positional_embedding
    )
    torch.testing.assert_close(text.positional_embedding, theirs.positional_embedding)


def test_our_own_checkpoint(tower, tmp_path):
    settings = config.replace(
        recipes.demo(), {"towers.name": tower, "data.max_words": 24, "temporal.heads": 2}
    )
    retriever = model.build(settings)
    checkpoint.save(tmp_path, settings, retriever, None, {})
    text, visual, _ = load_towers(tower, str(tmp_path), freeze="none")
    torch.testing.assert_close(text.state_dict(), retriever.text.state_dict())
    torch.testing.assert_close(visual.state_dict(), retriever.visual.state_dict())


def spoil(name: str, state: State, clip: nn.Module, files: dict[str, Path], path: Path) -> None:
    """A file that is no file of these weights."""
    texts = {
        "html": "<!DOCTYPE html><html>404</html>",
        "lfs": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 351\n",
        "empty": "",
        "text": "hello",
    }
    values = {
        "list": [1, 2, 3],
        "nothing": {},
        "numbers": {"epoch": 3},
        "whole": clip,
        "resnet": {"fc.weight": torch.ones(2, 2), "conv1.weight": torch.ones(2)},
        "half of it": {k: v for k, v in state.items() if not k.startswith("visual.")} | {"visual.x": state["visual.proj"]},
        "clip4clip": {f"clip.{k}": v for k, v in state.items()},
        "hf": {"text_model.embeddings.token_embedding.weight": torch.zeros(2, 2)},
        "hf unknown": {"text_model.what": torch.zeros(2, 2)},
        "nan": {**state, "visual.proj": state["visual.proj"] * float("nan")},
        "shape": {**state, "ln_final.weight": torch.ones(3)},
    }  # fmt: skip
    if name in texts:
        path.write_text(texts[name])
    elif name in values:
        torch.save(values[name], path)
    elif name == "old whole":
        torch.save(clip, path, _use_new_zipfile_serialization=False)
    elif name.startswith("cut "):
        whole = files[name.removeprefix("cut ")].read_bytes()
        path.write_bytes(whole[: len(whole) // 3])
    elif name == "damaged":
        with zipfile.ZipFile(files["plain.pt"]) as file, zipfile.ZipFile(path, "w") as out:
            for member in file.namelist():
                if not member.endswith("data/3"):
                    out.writestr(member, file.read(member))


BAD = {
    "html": "is a web page and not weights",
    "lfs": "is a Git LFS pointer .* run `git lfs pull`",
    "empty": r"is empty \(0 bytes\)",
    "text": "is no file of weights: it begins with b'hello'",
    "list": "holds a list and not a dict",
    "nothing": "holds no weights at all",
    "numbers": "holds no weights at all",
    "whole": r"is a whole pickled model \(of class open_clip.model.CLIP\)",
    "old whole": "is a pickle of Python objects",
    "resnet": "of something else than a CLIP: its weights are named fc.weight, conv1.weight",
    "half of it": "weights are missing: visual.class_embedding.*; 1 unknown: visual.x",
    "clip4clip": "is a whole model of CLIP4Clip and not a tower's weights",
    "hf": r"weights are missing.*token_embedding.weight \(2, 2\) instead of \(49408, 32\)",
    "hf unknown": "CLIPModel has no weight named text_model.what",
    "nan": r"not finite \(NaN or infinite\) in visual.proj",
    "shape": r"have another shape: ln_final.weight \(3,\) instead of \(32,\)",
    "cut plain.pt": "cut off or damaged",
    "cut old.pt": "damaged or cut off",
    "cut ViT-B-32.pt": "cut off or damaged",
    "cut plain.safetensors": "damaged or cut off",
    "damaged": "is a PyTorch archive that is damaged",
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_are_none_say_what_they_are(name, state, clip, files, tower, tmp_path):
    path = tmp_path / "file.pt"
    spoil(name, state, clip, files, path)
    with pytest.raises(ValueError, match=BAD[name]) as raised:
        load_towers(tower, str(path))
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


class Bomb:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_executed(legacy, tower, state, tmp_path):
    mark = tmp_path / "executed"
    path = tmp_path / "bomb.pt"
    torch.save(
        {"state_dict": state, "more": Bomb(mark)}, path, _use_new_zipfile_serialization=not legacy
    )
    if legacy:
        with pytest.raises(ValueError, match="pickle of Python objects"):
            load_towers(tower, str(path))
    else:
        text, _, _ = load_towers(tower, str(path), freeze="none")
        assert torch.equal(text.ln_final.weight, state["ln_final.weight"])
    assert not mark.exists()
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(ValueError, match="pickle of Python objects"):
        weights.read(path)
    assert not mark.exists()


def test_a_tensor_larger_than_its_storage(tmp_path, files):
    """A damaged archive cannot read beyond its bytes."""
    small = tmp_path / "small.pt"
    with zipfile.ZipFile(files["ViT-B-32.pt"]) as file, zipfile.ZipFile(small, "w") as out:
        for member in file.namelist():
            data = file.read(member)
            out.writestr(member, data[:8] if "/data/" in member else data)
    with pytest.raises(ValueError, match="a tensor is larger than its storage"):
        weights.read(small)
