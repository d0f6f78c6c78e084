"""Patch features in the joint space, for every kind of image encoder in open_clip.

If the encoder ends in a pooling of its tokens, a patch's feature is the result of pooling and
projecting this one token alone. With a class token or a mean, that is the norm and the projection
of the patch; with attention pooling, it includes the value projection.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Tokens = Float[Tensor, "rows tokens dim"]


def of_vision_transformer(visual: Any, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Frame features (rows, dim) and patches (rows, patches, dim) of open_clip's own transformer.

    Args:
        visual: A ``VisionTransformer``.
        tokens: Output of its last block, the class token first.
    """
    pooled = visual._pool(tokens)[0] @ visual.proj
    patches = tokens[:, 1:]
    if visual.attn_pool is None:
        return pooled, visual.ln_post(patches) @ visual.proj
    return pooled, _alone(lambda one: visual._pool(one)[0] @ visual.proj, patches, 2)


def of_any(visual: Any, frames: Tensor) -> tuple[Tensor, Tensor]:
    """The same for any encoder, from normalised frames.

    Raises:
        ValueError: an encoder that is not known.
    """
    kind = type(visual).__name__
    if kind == "VisionTransformer":
        tokens = visual.transformer(visual._embeds(frames))
        return of_vision_transformer(visual, tokens)
    if kind == "TimmModel":
        return _of_timm(visual, frames)
    if kind == "ModifiedResNet":
        return _of_resnet(visual, frames)
    raise ValueError(f"tokens: the image encoder {kind} has no patches that are known here")


def _of_timm(visual: Any, frames: Tensor) -> tuple[Tensor, Tensor]:
    trunk = visual.trunk
    features = trunk.forward_features(frames)

    def head(x: Tensor) -> Tensor:
        return visual.head(trunk.forward_head(x))

    if features.dim() == 3:
        prefix = getattr(trunk, "num_prefix_tokens", 0)
        return head(features), _alone(head, features[:, prefix:], prefix + 1)
    last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
    cells = features.flatten(1, 2) if last else features.flatten(2).transpose(1, 2)
    shape = (1, 1, -1) if last else (-1, 1, 1)
    patches = head(cells.flatten(0, 1).unflatten(1, shape)).unflatten(0, cells.shape[:2])
    return head(features), patches


def _of_resnet(visual: Any, frames: Tensor) -> tuple[Tensor, Tensor]:
    x = visual.stem(frames)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
    pool = visual.attnpool
    cells = x.flatten(2).transpose(1, 2) + pool.positional_embedding[1:]
    return pool(x), pool.c_proj(pool.v_proj(cells))


def _alone(pool: Any, tokens: Tensor, copies: int) -> Tensor:
    """Apply a pooling to sequences of one token each, repeated as the kind of pooling requires."""
    each = tokens.flatten(0, 1)[:, None].expand(-1, copies, -1)
    return pool(each).unflatten(0, tokens.shape[:2])


def joint(pooled: Tensor, patches: Tensor) -> Tokens:
    """Both as one sequence, the frame's feature first."""
    return torch.cat([pooled[:, None], patches], dim=1)


def count(visual: Any) -> int:
    """Number of patches of a frame, determined by running the encoder on an empty one."""
    size = visual.image_size
    weight = next(visual.parameters())
    height, across = size if isinstance(size, tuple) else (size, size)
    with torch.no_grad():
        return of_any(visual, weight.new_zeros(1, 3, height, across))[1].shape[1]
