"""A model for indexing without any training: bare CLIP towers and a head without weights."""

from pathlib import Path
from typing import Literal

from tcmgc import model
from tcmgc.config import Config, Data, Loss, TcMgcHead, Temporal, Towers
from tcmgc.training import checkpoint

Pooling = Literal["mean", "max"]


def make(towers: Towers, pooling: Pooling, folder: Path | str) -> None:
    """Write the model's checkpoint into a folder that exists.

    Args:
        towers: an open_clip model, and its weights: a tag or a file.
        pooling: a video's similarity to a sentence: ``mean``, the cosine of the sentence and the mean
            of the normalised frames; ``max``, the best cosine of the sentence and a frame.
        folder: where to.

    Raises:
        ValueError: weights that cannot be had.
    """
    config = Config(
        data=Data(dataset="table", root=""),
        towers=towers,
        temporal=Temporal(layers=0),
        head=_head(pooling),
        loss=Loss(alpha=0.0),
    )
    checkpoint.save(folder, config, model.build(config), None, {})


def _head(pooling: Pooling) -> TcMgcHead:
    if pooling == "mean":
        return TcMgcHead(text_conditioned=False, grains=("video_sentence",))
    raise ValueError("pooling max waits for its head")
