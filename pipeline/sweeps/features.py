"""The features of frozen towers, computed once for a complete sweep."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import ray
import torch

from pipeline import cli
from pipeline.cluster import placement as cluster
from pipeline.inputs import prepare
from pipeline.run_state import checkpoints, run_folder
from pipeline.sweeps.plan import Sweep
from tcmgc import model, storage
from tcmgc.config import Config, from_dict, replace
from tcmgc.datasets import Corpus, Split
from tcmgc.towers import backbone
from tcmgc.training import checkpoint, frozen

FILE = "features.safetensors"


def make(sweep: Sweep, config: Config, corpus: Corpus) -> str:
    """Path of the file of features, which is created if it does not exist.

    Raises:
        ValueError: not a checkpoint, or its towers or frames differ from the config's.
    """
    place = storage.join(sweep.place, FILE)
    if not run_folder.exists(sweep.place, FILE):
        where = cluster.placement(replace(config, {"train.workers": 1, "train.min_workers": 0}))
        print(f"features of {len(corpus['train'])} and {len(corpus['val'])} videos: to {place}")
        task = ray.remote(num_cpus=where.cpus, num_gpus=1 if where.gpu else 0)(_make)
        splits = {name: corpus[name] for name in ("train", "val")}
        try:
            ray.get(task.remote(sweep.base, sweep.towers, splits, place))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ValueError):
                raise error.cause from error
            raise
    return place


def _make(base: dict[str, Any], towers: str | None, splits: dict[str, Split], place: str) -> None:
    cli.quiet()
    torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources()["CPU"])))
    config = from_dict(base)
    retriever = model.build(config) if towers is None else _trained(config, towers)
    retriever.to("cuda" if ray.get_gpu_ids() else "cpu")
    tokenise = backbone.tokenizer(config.towers.name, config.data.max_words)
    found = {}
    for name, split in splits.items():
        reader = prepare.frame_cache(config).open(split.clips)

        def read(start: int, stop: int, split: Split = split, reader: Any = reader) -> Any:
            pixels, mask = reader.read(split.clips[start:stop])
            return torch.from_numpy(pixels), torch.from_numpy(mask)

        captions = [clip.captions for clip in split.clips]
        found[name] = frozen.extract(retriever, read, captions, tokenise)
    with tempfile.TemporaryDirectory() as made:
        aside = Path(made) / FILE
        frozen.save(found, aside)
        storage.upload(aside, f"{place}.partial" if not storage.is_uri(place) else place)
    if not storage.is_uri(place):
        os.replace(f"{place}.partial", place)  # atomic


def _trained(config: Config, folder: str) -> model.Retriever:
    check_towers(folder, config)
    with checkpoints.local(checkpoints.chosen(folder)) as place:
        return checkpoint.load(place)[1]


def check_towers(folder: str, config: Config) -> None:
    """Make sure that a checkpoint, or the best one of a run, has the towers of a config.

    Raises:
        ValueError: it is not a checkpoint, or has other towers.
    """
    with checkpoints.local(checkpoints.chosen(folder)) as place:
        found = checkpoint.read_config(place)
        if _model(found.towers.name) != _model(config.towers.name):
            raise ValueError(
                f"--towers {storage.plain(folder)} has towers {found.towers.name}, the recipe {config.towers.name}; "
                "give a recipe with the same"
            )


def _model(name: str) -> Any:
    """A tower's identity: the content of its file, or its name."""
    return json.loads(Path(name).read_text()) if name.endswith(".json") else name
