"""Ray Train's trainer, without the helper processes that would have nothing to do here."""

from typing import Any

from ray.train.torch import TorchTrainer

from pipeline import cluster


class Trainer(TorchTrainer):
    """A `TorchTrainer` that starts two processes fewer.

    Frames come from the cache and not from Ray Data's datasets, which need a manager. And where the
    cluster ends with this process, no one has to look after a place group that outlives its trial.
    Should Ray rename the method below, both would be started as ever.
    """

    def _create_default_callbacks(self) -> list[Any]:
        idle = {"DatasetsCallback"}
        if cluster.is_ours():
            idle.add("PlacementGroupCleanerCallback")
        return [
            one for one in super()._create_default_callbacks() if type(one).__name__ not in idle
        ]
