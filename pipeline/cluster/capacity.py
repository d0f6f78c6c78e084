"""Check that a request fits on the existing nodes; Ray itself would wait for ever."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray

LABEL = "node-role"


def autoscales() -> bool:
    """Whether the cluster can add nodes."""
    return bool(os.environ.get("RAY_AUTOSCALER") or os.environ.get("TCMGC_AUTOSCALES"))


def nodes(role: str | None = None) -> list[dict[str, Any]]:
    """Ray's nodes that are alive, all or those whose label ``node-role`` is ``role``."""
    return [node for node in ray.nodes() if node["Alive"] and (role is None or _role(node) == role)]


def require(
    what: str, count: int, each: Mapping[str, float], role: str | None, field: str, remedy: str
) -> None:
    """Make sure that this many processes fit on the cluster's nodes at the same time.

    A cluster that adds nodes itself is not checked.

    Args:
        what: Name of the processes, for the message.
        count: Number of processes.
        each: Resources of one process, ``{"CPU": 2.0}``.
        role: Required value of the node's label ``node-role``; None for any node.
        field: The option that sets the role.
        remedy: What else the user may change.

    Raises:
        ValueError: they do not fit; states the request and the available resources.
    """
    if autoscales():
        return
    there = nodes(role)
    if not there:
        raise ValueError(
            f"{field} is {role!r}, but no node of this cluster has the label {LABEL}={role} "
            f"(it has {_shown(nodes())}); start one with `ray start --labels {LABEL}={role}`, or leave "
            f"{field} out to take any node"
        )
    if sum(places([node["Resources"] for node in there], each)) >= count:
        return
    taken = " and ".join(f"{amount:g} {name}" for name, amount in each.items() if amount)
    where = f" with the label {LABEL}={role}" if role else ""
    raise ValueError(
        f"{count} {what} of {taken} each do not fit on this cluster's nodes{where}, which have "
        f"{_shown(there)}; {remedy}, or add nodes (TCMGC_AUTOSCALES=1 says that the cluster adds them itself)"
    )


def places(resources: Sequence[Mapping[str, float]], each: Mapping[str, float]) -> list[int]:
    """Number of processes with resources ``each`` that fit on every node."""
    wanted = {name: amount for name, amount in each.items() if amount}
    return [
        min((math.floor(have.get(name, 0) / amount + 1e-6) for name, amount in wanted.items()))
        for have in resources
    ]


def even_share(cpus: Sequence[float], workers: int) -> float:
    """The most CPUs for each of ``workers`` workers, on nodes with these numbers of CPUs.

    Whole CPUs, or an even fraction of one if there are more workers than CPUs.
    """
    have = [{"CPU": amount} for amount in cpus]
    for whole in range(int(sum(cpus) // workers), 0, -1):
        if sum(places(have, {"CPU": whole})) >= workers:
            return float(whole)
    part = min(1.0, sum(cpus) / workers)
    for share in (part, *(1 / n for n in range(1, workers + 1))):
        if share <= part and sum(places(have, {"CPU": share})) >= workers:
            return share
    return part


def _role(node: Mapping[str, Any]) -> str | None:
    return (node.get("Labels") or {}).get(LABEL)


def _shown(there: Sequence[Mapping[str, Any]]) -> str:
    """Nodes in words: ``2 nodes of 8 CPU and 1 GPU (node-role=train), a node of 16 CPU``."""
    kinds: dict[str, int] = {}
    for node in there:
        have = node["Resources"]
        text = f"{have.get('CPU', 0):g} CPU"
        if have.get("GPU"):
            text += f" and {have['GPU']:g} GPU"
        if role := _role(node):
            text += f" ({LABEL}={role})"
        kinds[text] = kinds.get(text, 0) + 1
    return (
        ", ".join(
            f"{'a node' if count == 1 else f'{count} nodes'} of {text}"
            for text, count in kinds.items()
        )
        or "no node"
    )
