"""An index of synthetic windows of ViT-B/32's size: 12 frames, 32 words, 512 channels.

Frames are drawn at random around topics: sizes and times are those of a real index, results are
not. Features replace the towers' outputs; the towers are small ones with random
weights; the head is TC-MGC's with random weights.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from tcmgc import model
from tcmgc.config import Config, Data, TcMgcHead, Temporal, Towers
from tcmgc.search import Settings, Writer
from tcmgc.search.encoder import Encoder
from tcmgc.search.files import FileRow
from tcmgc.search.place import Place
from tcmgc.search.segment import Rows
from tcmgc.towers.features import TextFeatures, VideoFeatures
from tcmgc.training import checkpoint

DIM, FRAMES, WORDS, TOPICS = 512, 12, 32, 2000
_TOWER = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {
        "context_length": WORDS,
        "vocab_size": 49408,
        "width": 64,
        "heads": 2,
        "layers": 1,
    },
}


def save_model(folder: Path) -> Path:
    """The checkpoint."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as aside:
        tower = Path(aside, "wide.json")
        tower.write_text(json.dumps(_TOWER))
        config = Config(
            data=Data(dataset="table", root="", max_words=WORDS, max_frames=FRAMES),
            towers=Towers(name=str(tower), pretrained=None),
            temporal=Temporal(layers=1, heads=8),
            head=TcMgcHead(),
        )
        made = model.build(config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in made.head.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
            # Attention that distinguishes frames, as after training.
            made.head.attention.query.weight *= 4
        checkpoint.save(folder, config, made, None, {})
    return folder


def topics() -> torch.Tensor:
    """Directions around which windows and queries are drawn."""
    return torch.randn(TOPICS, DIM, generator=torch.Generator().manual_seed(1))


def draw_videos(count: int, seed: int) -> VideoFeatures:
    """Windows of one to three scenes, each near a topic; neighbouring frames are similar."""
    generator = torch.Generator().manual_seed(seed)
    scenes = torch.randint(TOPICS, (count, 3), generator=generator)
    which = (torch.rand(count, FRAMES, generator=generator) * 3).long().sort(1).values
    centre = topics()[scenes.gather(1, which)]
    scene = torch.randn(count, 3, DIM, generator=generator).gather(
        1, which.unsqueeze(-1).expand(-1, -1, DIM)
    )
    frames = centre + 0.8 * scene + 0.4 * torch.randn(count, FRAMES, DIM, generator=generator)
    return VideoFeatures(frames, frames, torch.ones(count, FRAMES, dtype=torch.bool))


def draw_texts(count: int, seed: int = 9) -> TextFeatures:
    """Queries, each near a topic."""
    generator = torch.Generator().manual_seed(seed)
    centre = topics()[torch.randint(TOPICS, (count,), generator=generator)]
    sentence = centre + 0.8 * torch.randn(count, DIM, generator=generator)
    words = 0.6 * centre.unsqueeze(1) + torch.randn(count, WORDS, DIM, generator=generator)
    mask = torch.arange(WORDS) < torch.randint(6, 20, (count, 1), generator=generator)
    return TextFeatures(sentence, words, mask)


@torch.inference_mode()
def rows(
    encoder: Encoder, count: int, seed: int, settings: Settings, distinct: int = 0
) -> Iterator[tuple[bytes, Rows]]:
    """Rows of ``count`` one-window videos; with ``distinct``, records repeat after this many."""
    dtype = torch.float16 if settings.precision == "float16" else torch.float32
    step, kept = 1024, []
    for start in range(0, count, step):
        size = min(step, count - start)
        turn = start // step
        if distinct and turn * step >= distinct:
            arrays = {name: array[:size] for name, array in kept[turn % len(kept)].items()}
        else:
            video = draw_videos(size, seed * 1_000_003 + turn)
            arrays = {
                "records": encoder.layout.rows(encoder.head.record(video), dtype).numpy(),
                "vectors": encoder.vectors(video, settings.vectors).to(dtype).numpy(),
            }
            if distinct:
                kept.append(arrays)
        for at in range(size):
            key = (seed * 10**9 + start + at).to_bytes(16, "big")
            one = {name: array[at : at + 1] for name, array in arrays.items()}
            one |= {
                "key": np.frombuffer(key, np.uint8)[None].copy(),
                "span": np.array([[0.0, 30.0]]),
                "times": np.arange(FRAMES, dtype=np.float32)[None],
            }
            yield key, Rows(one, (b"\xff\xd8" + b"\0" * 10_000,))


def fill(writer: Writer, encoder: Encoder, count: int, seed: int = 0, distinct: int = 0) -> None:
    """Add synthetic videos to an index and commit them, a segment at a time."""
    for key, one in rows(encoder, count, seed, writer.version.settings, distinct):
        name = f"/made-up/{seed}/{int.from_bytes(key, 'big')}.mp4"
        writer.add(key, one)
        writer.put(FileRow(path=name, size=1, modified=1, key=key, duration=30.0, codec="h264"))
        if writer.waiting >= 8192:
            writer.commit()
    writer.commit()


def build(out: Path, windows: int, settings: Settings | None = None, distinct: int = 0) -> Writer:
    """Build an index with this many windows, or open the existing one."""
    if (out / "index.json").is_file():
        return Writer.open(Place(str(out)))
    saved = save_model(out.with_name(f"{out.name}-model"))
    writer = Writer.create(Place(str(out)), saved, settings or Settings())
    fill(writer, Encoder.load(saved), windows, distinct=distinct)
    writer.encode()
    return writer
