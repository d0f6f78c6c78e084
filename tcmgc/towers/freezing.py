"""Freezing: which parts of the towers are not trained."""

from tcmgc.towers.text import TextTower
from tcmgc.towers.visual import VisualTower

_VISUAL = ("conv1", "class_embedding", "positional_embedding", "ln_pre")
"""In open_clip's own vision transformer."""
_TRUNK = ("patch_embed", "cls_token", "pos_embed", "reg_token", "norm_pre", "stem")
"""In timm's."""


def freeze(text: TextTower, visual: VisualTower, what: str) -> None:
    """Disable gradients of frozen parameters.

    Args:
        text: Its embeddings are the tables of words and positions.
        visual: Its embeddings are all that turns pixels into tokens, up to the first layer norm.
        what: ``none``, ``embeddings`` or ``all``. In CLIP, ``embeddings`` is the rule of CLIP4Clip
            and its successors: all but the blocks, last norms, projections and the logit scale.
    """
    if what == "all":
        text.requires_grad_(False)
        visual.requires_grad_(False)
    elif what == "embeddings":
        trunk = getattr(visual.visual, "trunk", None)
        parts = [getattr(visual.visual, name, None) for name in _VISUAL]
        parts += [getattr(trunk, name, None) for name in _TRUNK]
        for part in (*text.embeddings, *parts):
            if part is not None:
                part.requires_grad_(False)


def check(pretrained: str | None, freeze: str, *, learns_tokens: bool = False) -> None:
    """Refuse settings that would freeze randomly initialised weights.

    Args:
        pretrained: ``towers.pretrained``.
        freeze: ``towers.freeze``.
        learns_tokens: The token operation has weights of its own, initialised at random.

    Raises:
        ValueError: random embeddings that are frozen, or a random selection in frozen towers.
    """
    if pretrained is None and freeze == "embeddings":
        raise ValueError(
            "towers.freeze embeddings with towers.pretrained None would train beside random embeddings that never "
            "learn; set towers.freeze none, or give weights"
        )
    if freeze == "all" and learns_tokens:
        raise ValueError(
            "towers.freeze all would leave the weights of the token operation (tokens) random; set towers.freeze "
            "none or embeddings"
        )
