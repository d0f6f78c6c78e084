"""A model for indexing without any training: bare CLIP towers and a head without weights."""

from pathlib import Path

from tcmgc import model
from tcmgc.config import Config, Data, Loss, MeanHead, MeanMaxHead, Pooling, Temporal, Towers
from tcmgc.training import checkpoint


def make(towers: Towers, pooling: Pooling, folder: Path | str) -> None:
    """Write the model's checkpoint into an existing folder.

    Args:
        towers: an open_clip model, and its weights: a tag or a file.
        pooling: a video's similarity to a sentence: ``mean``, the cosine of the sentence and the mean
            of the normalised frames; ``mean-max``, the mean over the words of each word's best frame.
        folder: the destination.

    Raises:
        ValueError: the weights cannot be loaded.
    """
    config = Config(
        data=Data(dataset="table", root=""),
        towers=towers,
        temporal=Temporal(layers=0),
        head=MeanHead() if pooling == "mean" else MeanMaxHead(),
        loss=Loss(alpha=0.0),
    )
    checkpoint.save(folder, config, model.build(config), None, {})
