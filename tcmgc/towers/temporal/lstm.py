"""CLIP4Clip's seqLSTM."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from tcmgc.config.temporal import Lstm


class FrameLstm(nn.Module):
    """One LSTM layer over the frames in their order, added to the frames.

    Nothing is added to padded frames. (In CLIP4Clip's code they depend on the longest video of the
    batch; its masked mean excludes them.)

    Args:
        options: Has no fields.
        dim: Width of the frames.
        frames: Frames of a video.
    """

    def __init__(self, options: Lstm, dim: int, frames: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, batch_first=True)

    def forward(
        self,
        frames: Float[Tensor, "videos frames dim"],
        mask: Bool[Tensor, "videos frames"],
        patches: Float[Tensor, "videos frames patches dim"] | None = None,
    ) -> Float[Tensor, "videos frames dim"]:
        """Frames with context of those before them; real frames come first in a video."""
        return frames + self.lstm(frames)[0] * mask[..., None]
