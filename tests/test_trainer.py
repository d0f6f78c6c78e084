"""What the trainer leaves out, and that Ray still calls the methods it leaves them out in."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    FixedScalingPolicy,
)

from pipeline.cluster import placement as ours
from pipeline.cluster.trainer import Trainer


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the controller was last given."""
    given: dict[str, Any] = {}

    def run(self: Any, **parts: Any) -> Any:
        given.update(parts)
        return SimpleNamespace(error=None)

    monkeypatch.setattr(TorchTrainer, "_initialize_and_run_controller", run)
    return given


def fit(workers: int | tuple[int, int]) -> None:
    Trainer(lambda: None, scaling_config=ray.train.ScalingConfig(num_workers=workers)).fit()


@pytest.mark.parametrize("own", [True, False])
def test_helpers_of_long_lived_clusters_are_not_started_in_our_own(
    own: bool, cluster: Any, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ours, "_OURS", own)
    fit(2)
    names = [type(callback).__name__ for callback in parts["callbacks"]]
    assert "DatasetsCallback" not in names
    assert ("PlacementGroupCleanerCallback" in names) != own
    assert "BackendSetupCallback" in names
    policy = parts["scaling_policy"]
    assert (type(policy) is FixedScalingPolicy) != own
    # Ray's own would start the coordinator's process here.
    if own:
        policy.after_controller_start(SimpleNamespace(run_id="run"))
        assert policy.make_decision_for_non_running_worker_group().num_workers == 2
        policy.before_controller_abort()


def test_an_elastic_number_of_workers_is_rays_affair(
    cluster: Any, parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ours, "_OURS", True)
    fit((1, 2))
    assert type(parts["scaling_policy"]) is ElasticScalingPolicy


def test_workers_have_one_heap_and_the_jobs_variables(cluster: Any, home: Any, tmp_path: Any):
    names = ("MALLOC_ARENA_MAX", "TCMGC_HOME")
    result = Trainer(
        lambda: {name: os.environ.get(name) for name in names},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(storage_path=str(tmp_path), worker_runtime_env=ours.WORKERS),
    ).fit()
    assert result.return_value == {"MALLOC_ARENA_MAX": "1", "TCMGC_HOME": str(home)}
