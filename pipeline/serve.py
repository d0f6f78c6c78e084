"""Serve an index of videos: a page for searching it, and JSON for programs (/openapi.json)."""

import os
import secrets
import signal
import socket
import sys
import threading
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import ray
import tyro
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from pipeline import cli
from pipeline.cluster import placement as cluster
from tcmgc import storage
from tcmgc.search import Index


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    index: Annotated[str | None, tyro.conf.Positional] = None
    """Folder or URI of the index."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than loopback needs a token: one is generated if none is given."""
    port: int = 8000
    """Port to listen on."""
    token: str | None = None
    """Token that requests must have on an address that others can reach."""
    replicas: int = 1
    """Processes that answer; they share the index's memory."""
    labels: str | None = None
    """Folder for the labels given by thumbs; None: next to the index, INDEX.labels."""
    open: bool = False
    """Open the page in this machine's browser."""


def main(argv: list[str] | None = None) -> int:
    """The command; runs until it is interrupted."""
    arguments = cli.parse(
        Arguments, argv, "python pipeline/serve.py", str(__doc__), default_recipe=None
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    address = start(arguments)
    print(f"open {address}", flush=True)
    if arguments.open:
        webbrowser.open(address)
    try:
        stop.wait()
    except KeyboardInterrupt:
        pass
    finally:
        serve.shutdown()
        if cluster.is_ours():
            ray.shutdown()
    return 0


def start(arguments: Arguments) -> str:
    """Start answering; return the address to open.

    Raises:
        ValueError: no index, a port that is in use, or a host that is not this machine's.
    """
    from pipeline.serving.http import is_loopback
    from pipeline.serving.replica import Replica

    if arguments.index is None:
        raise ValueError("give the index, a folder or URI")
    path = cli.resolve(arguments.index)
    index = Index.open(path)
    for problem in index.problems:
        print(f"damaged: {problem}", file=sys.stderr)
    _refuse_taken(arguments.host, arguments.port)
    token = arguments.token
    if token is None and not is_loopback(arguments.host):
        token = secrets.token_urlsafe(24)
    labels = arguments.labels and cli.resolve(arguments.labels)
    if labels is None:
        labels = cli.resolve("labels") if storage.is_uri(path) else f"{path.rstrip('/')}.labels"
    cluster.connect()
    cpus = ray.cluster_resources().get("CPU", 1.0)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    serve.start(
        http_options=HTTPOptions(host=arguments.host, port=arguments.port), logging_config=quiet
    )
    each = min(1.0, 0.5 * cpus / arguments.replicas)
    threads = max(1, (os.cpu_count() or 1) // arguments.replicas)
    # Waiting threads must not use CPU time that the next query needs.
    variables = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    options = {"num_cpus": each, "runtime_env": {"env_vars": variables}}
    deployment: Any = Replica
    deployment = deployment.options(num_replicas=arguments.replicas, ray_actor_options=options)
    serve.run(deployment.bind(path, labels, token, threads), name="search", logging_config=quiet)
    shown = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    query = f"/?token={token}" if token else ""
    return f"http://{shown}:{arguments.port}{query}"


def _refuse_taken(host: str, port: int) -> None:
    """Refuse a port that is in use: Ray Serve would answer on another port, or not at all."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from error


if __name__ == "__main__":
    cli.run(main)
