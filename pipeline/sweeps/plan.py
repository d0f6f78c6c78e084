"""A sweep as it is sent to its trials: a space, the base config, seeds, a folder."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from tcmgc import storage
from tcmgc.config import Config, fingerprint, flatten, from_dict, replace

FROZEN_LEAVES_OUT = ("optim.lr_clip",)
"""Fields without effect if the towers are frozen."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The plan of a sweep; the same on the driver and in every trial."""

    space: Any
    """One of `tune_spaces.SPACES`: data that may name the pipeline, so it is not imported here."""
    base: dict[str, Any]
    """The config that variants change, as JSON types."""
    seeds: int
    samples: int
    epochs: int
    frozen: bool = False
    pairs: int = 0
    """Training pairs per epoch of a frozen sweep; 0: all."""
    towers: str | None = None
    """Checkpoint whose towers compute a frozen sweep's features; None: the recipe's own."""
    folder: str
    """Parent of the sweep's folder, which is named after what decides its result."""

    @property
    def name(self) -> str:
        """A name that depends on everything that decides the result."""
        base = fingerprint(from_dict(self.base))
        settings = [repr(self.space), base, self.towers, self.epochs, self.pairs]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        size = f"{self.samples}-samples" if self.samples else f"{self.seeds}-seeds"
        return f"{self.space.name}{'-frozen' if self.frozen else ''}-{digest}-{size}"

    @property
    def place(self) -> str:
        """The sweep's own folder, a path or a URI."""
        return storage.join(self.folder, self.name)

    @property
    def trials(self) -> str:
        """Folder of the trials' runs."""
        return storage.join(self.place, "trials")

    @property
    def total(self) -> int:
        """Number of trials of the complete sweep."""
        return self.samples or len(self.space.variants) * self.seeds

    @property
    def axes(self) -> dict[str, Any]:
        """The sampled fields in this kind of sweep."""
        left_out = FROZEN_LEAVES_OUT if self.frozen else ()
        return {path: axis for path, axis in self.space.axes.items() if path not in left_out}

    def seed(self, settings: dict[str, Any]) -> int:
        """The trial's seed."""
        return settings.get("seed", self.base["train"]["seed"])

    def label(self, settings: dict[str, Any], trial_id: str) -> str:
        """The variant's name; for a sample, its trial's id."""
        return settings.get("variant") or f"sample {trial_id}"

    def run(self, settings: dict[str, Any], trial_id: str) -> str:
        """Name of the trial's folder."""
        label = self.label(settings, trial_id)
        clean = "".join(c if c.isalnum() or c in "=.+-" else "-" for c in label)
        return f"{clean}-seed{self.seed(settings)}"

    def trial_folder(self, settings: dict[str, Any], trial_id: str) -> str:
        """The trial's folder, a path or a URI."""
        return storage.join(self.trials, self.run(settings, trial_id))

    def config(self, settings: dict[str, Any]) -> Config:
        """The trial's complete config, as it is run."""
        run: dict[str, Any] = {"train.keep_checkpoints": 1}
        if self.frozen:
            run["towers.freeze"] = "all"
        return replace(self.chosen(settings), run)

    def chosen(self, settings: dict[str, Any]) -> Config:
        """The config that the trial represents, for full training including the towers."""
        if "variant" in settings:
            changes = self.space.variant(settings["variant"]).changes
        else:
            changes = {path: decode(value) for path, value in settings.items()}
        config = self.space.apply(from_dict(self.base), changes)
        return replace(config, {"train.seed": self.seed(settings), "train.epochs": self.epochs})

    def shuffles(self, settings: dict[str, Any]) -> bool:
        """Whether the captions of the trial's training videos are shuffled."""
        return False

    @property
    def varied(self) -> tuple[str, ...]:
        """The fields that differ between trials, by dotted path."""
        seeds = ("train.seed",) if self.seeds > 1 else ()
        return (*(self.axes or self.space.paths), *seeds)


def encode(value: Any) -> Any:
    """A value that Optuna accepts as a category: lists become JSON."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def decode(value: Any) -> Any:
    """The inverse of :func:`encode`."""
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value


def as_dict(sweep: Sweep) -> dict[str, Any]:
    """The sweep's own description for MLflow."""
    return {
        "space": asdict(sweep.space),
        "base": sweep.base,
        "seeds": sweep.seeds,
        "samples": sweep.samples,
        "epochs": sweep.epochs,
        "frozen": sweep.frozen,
        "pairs": sweep.pairs,
        "towers": sweep.towers,
    }


def starting_point(sweep: Sweep) -> dict[str, Any]:
    """The recipe's own values of the sampled fields, if the space has them, to be tried first."""
    flat = flatten(from_dict(sweep.base))
    point = {}
    for path, axis in sweep.axes.items():
        value = flat[path]
        if hasattr(axis, "values"):
            options = [encode(one) for one in axis.values]
            value = encode(value) if encode(value) in options else options[0]
        else:
            value = min(max(value, axis.low), axis.high)
        point[path] = value
    return point
