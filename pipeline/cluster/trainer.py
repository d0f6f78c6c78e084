"""Ray Train's trainer, without the helper processes that would have nothing to do here."""

from typing import Any

import ray.train
from ray.train.torch import TorchTrainer

from pipeline.cluster import placement as cluster
from pipeline.cluster import private

FixedScalingPolicy: Any = private.of(
    "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy"
)
_METRICS = {"ControllerMetricsCallback", "WorkerMetricsCallback"}
"""They give Ray's metrics the run's name, and fail where it is not ASCII."""


class Trainer(TorchTrainer):
    """A `TorchTrainer` that starts up to three processes fewer.

    Frames come from the cache and not from Ray Data's datasets, which need a manager. And where the
    cluster ends with this process, no one has to look after a place group that outlives its trial,
    or to ask for nodes. Should Ray rename one of the methods below, all would be started as ever.
    """

    def _create_default_callbacks(self) -> list[Any]:
        idle = {"DatasetsCallback"}
        if cluster.is_ours():
            idle.add("PlacementGroupCleanerCallback")
        if not str(self.run_config.name).isascii():
            idle |= _METRICS
        return [
            one for one in super()._create_default_callbacks() if type(one).__name__ not in idle
        ]

    def _initialize_and_run_controller(self, **parts: Any) -> ray.train.Result:
        if cluster.is_ours() and type(parts.get("scaling_policy")) is FixedScalingPolicy:
            parts["scaling_policy"] = _AsManyAsAsked(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)

    def _register_sigint_handler(self, controller: Any) -> None:
        """Ctrl-C is :func:`pipeline.run_state.notices.on_stop_signals`'s: a checkpoint comes first."""


class _AsManyAsAsked(FixedScalingPolicy):
    """A fixed number of workers that no autoscaler is told of."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing to register."""

    def _maybe_send_resource_request(self) -> None:
        pass
