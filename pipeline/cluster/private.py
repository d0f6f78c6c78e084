"""All private names of Ray that this project uses, their purpose, and whether they still exist.

Ray gives no guarantees for them. After an upgrade, :func:`missing` (called by a test) lists those
that were removed.
"""

import functools
import importlib
from typing import Any

NAMES = {
    "ray._private.services:get_ray_address_from_environment": "which cluster ray.init would join",
    "ray.autoscaler._private.util:prepare_config": "the check of a `ray up` file",
    "ray.autoscaler._private.util:validate_config": "the check of a `ray up` file",
    "ray.experimental.internal_kv:_internal_kv_put": "word from the driver to its workers",
    "ray.experimental.internal_kv:_internal_kv_get": "word from the driver to its workers",
    "ray.experimental.internal_kv:_internal_kv_del": "word from the driver to its workers",
    "ray.train.v2._internal.constants:ENV_VARS_TO_PROPAGATE": "variables of Ray Train's own processes",
    "ray.train.v2._internal.constants:CHECKPOINT_MANAGER_SNAPSHOT_FILENAME": "Ray's list of checkpoints",
    "ray.train.v2._internal.execution.checkpoint.checkpoint_manager:_CheckpointManagerState": "the same",
    "ray.train.v2._internal.execution.checkpoint.checkpoint_manager:_TrainingResultState": "the same",
    "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy": "a fixed number of workers",
    "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy._maybe_send_resource_request": (
        "a fixed number of workers that no autoscaler is told of"
    ),
    "ray.train.torch:TorchTrainer._create_default_callbacks": "fewer helper processes",
    "ray.train.torch:TorchTrainer._initialize_and_run_controller": "fewer helper processes",
    "ray.train.torch:TorchTrainer._register_sigint_handler": "a checkpoint on Ctrl-C",
    "ray.train.v2._internal.callbacks.datasets:DatasetsCallback": "a helper left out",
    "ray.train.v2._internal.callbacks.placement_group_callback:PlacementGroupCleanerCallback": (
        "a helper left out"
    ),
    "ray.train.v2._internal.callbacks.metrics:ControllerMetricsCallback": (
        "left out where a run's name is not ASCII"
    ),
    "ray.train.v2._internal.callbacks.metrics:WorkerMetricsCallback": "the same",
}
"""``module:attribute``, and its purpose."""


@functools.cache
def of(name: str) -> Any:
    """The object named by a key of :data:`NAMES`; its module is imported now."""
    assert name in NAMES, name
    module, _, path = name.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def missing() -> list[str]:
    """Names that this version of Ray no longer has, one line each, with their purpose."""
    gone = []
    for name, purpose in NAMES.items():
        try:
            of(name)
        except (ImportError, AttributeError) as error:
            gone.append(f"{name} ({purpose}): {error}")
    return gone


def address() -> str | None:
    """The cluster that ``ray.init`` would join: RAY_ADDRESS or the last ``ray start``; None for none.

    Raises:
        ConnectionError: RAY_ADDRESS is ``auto`` and there is no cluster.
    """
    found = of("ray._private.services:get_ray_address_from_environment")(None, None)
    return None if found == "local" else found


def put(key: str, value: str) -> None:
    """Store a value in the cluster's own store until it is deleted."""
    of("ray.experimental.internal_kv:_internal_kv_put")(key, value)


def get(key: str) -> bytes | None:
    """The value stored under a key."""
    return of("ray.experimental.internal_kv:_internal_kv_get")(key)


def delete(key: str) -> None:
    """Delete the value under a key."""
    of("ray.experimental.internal_kv:_internal_kv_del")(key)
