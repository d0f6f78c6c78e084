"""Features of a whole split and its similarity matrix, over any number of workers."""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from tcmgc.distributed import gather, share, world
from tcmgc.features import Scores, TextFeatures, VideoFeatures
from tcmgc.heads import score_tiled
from tcmgc.model import Retriever

Pixels = tuple[UInt8[Tensor, "videos frames 3 size size"], Bool[Tensor, "videos frames"]]


@torch.inference_mode()
def encode_texts(
    model: Retriever,
    captions: Sequence[str],
    tokenise: Callable[[Sequence[str]], Int[Tensor, "texts words"]],
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> TextFeatures:
    """Features of all captions; each worker encodes its share and all get the whole."""
    rank, workers = world()
    mine = captions[share(len(captions), rank, workers)]
    parts = [
        model.encode_text(tokenise(mine[start : start + batch_size]).to(device))
        for start in range(0, len(mine), batch_size)
    ]
    return TextFeatures.cat(parts).map(lambda tensor: gather(tensor, len(captions)))


@torch.inference_mode()
def encode_videos(model: Retriever, batches: Iterable[Pixels], total: int) -> VideoFeatures:
    """Features of all videos; ``batches`` are this worker's share, in order, on its device."""
    parts = [model.encode_video(pixels, mask) for pixels, mask in batches]
    return VideoFeatures.cat(parts).map(lambda tensor: gather(tensor, total))


@torch.inference_mode()
def similarity(
    model: Retriever, text: TextFeatures, video: VideoFeatures, *, memory: int = 256 * 2**20
) -> Float[Tensor, "texts videos"]:
    """The whole matrix, each worker scoring its share of the texts.

    Args:
        model: Head and scale.
        text: All texts.
        video: All videos.
        memory: Bytes that a tile may take (see :func:`tcmgc.heads.score_tiled`).
    """
    rank, workers = world()
    mine = text[share(len(text), rank, workers)]
    record = model.head.record(video)
    scores: Scores = score_tiled(
        model.head, mine, record, model.scale(), memory=memory, grains=False
    )
    return gather(scores.similarity, len(text))
