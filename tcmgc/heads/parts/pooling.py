"""One vector of a video from its frames."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def mean_of_frames(
    frames: Float[Tensor, "videos frames dim"], mask: Bool[Tensor, "videos frames"]
) -> Float[Tensor, "videos dim"]:
    """The L2-normalised mean of L2-normalised frames inside the mask."""
    counted = mask.unsqueeze(-1).to(frames.dtype)
    return F.normalize((F.normalize(frames, dim=-1) * counted).sum(1) / counted.sum(1), dim=-1)
