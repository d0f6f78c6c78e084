"""What fits on a cluster's nodes, and which cluster a command joins."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import ray

from pipeline import cli
from pipeline.cluster import address, capacity, placement
from tcmgc import config, recipes


def pretend(monkeypatch: pytest.MonkeyPatch, *nodes: tuple[dict[str, float], str | None]) -> None:
    """A cluster of these nodes: resources, and the role that their label gives."""
    monkeypatch.delenv("TCMGC_AUTOSCALES", raising=False)
    there = [
        {"Alive": True, "Resources": have, "Labels": {"node-role": role} if role else {}}
        for have, role in nodes
    ]
    gone = {"Alive": False, "Resources": {"CPU": 99.0}, "Labels": {"node-role": "train"}}
    monkeypatch.setattr(ray, "nodes", lambda: [*there, gone])


def settings(**changes: Any) -> config.Config:
    return config.replace(
        recipes.demo(), {name.replace("__", "."): value for name, value in changes.items()}
    )


@pytest.mark.parametrize(
    ("cpus", "workers", "share"),
    [
        ([2], 1, 2.0),
        ([2], 2, 1.0),
        ([2], 4, 0.5),
        ([2], 3, 2 / 3),
        ([16], 4, 4.0),
        ([3, 5], 2, 3.0),
        ([1, 1], 3, 0.5),
        ([8, 8, 1], 2, 8.0),
        ([0, 4], 1, 4.0),
    ],
)
def test_the_largest_even_share_that_every_worker_can_have(
    cpus: list[float], workers: int, share: float
) -> None:
    assert capacity.even_share(cpus, workers) == pytest.approx(share)
    fits = capacity.places([{"CPU": have} for have in cpus], {"CPU": share})
    assert sum(fits) >= workers


def test_shares_are_of_the_nodes_that_may_train(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = (({"CPU": 2.0}, "train"), ({"CPU": 2.0}, "train"), ({"CPU": 16.0}, "decode"))
    pretend(monkeypatch, *nodes)
    chosen = settings(train__workers=2, cluster__train_node="train", train__pieces=2)
    assert placement.require(chosen).cpus == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"cluster__cpus_per_worker": 7.0},
            r"1 training workers of 7 CPU each do not fit on this cluster's nodes, which have a node of 2 CPU",
        ),
        (
            {"cluster__train_node": "train"},
            r"no node of this cluster has the label node-role=train \(it has a node of 2 CPU\)",
        ),
        ({"cluster__decode_node": "decode"}, r"cluster\.decode_node is 'decode', but no node"),
        ({"train__gpus": "always"}, "the cluster has 0"),
    ],
)
def test_what_fits_nowhere_is_said(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, ({"CPU": 2.0}, None))
    with pytest.raises(ValueError, match=message):
        placement.require(settings(**changes))
    monkeypatch.setenv("TCMGC_AUTOSCALES", "1")
    placement.require(settings(**changes))


def test_a_checkpoints_placement_is_not_the_commands() -> None:
    far = settings(
        cluster__train_node="train",
        cluster__cpus_per_worker=7.0,
        train__gpus="always",
        train__workers=2,
        train__min_workers=1,
        train__pieces=4,
    )
    here = cli.placed(far)
    assert here.cluster == config.Cluster()
    assert (here.train.gpus, here.train.workers, here.train.min_workers) == ("auto", 1, 0)
    assert config.deciding(here) == config.deciding(far)
    # More workers than pairs in a batch are an evaluation's affair.
    assert cli.placed(far, workers=99).train.workers == 99


@contextmanager
def listening(reply: bytes) -> Iterator[str]:
    """Somebody at a port who says something, or nothing, to whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                link, _ = server.accept()
            except OSError:
                return
            with link:
                link.sendall(reply)
                stop.wait(5)

        stop = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        stop.set()


def test_a_cluster_that_answers_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as where:
        monkeypatch.setenv("RAY_ADDRESS", where)
        assert address.of_cluster() == where


@pytest.mark.parametrize("kind", ["nobody", "silence", "http", "no port", "ray client"])
def test_an_address_that_answers_to_nobody_is_said(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "_SECONDS", 0.5)
    with listening(b"") as silent, listening(b"HTTP/1.1 400 Bad Request\r\n") as web:
        given = {
            "nobody": "127.0.0.1:1",
            "silence": silent,
            "http": web,
            "no port": "somewhere",
            "ray client": "ray://127.0.0.1:1",
        }[kind]
        monkeypatch.setenv("RAY_ADDRESS", given)
        with pytest.raises(
            ValueError, match=r"RAY_ADDRESS is '.*', and no Ray cluster answers there"
        ):
            address.of_cluster()


def test_what_a_killed_head_left_behind_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(address.private, "address", lambda: "127.0.0.1:1")
    assert address.of_cluster() is None


def test_auto_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(address.private, "address", none)
    with pytest.raises(ValueError, match="RAY_ADDRESS is 'auto', but no Ray runs on this machine"):
        address.of_cluster()
    monkeypatch.undo()
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert address.of_cluster() is None
