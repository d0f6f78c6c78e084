"""An index of a few tiny videos, made without Ray."""

from pathlib import Path
from typing import Any

import torch
from video_clips import make

from pipeline.inputs import indexing
from tcmgc import model
from tcmgc.config import Config, Data, HeadOptions, Loss, TcMgcHead, Temporal, Towers
from tcmgc.search import Index, Settings, Writer, folder
from tcmgc.search.place import Place
from tcmgc.training import checkpoint

SETTINGS = Settings(strip_frames=2, strip_height=16)
LENGTHS = {"a.mp4": 50, "b.mp4": 60, "c.mp4": 75}
"""Videos of two to three seconds: pictures at 25 a second."""


def save_model(folder: Path, tower: str, head: HeadOptions | None = None, seed: int = 0) -> Path:
    """A checkpoint of the tiny towers and a head with random weights."""
    config = Config(
        data=Data(dataset="table", root="", max_words=12, max_frames=4),
        towers=Towers(name=tower, pretrained=None),
        temporal=Temporal(layers=1, heads=2),
        head=head or TcMgcHead(),
        loss=Loss(alpha=0.0),
    )
    made = model.build(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    folder.mkdir(parents=True)
    checkpoint.save(folder, config, made, None, {})
    return folder


def make_videos(root: Path, lengths: dict[str, int] = LENGTHS, **options: Any) -> Path:
    """Drawn videos by name and number of pictures."""
    for name, frames in lengths.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        make(root / name, frames=frames, **options)
    return root


def update(writer: Writer, root: Path | str) -> list[str]:
    """What the command does, in this process; gives the names of the files that were encoded."""
    found = folder.scan(str(root))
    job = indexing.Job(
        index=writer.place.folder,
        model=writer.version.model["hash"],
        settings=writer.version.settings,
        timeout=60.0,
        known=indexing.sorted_keys(
            [row.key for row in writer.files.values() if writer.has(row.key)]
        ),
        encode=True,
    )
    encoded = []
    for path, stamp in sorted(found.stamps.items()):
        if writer.current(path, stamp):
            continue
        task = indexing.Task(path, stamp)
        done = indexing.process(job, task)
        parts = [done]
        if done.todo:
            parts = [indexing.process(job, indexing.Task(path, stamp, done.row, done.todo))]
        done = indexing._judged(done.row, parts)
        if done.rows is not None:
            encoded.append(Path(path).name)
            writer.add(done.row.key, done.rows)
        writer.put(done.row)
    for path in [path for path in writer.files if folder.below(path, found.root)]:
        if path not in found.stamps:
            writer.forget(path)
    writer.commit()
    return encoded


def build(out: Path | str, root: Path, model: Path, settings: Settings = SETTINGS) -> Index:
    """A new index of a folder."""
    update(Writer.create(Place(str(out)), model, settings), root)
    return Index.open(str(out))


def names(index: Index, text: str = "a red ball", **options: Any) -> list[str]:
    """Files in the order that they are found."""
    return [Path(m.file.path).name for m in index.search(text, 50, **options)[0].matches]
