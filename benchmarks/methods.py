"""Configs of all methods, for benchmarks: at the paper's sizes, or on the demo's small towers."""

from dataclasses import replace

from tcmgc import recipes
from tcmgc.config import Config
from tune_spaces.published import METHODS as PUBLISHED


def names_of(asked: list[str]) -> list[str]:
    """Names of methods; ``all`` is every one, ``paper`` those of the paper's tables.

    Raises:
        ValueError: a name that is none.
    """
    groups = {"all": list(recipes.METHODS), "paper": list(PUBLISHED.values())}
    return [name for one in asked for name in groups.get(one, [one])]


def configs(asked: list[str], *, small: bool = False) -> dict[str, Config]:
    """Configs by name, with the same sizes for all: 32 words, 12 frames and ViT-B/32, or the demo's.

    Towers have random weights.

    Raises:
        ValueError: a name that is none.
    """
    base = recipes.recipe("demo" if small else "msrvtt_9k")
    base = replace(base, towers=replace(base.towers, pretrained=None))
    return {name: recipes.applied(base, name, fair=True) for name in names_of(asked)}


def by_head(given: dict[str, Config]) -> dict[str, Config]:
    """One config per head: methods that differ only in their towers have the same scoring."""
    found: dict[str, tuple[str, Config]] = {}
    for name, config in given.items():
        key = repr((config.head, config.tokens.patches_given, frames(config)))
        others = f"{found[key][0]}, {name}" if key in found else name
        found[key] = others, found[key][1] if key in found else config
    return dict(found.values())


def frames(config: Config) -> int:
    """Number of a video's frames at the head."""
    return config.tokens.frames_after(config.data.max_frames)
