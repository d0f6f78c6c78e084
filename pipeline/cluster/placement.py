"""Connect to Ray, and determine the placement of workers."""

import logging
import os
import secrets
from dataclasses import dataclass
from typing import Any

import ray
import ray.train

from pipeline.cli import CHECKOUT, home, in_job
from pipeline.cluster import address, capacity, private
from tcmgc.config import Config

WORKERS: dict[str, Any] = {"env_vars": {"MALLOC_ARENA_MAX": "1", "KINETO_LOG_LEVEL": "99"}}
"""Ray's `worker_runtime_env` of a training worker: one heap for all threads.

A worker's function runs in a thread. glibc gives a thread heaps that begin at multiples of 64 MB, so
addresses of large tensors differ by multiples of 256 MB. On AMD's processors these cannot be in the
L1 cache together: the optimiser's step takes three times as long (`benchmarks/heaps.py`).
The log of PyTorch's profiler is hidden from the terminal.
"""

_OURS = False
"""Whether this process started its cluster."""


def is_ours() -> bool:
    """Whether this process started the cluster, for one run, and ends it."""
    return _OURS


def connect(*, sweep: bool = False) -> None:
    """Join the cluster of this job or machine, or start one here.

    The checkout is added to every worker's path, so that only the dependencies must be
    installed; ``ray job submit --working-dir .`` does that itself.

    Args:
        sweep: Start the dashboard with a cluster started here (nine processes), because
            Ray Train asks it whether a stopped trial still holds its placement group.

    Raises:
        ValueError: the cluster that RAY_ADDRESS names does not answer, or Ray cannot be started.
    """
    if ray.is_initialized():
        return
    # A report waits for the controller's next poll; the default interval of 2 s would slow short epochs.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # it would show every line twice
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    variables = {} if in_job() else {"PYTHONPATH": str(CHECKOUT)}
    variables["TCMGC_HOME"] = str(home())
    if in_job():
        # Ray would refuse a variable that the job also sets.
        os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    options: dict[str, Any] = {}
    where = address.of_cluster()
    if where is None:
        options["address"] = "local"
        global _OURS
        _OURS = not sweep
        # SIGTERM means that this machine, the only one, is about to leave.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Every idle process sends metrics, every 10 s by default, and takes CPU time from the
        # workers.
        os.environ.setdefault("RAY_metrics_report_interval_ms", "60000")
        options["include_dashboard"] = sweep
        if not _has_home():
            # Ray would store its token there; this one is for this run only.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    _hush()
    print(f"joining Ray at {where}" if where else "starting Ray…", flush=True)
    try:
        ray.init(
            runtime_env={"env_vars": variables},
            log_to_driver=False,  # workers' messages are passed on by `run_state.news`
            logging_level="WARNING",
            **options,
        )
    except Exception as error:  # Ray has no specific class for this
        what = f"the Ray cluster at {where} cannot be joined" if where else "Ray cannot be started"
        raise ValueError(f"{what}: {str(error).strip().splitlines()[0]}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # `terminal.Progress` shows the progress
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def _has_home() -> bool:
    """Whether this user has a home directory that can be written to."""
    place = os.path.expanduser("~")
    return os.path.isdir(place) and os.access(place, os.W_OK)


def _hush() -> None:
    """Hide two constant messages: that tokens are used, and how to see Ray Data's progress bars."""
    for name, remark in (
        (
            "ray._private.authentication.authentication_token_setup",
            "Token authentication is enabled",
        ),
        ("ray.data._internal.progress", "Progress bars"),
    ):
        logging.getLogger(name).addFilter(_Without(remark))


class _Without(logging.Filter):
    """Drops messages with given beginnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.name)


def tell_which() -> None:
    """Tell processes that Ray Train starts from this one which Ray cluster is theirs.

    Its cleaner, which frees the placement group of a stopped trial, looks for the only Ray of the
    machine and gives up if there are two; later trials would wait for ever.
    """
    private.of("ray.train.v2._internal.constants:ENV_VARS_TO_PROPAGATE").add("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address


@dataclass(frozen=True)
class Placement:
    """Resources of one training worker."""

    cpus: float
    gpu: bool

    def words(self, config: Config) -> str:
        """A readable description: ``GPU, 4 workers``."""
        train = config.train
        fewest = f"{train.min_workers} to " if train.min_workers else ""
        each = " each" if train.workers > 1 else ""
        count = f"{fewest}{train.workers} worker{'s' if train.workers > 1 else ''}"
        return f"{'GPU' if self.gpu else 'CPU'}, {count} with {self.cpus:g} CPUs{each}"

    def scaling(self, config: Config) -> ray.train.ScalingConfig:
        """Ray Train's description of the workers."""
        train = config.train
        workers: int | tuple[int, int] = (
            (train.min_workers, train.workers) if train.min_workers else train.workers
        )
        selector = {"node-role": config.cluster.train_node} if config.cluster.train_node else None
        resources: dict[str, float] = {"CPU": self.cpus, **({"GPU": 1} if self.gpu else {})}
        return ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=self.gpu,
            resources_per_worker=resources,
            label_selector=selector,
            elastic_resize_monitor_interval_s=10.0,
        )


def placement(config: Config) -> Placement:
    """CPUs and GPU of a worker, from the cluster's resources.

    Without GPUs, the CPUs of the training nodes are divided evenly; with more workers than
    CPUs each gets a fraction of one. A worker on a GPU gets ``cluster.cpus_per_worker``, or up to 4.

    Raises:
        ValueError: GPUs are required and there are fewer than workers, or an elastic number of
            workers on labelled nodes without GPUs.
    """
    train, role = config.train, config.cluster.train_node
    have = [node["Resources"] for node in capacity.nodes(role)]
    gpus = sum(int(node.get("GPU", 0)) for node in have)
    needed = train.min_workers or train.workers
    if train.gpus == "always" and gpus < needed and not capacity.autoscales():
        raise ValueError(
            f"train.gpus is 'always' and {needed} workers need a GPU each, but the cluster has {gpus}; "
            "lower train.workers, add nodes, or set train.gpus to auto"
        )
    use_gpu = train.gpus == "always" or (train.gpus == "auto" and gpus >= needed)
    if train.min_workers and role and not use_gpu:
        # Ray (2.60) would count the CPUs of all nodes regardless of labels, and request workers
        # that fit nowhere.
        raise ValueError(
            "train.min_workers together with cluster.train_node needs workers on GPUs; leave "
            "cluster.train_node empty, or set train.min_workers to 0"
        )
    if config.cluster.cpus_per_worker:
        return Placement(cpus=config.cluster.cpus_per_worker, gpu=use_gpu)
    cpus = [node.get("CPU", 0.0) for node in have]
    share = capacity.even_share(cpus if any(cpus) else [1.0], train.workers)
    return Placement(cpus=min(4.0, share) if use_gpu else share, gpu=use_gpu)


def require(config: Config) -> Placement:
    """The placement of a config's workers, after checking that they and their decoding fit.

    Raises:
        ValueError: they do not fit and would wait for ever; states the request and the resources.
    """
    train, role = config.train, config.cluster.train_node
    place = placement(config)
    each = {"CPU": place.cpus, "GPU": float(place.gpu)}
    remedy = "lower train.workers or cluster.cpus_per_worker"
    count = train.min_workers or train.workers
    capacity.require("training workers", count, each, role, "cluster.train_node", remedy)
    require_decoding(config)
    return place


def require_decoding(config: Config) -> None:
    """Make sure that there is a node to decode on.

    Raises:
        ValueError: there is none; states the request and the available resources.
    """
    role, each = config.cluster.decode_node, {"CPU": 1.0}
    remedy = "give a node CPUs"
    capacity.require("decoding process", 1, each, role, "cluster.decode_node", remedy)
