"""The failures of ``faults.py``, and the runs to which they are applied."""

import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from pyarrow import fs

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))

import buckets

from tcmgc import storage

ROOT = Path(__file__).resolve().parents[1]
TOWER = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
FIELDS = {
    "data.val-videos": 8,
    "data.max-frames": 4,
    "train.batch-size": 8,
    "train.epochs": 2,
    "train.checkpoint-steps": 5,
    "train.workers": 2,
    "cluster.cpus-per-worker": 0.5,
}
AGAIN = 600.0
"""Seconds that a step of a case may take."""


class Home:
    """A folder for all output of runs; data and tower are shared."""

    def __init__(self, shared: Path, name: str) -> None:
        self.shared, self.name = shared, name
        self.folder = shared / name
        self.folder.mkdir()
        self.env = {**os.environ, "TCMGC_HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        self.env["RAY_ADDRESS"] = "local"  # not another cluster on this machine
        self.runs = self.folder / "runs"

    def start(self, **changes: Any) -> subprocess.Popen[bytes]:
        """The training command, in the background."""
        fields = FIELDS | {
            "data.root": self.shared / "demo",
            "towers.name": self.shared / "tiny.json",
        }
        fields |= {"data.cache": self.shared / "cache", "run.name": "run", "run.folder": self.runs}
        fields |= {name.replace("__", "."): value for name, value in changes.items()}
        words = [word for name, value in fields.items() for word in (f"--{name}", str(value))]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "pipeline/train.py", "demo", *words],
                cwd=ROOT,
                env=self.env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, as a shell gives a command
            )

    def said(self) -> bytes:
        """The output of all commands so far."""
        return (self.folder / "log").read_bytes()

    def status(self) -> str:
        """The run's status in MLflow's database."""
        from mlflow.tracking import MlflowClient

        client = MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        everything = [one.experiment_id for one in client.search_experiments()]
        (run,) = client.search_runs(everything)
        return run.info.status

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints."""
        return list((self.runs / "run").glob("checkpoint_*/training.json"))

    def wait(self, what: Callable[[], Any], driver: subprocess.Popen[bytes]) -> None:
        """Wait until a condition holds in a running case."""
        end = time.monotonic() + AGAIN
        while not what():
            if driver.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name}: what the harm waits for did not come")
            time.sleep(0.05)

    def finish(self, driver: subprocess.Popen[bytes]) -> int:
        """Wait for the driver's end and return its exit code."""
        return driver.wait(AGAIN)

    def outcome(self) -> dict[str, Any]:
        """The test split's metrics, the loss by step and MLflow's record."""
        from mlflow.tracking import MlflowClient

        if not (self.runs / "run" / "result.json").is_file():
            raise RuntimeError(f"the run did not finish; see {self.folder / 'log'} (with --keep)")
        result = json.loads((self.runs / "run" / "result.json").read_text())
        client = MlflowClient(result["mlflow"])
        (experiment,) = client.search_experiments(
            filter_string="name = 'text-video retrieval: demo'"
        )
        runs = client.search_runs([experiment.experiment_id])
        history = client.get_metric_history(result["mlflow_run"], "train/loss")
        tags = runs[0].data.tags
        return {
            "metrics": result["metrics"],
            "loss": {metric.step: metric.value for metric in history},
            "rows": len(history),
            "runs": len(runs),
            "status": runs[0].info.status,
            "tags": {
                name: tags[name]
                for name in ("resumed", "last_interruption", "mlflow_away")
                if name in tags
            },
        }


def processes(driver: subprocess.Popen[bytes], title: str) -> list[psutil.Process]:
    """Ray's worker processes of this driver whose title starts with ``title``."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(f"ray::{title}"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def train_worker(home: Home) -> None:
    """SIGKILL of one of two training workers in the middle of an epoch."""
    driver = home.start()
    home.wait(home.checkpoints, driver)
    processes(driver, "RayTrainWorker")[0].kill()
    home.finish(driver)


def decode_worker(home: Home) -> None:
    """SIGKILL of a decoding process while the cache is filled."""
    driver = home.start(data__cache=home.folder / "cache")
    home.wait(lambda: processes(driver, "MapBatches"), driver)
    processes(driver, "MapBatches")[0].kill()
    home.finish(driver)


def driver_killed(home: Home) -> None:
    """SIGKILL of the driver, then the same command again."""
    driver = home.start()
    home.wait(home.checkpoints, driver)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(family, timeout=60)
    home.finish(home.start())


def sigterm(home: Home) -> None:
    """SIGTERM to the driver: a checkpoint, an exit in order, then the same command again."""
    _stopped(home, lambda driver: driver.terminate())


def ctrl_c(home: Home) -> None:
    """Ctrl-C at the terminal (SIGINT to the driver and all that it started), then the same command again."""
    _stopped(home, lambda driver: os.killpg(driver.pid, signal.SIGINT))


def _stopped(home: Home, stop: Callable[[subprocess.Popen[bytes]], None]) -> None:
    driver = home.start(train__checkpoint_steps=0)
    home.wait(lambda: b"step 2 of" in home.said(), driver)
    stop(driver)
    code = home.finish(driver)
    if not home.checkpoints():
        raise RuntimeError(f"{home.name}: the driver left without a checkpoint")
    if code != 130 or b"the same command goes on" not in home.said():
        raise RuntimeError(f"{home.name}: the driver left with {code} and without a word")
    if (status := home.status()) != "KILLED":
        raise RuntimeError(f"{home.name}: MLflow has the run as {status}")
    home.finish(home.start(train__checkpoint_steps=0))


@contextmanager
def cluster(home: Home, *nodes: dict[str, Any], **head: Any) -> Iterator[Any]:
    """A simulated cluster that drivers of this home join; yields it and its nodes."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_AUTH_MODE"] = home.env["RAY_AUTH_MODE"] = "disabled"
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1} | head)
    home.env["RAY_ADDRESS"] = made.address
    try:
        yield made, [made.add_node(**node) for node in nodes]
    finally:
        made.shutdown()


TRAIN, DECODE = ({"num_cpus": 1, "labels": {"node-role": role}} for role in ("train", "decode"))
PLACED = {
    "cluster__train-node": "train",
    "cluster__decode-node": "decode",
    "cluster__cpus-per-worker": 1,  # one worker per node
}


def node(home: Home) -> None:
    """A whole node of three is lost with its worker; another one comes."""
    with cluster(home, TRAIN, TRAIN, DECODE) as (made, nodes):
        driver = home.start(data__cache=home.folder / "cache", **PLACED)
        home.wait(home.checkpoints, driver)
        made.remove_node(nodes[0], allow_graceful=False)
        made.add_node(**TRAIN)
        home.finish(driver)


def elastic(home: Home) -> None:
    """A node is lost and none comes: one worker goes on with the same global batch."""
    with cluster(home, TRAIN, TRAIN, num_cpus=0) as (made, nodes):
        changes = {"train__min-workers": 1, "cluster__cpus-per-worker": 1}
        driver = home.start(data__cache=home.folder / "cache", **changes)
        home.wait(home.checkpoints, driver)
        made.remove_node(nodes[0], allow_graceful=False)
        home.finish(driver)


def drained(home: Home) -> None:
    """A node is announced to leave in 20 s (preemption): a checkpoint is made before it goes."""
    with cluster(home, TRAIN, TRAIN, DECODE) as (made, nodes):
        changes = PLACED | {"train__checkpoint-steps": 0, "train__epochs": 40}
        driver = home.start(**changes)
        home.wait(lambda: b"step 12 of" in home.said(), driver)
        subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
                *("--address", made.address, "--node-id", nodes[0].node_id),
                *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"),
                *("--deadline-remaining-seconds", "20"),
            ],
            env=home.env,
            check=True,
        )
        made.add_node(**TRAIN)
        home.wait(lambda: b"about to leave" in home.said(), driver)
        made.remove_node(nodes[0], allow_graceful=False)
        home.finish(driver)


def store_full(home: Home) -> None:
    """Ray's object store is full all the time."""
    import numpy as np
    import ray

    size = 80 * 2**20
    with cluster(home, object_store_memory=size, num_cpus=2) as (made, _):
        ray.init(address=made.address, log_to_driver=False)
        ballast = [ray.put(np.ones(size // 10, np.uint8)) for _ in range(20)]
        home.finish(home.start(data__cache=home.folder / "cache"))
        del ballast
        ray.shutdown()


def disk_full(home: Home) -> None:
    """The disk of the runs is full for 15 s while checkpoints are due (a small tmpfs)."""
    home.runs.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(home.runs)], check=False
    )
    if mounted.returncode:
        raise RuntimeError("a file system cannot be mounted here (needs root)")
    try:
        driver = home.start()
        home.wait(home.checkpoints, driver)
        ballast = home.runs / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(2**20))
            except OSError:
                pass
        time.sleep(15)
        ballast.unlink()
        if home.finish(driver):
            home.finish(home.start())
        shutil.copytree(home.runs, home.folder / "kept")
    finally:
        subprocess.run(["umount", "-l", str(home.runs)], check=True)
    home.runs.rmdir()
    (home.folder / "kept").rename(home.runs)


def bucket(home: Home) -> None:
    """Everything in a bucket (an S3 server on loopback); SIGKILL of the driver, the command again."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with buckets.s3() as root:
        home.env |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        _killed_with_all_in(root.replace("key:secret@", ""), home)


def google_bucket(home: Home) -> None:
    """The same in a bucket of Google's protocol."""
    with buckets.google() as root:
        _killed_with_all_in(root, home)


def _killed_with_all_in(root: str, home: Home) -> None:
    runs = storage.join(root, "runs")
    run = storage.join(runs, "run")
    changes = {"run__folder": runs, "data__cache": storage.join(root, "cache")}
    driver = home.start(**changes)
    os.environ |= home.env
    home.wait(lambda: any("training.json" in one for one in storage.folders(run).values()), driver)
    family = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(family, timeout=60)
    home.finish(home.start(**changes))
    system, inner = storage.resolve(run)
    (home.runs / "run").mkdir(parents=True)
    fs.copy_files(
        f"{inner}/result.json", str(home.runs / "run/result.json"), source_filesystem=system
    )


def mlflow_away(home: Home, seconds: float = 60.0) -> None:
    """MLflow's server is away for a minute."""
    port = 5000 + os.getpid() % 1000

    def serve() -> subprocess.Popen[bytes]:
        words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{home.folder}/server.db"]
        words += ["--artifacts-destination", str(home.folder / "artifacts")]
        with (home.folder / "server-log").open("ab") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + AGAIN
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
                return server
            except OSError:
                time.sleep(0.2)
        raise RuntimeError("MLflow's server did not start")

    def stop(server: subprocess.Popen[bytes]) -> None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()

    home.env["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    server = serve()
    try:
        driver = home.start()
        home.wait(home.checkpoints, driver)
        stop(server)
        time.sleep(seconds)
        server = serve()
        if home.finish(driver):
            home.finish(home.start())
        result = json.loads((home.runs / "run" / "result.json").read_text())
        result["mlflow"] = f"sqlite:///{home.folder}/server.db"
        (home.runs / "run" / "result.json").write_text(json.dumps(result))
    finally:
        stop(server)


def mlflow_locked(home: Home, seconds: float = 15.0) -> None:
    """MLflow's database is locked by another process for 15 s while a run's last records are due."""
    driver = home.start()
    home.wait(lambda: b"epoch 2 of 2" in home.said(), driver)
    other = sqlite3.connect(home.folder / "mlflow.db", timeout=60, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    other.execute("ROLLBACK")
    other.close()
    if home.finish(driver):
        home.finish(home.start())


CASES: tuple[Callable[[Home], None], ...] = (
    train_worker,
    decode_worker,
    node,
    elastic,
    drained,
    driver_killed,
    sigterm,
    ctrl_c,
    bucket,
    google_bucket,
    disk_full,
    store_full,
    mlflow_away,
    mlflow_locked,
)
