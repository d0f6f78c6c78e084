"""Sweeps as plain data, and their check before anything runs.

Paper figures are for the MSR-VTT test split; a sweep itself uses only the validation split.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tcmgc import config as configs
from tcmgc.config import Config, HeadOptions
from tcmgc.retrieval.metrics import retrieval_metrics

T2V = ("t2v/R1", "t2v/R5", "t2v/R10", "t2v/RSum")
V2T = ("v2t/R1", "v2t/R5", "v2t/R10", "v2t/RSum")
BOTH = (*T2V, *V2T, "SumR")
PARAMETERS = "isa_parameters"
"""Learnable parameters of ISA and Bi-ISA."""


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number between two others, on a linear or logarithmic scale."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of a table."""

    label: str
    changes: dict[str, Any]
    """Fields by dotted path."""
    paper: dict[str, float] = field(default_factory=dict)
    """The paper's figures for the row on MSR-VTT's test split, as far as it gives numbers."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Changes that a config needs if some fields have certain values."""

    when: dict[str, tuple[Any, ...]]
    then: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Space:
    """A table or figure (``variants``), or fields to sample (``axes``)."""

    name: str
    title: str
    source: str
    """Table or figure of the paper."""
    variants: tuple[Variant, ...] = ()
    axes: dict[str, Choice | Range] = field(default_factory=dict)
    fixed: dict[str, Any] = field(default_factory=dict)
    """Fields that every trial has changed."""
    rules: tuple[Rule, ...] = ()
    metric: str = "val/SumR"
    columns: tuple[str, ...] = BOTH
    """Of the table, in the paper's order."""
    scheduler: Literal["grid", "asha"] = "grid"
    """`asha` stops trials that are worse than others at the same epoch."""
    samples: int = 0
    """Trials drawn from ``axes``."""
    epochs: int | None = None
    """Budget of a trial; None: the recipe's own."""
    demo_epochs: int = 1
    """Budget on the demo corpus, which is for trying things out."""
    plot: str | None = None
    """The field along the plot's horizontal axis."""

    def __post_init__(self) -> None:
        where = f"space {self.name}"
        if bool(self.variants) == bool(self.axes):
            what = "both variants and axes" if self.variants else "neither variants nor axes"
            raise ValueError(f"{where} is empty or unclear: it has {what}; give one of them")
        for path, axis in self.axes.items():
            if isinstance(axis, Choice) and not axis.values:
                raise ValueError(f"{where}: {path} has no value to choose from")
            if isinstance(axis, Range) and not axis.low < axis.high:
                raise ValueError(f"{where}: {path} runs from {axis.low} to {axis.high}")
        if self.axes and self.samples < 1:
            raise ValueError(f"{where}: samples must be at least 1; got {self.samples}")
        labels = [variant.label for variant in self.variants]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"{where} has two variants called {twice[0]!r}")
        if (self.epochs is not None and self.epochs < 1) or self.demo_epochs < 1:
            raise ValueError(
                f"{where}: the budget must be at least one epoch: validation comes after each; "
                f"got {min(self.epochs or 1, self.demo_epochs)}"
            )

    @property
    def paths(self) -> list[str]:
        """Every field that differs between trials, in order of first occurrence."""
        found = dict.fromkeys(path for variant in self.variants for path in variant.changes)
        return [*found, *self.axes]

    def budget(self, config: Config) -> int:
        """Epochs of a trial on the config's data."""
        return (
            self.demo_epochs
            if config.data.dataset == "demo"
            else self.epochs or config.train.epochs
        )

    def variant(self, label: str) -> Variant:
        """The variant of that label."""
        return next(variant for variant in self.variants if variant.label == label)

    def apply(self, config: Config, changes: dict[str, Any]) -> Config:
        """The config of a trial: the space's fixed fields, its changes, then those of the rules.

        Raises:
            ValueError: names the space and the invalid field.
        """
        wanted = {**self.fixed, **changes}
        self._refuse_other_methods(config, wanted)
        try:
            flat = {**configs.flatten(config), **wanted}
            for rule in self.rules:
                if all(_in(flat.get(path), values) for path, values in rule.when.items()):
                    wanted |= rule.then
            return configs.replace(config, wanted)
        except ValueError as error:
            raise ValueError(f"space {self.name}: {error}") from error

    def _refuse_other_methods(self, config: Config, changes: dict[str, Any]) -> None:
        known = configs.flatten(config)
        for path in changes:
            if path in known or not path.startswith("head."):
                continue
            owners = [kind for kind in HeadOptions.kinds.values() if path in _fields(kind)]
            if owners:
                raise ValueError(
                    f"space {self.name} changes {path}, a field of {owners[0].__name__}; this recipe's head is "
                    f"{type(config.head).__name__}: choose a recipe with the other head"
                )


def check(space: Space, config: Config) -> None:
    """Try every variant, or every value and both ends of every range, on the config.

    Raises:
        ValueError: an unknown field (lists similar ones), a field of another method, a value
            that the config refuses, or a metric that no trial reports.
    """
    reported = [f"val/{name}" for name in retrieval_metrics(np.eye(2), np.arange(2))]
    if space.metric not in reported:
        raise ValueError(
            f"space {space.name}: no trial reports {space.metric!r}; reported are {', '.join(reported)}"
        )
    for changes in _trials(space):
        space.apply(config, changes)


def _trials(space: Space) -> Iterator[dict[str, Any]]:
    for variant in space.variants:
        yield variant.changes
    for path, axis in space.axes.items():
        values = axis.values if isinstance(axis, Choice) else (axis.low, axis.high)
        yield from ({path: value} for value in values)


def _in(value: Any, values: tuple[Any, ...]) -> bool:
    return _plain(value) in [_plain(one) for one in values]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _fields(head: type) -> set[str]:
    def walk(value: Any, path: str) -> Iterator[str]:
        for name, child in vars(value).items():
            if hasattr(child, "__dataclass_fields__"):
                yield from walk(child, f"{path}{name}.")
            else:
                yield path + name

    return set(walk(head(), "head."))
