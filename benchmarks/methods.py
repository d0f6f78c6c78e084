"""Configs of all methods, for benchmarks: at the paper's sizes, or on the demo's small towers."""

from dataclasses import replace

from tcmgc import recipes
from tcmgc.config import Config

_RECIPES = {
    "tcmgc": "msrvtt_9k",
    "tcmgc_released": "msrvtt_9k_released",
    "xpool": "msrvtt_9k_xpool",
    "xclip": "msrvtt_9k_xclip",
}


def configs(names: list[str], *, small: bool = False) -> dict[str, Config]:
    """By name; ``all`` is every method. Towers have random weights.

    Raises:
        ValueError: a name that is none.
    """
    wanted = list(_RECIPES) if names == ["all"] else names
    unknown = [name for name in wanted if name not in _RECIPES]
    if unknown:
        raise ValueError(f"there is no method {unknown[0]!r}; known are {', '.join(_RECIPES)}")
    found = {}
    for name in wanted:
        config = recipes.recipe(_RECIPES[name] + (":smoke" if small else ""))
        found[name] = replace(config, towers=replace(config.towers, pretrained=None))
    return found
