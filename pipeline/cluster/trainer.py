"""Ray Train's trainer, without helper processes that are not needed here."""

from typing import Any

import ray.train
from ray.train.torch import TorchTrainer

from pipeline.cluster import placement as cluster
from pipeline.cluster import private

FixedScalingPolicy: Any = private.of(
    "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy"
)
_METRICS = {"ControllerMetricsCallback", "WorkerMetricsCallback"}
"""They add the run's name to Ray's metrics, and fail if it is not ASCII."""


class Trainer(TorchTrainer):
    """A `TorchTrainer` that starts up to three processes fewer.

    Frames come from the cache and not from Ray Data's datasets, which need a manager. If the
    cluster ends with this process, nothing must clean up a placement group that outlives its trial,
    or request nodes. If Ray renames one of the methods below, all processes are started as usual.
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
        """:func:`pipeline.run_state.notices.on_stop_signals` handles Ctrl-C and writes a checkpoint first."""


class _AsManyAsAsked(FixedScalingPolicy):
    """A fixed number of workers, not reported to an autoscaler."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Nothing to register."""

    def _maybe_send_resource_request(self) -> None:
        pass
