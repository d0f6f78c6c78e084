"""A comparison of methods as a sweep: a trial for each method and seed, and a control."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pipeline.sweeps.plan import Sweep
from tcmgc.config import Config, fingerprint, from_dict, replace
from tcmgc.recipes import methods
from tune_spaces import Space, Variant

CONTROL = "shuffled captions"
"""Label of trials in which training videos have exchanged captions."""


@dataclass(frozen=True, kw_only=True)
class Comparison(Sweep):
    """All methods on one recipe's data, towers and seeds."""

    fair: bool
    """The recipe's batch, epochs, rates and optimiser for all; else those of each method's authors."""
    control: str
    """Method of the control."""

    @property
    def name(self) -> str:
        """A name that depends on everything that decides a trial's result."""
        trials = [fingerprint(self.of(method)) for method in self.methods]
        settings = [self.methods, trials, self.control, self.fair]
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
        return f"compare-{self.base['data']['dataset']}-{digest}-{self.seeds}-seeds"

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of the table."""
        return [one.label for one in self.space.variants if one.label != CONTROL]

    def of(self, method: str) -> Config:
        """A method's config on the recipe."""
        return methods.applied(from_dict(self.base), method, fair=self.fair)

    def chosen(self, settings: dict[str, Any]) -> Config:
        """The method's config with the trial's seed."""
        label = settings["variant"]
        config = self.of(self.control if label == CONTROL else label)
        return replace(config, {"train.seed": self.seed(settings)})

    def shuffles(self, settings: dict[str, Any]) -> bool:
        """True for the control."""
        return settings["variant"] == CONTROL

    @property
    def varied(self) -> tuple[str, ...]:
        """The parts of a method."""
        return ("tokens.kind", "temporal.kind", "head.kind", "train.seed")


def space(names: list[str], data: str) -> Space:
    """The methods, and the control, as variants of a space."""
    return Space(
        name="compare",
        title=f"Methods on {data}",
        source="Tables 1 to 3 and 14",
        variants=tuple(Variant(label=name, changes={}) for name in [*names, CONTROL]),
    )
