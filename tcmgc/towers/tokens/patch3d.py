"""CLIP4Clip's ``linear_patch 3d``: patches that span three frames."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tcmgc.config.tokens import Patch3d as Options
from tcmgc.towers.tokens.operation import Rows, TokenOperation, check


class Patch3d(TokenOperation):
    """Replaces the patch convolution by a convolution over three neighbouring frames.

    It is initialised as the patch convolution for the frame itself and as zero for its neighbours.
    Frames before the first and after the last one of a video are zeros.

    Args:
        options: Has no fields.
        visual: The tower's image encoder, whose ``conv1`` is no longer used.
        frames: Frames of a video.
        dim: Width of the joint space.
    """

    def __init__(self, options: Options, visual: Any, frames: int, dim: int) -> None:
        super().__init__()
        check(visual, "a convolution over frames")
        flat = visual.conv1.weight.detach()
        self.weight = nn.Parameter(torch.zeros(*flat.shape[:2], 3, *flat.shape[2:]))
        self.initialise_from(visual)

    @torch.no_grad()
    def initialise_from(self, visual: Any) -> None:
        """Initialise from the encoder's own patch convolution."""
        self.weight.zero_()
        self.weight[:, :, 1] = visual.conv1.weight

    def embed(
        self, visual: Any, frames: Float[Tensor, "rows 3 size size"], rows: Rows
    ) -> Float[Tensor, "rows tokens width"]:
        """Tokens that include their patch in the previous and next frame."""
        kernels = self.weight.permute(2, 0, 1, 3, 4).flatten(0, 1)
        earlier, own, later = F.conv2d(frames, kernels, stride=visual.conv1.stride).chunk(3, dim=1)
        out = own
        for part, (place, there) in ((earlier, rows.before), (later, rows.after)):
            out = out + part[place] * there[:, None, None, None]
        patches = out.flatten(2).transpose(1, 2)
        first = visual.class_embedding.to(out.dtype).expand(len(out), 1, -1)
        tokens = torch.cat([first, patches], dim=1) + visual.positional_embedding.to(out.dtype)
        return visual.ln_pre(visual.patch_dropout(tokens))
