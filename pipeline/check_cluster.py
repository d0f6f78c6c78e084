"""Check a cluster file before it costs money: `cluster.yaml` of `ray up`, or a RayJob of KubeRay."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline.interface.front  # isort: skip  # noqa: F401

import ray
import yaml

from pipeline import cli
from pipeline.cluster import private

ROLES = ("train", "decode")
"""Values of the label ``node-role`` for ``cluster.train_node`` and ``cluster.decode_node``."""
BLANK = "FILL-IN"


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """All of the command line."""

    file: str | None = None
    """The file to check; None: the checkout's cluster.yaml."""


def main(argv: list[str] | None = None) -> int:
    """The command."""
    arguments = cli.parse(
        Arguments, argv, "python pipeline/check_cluster.py", str(__doc__), default_recipe=None
    )
    place = cli.resolve(arguments.file) if arguments.file else str(cli.CHECKOUT / "cluster.yaml")
    text = Path(place).read_text()
    found = problems(text) + [f"still to be filled in: {line}" for line in blanks(text)]
    for problem in found:
        print(problem)
    print(f"{place}: {len(found)} to mend" if found else f"{place}: nothing to mend")
    return 1 if found else 0


def blanks(text: str) -> list[str]:
    """Lines, without comments, that the user must complete."""
    lines = (line.partition(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if BLANK in line and not line.startswith("#")]


def problems(text: str) -> list[str]:
    """Problems of the file, one sentence each."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    if not isinstance(values, dict):
        return ["neither a `ray up` file nor a RayJob: no fields"]
    return _rayjob(values) if values.get("kind") == "RayJob" else _launcher(values)


def _launcher(values: dict[str, Any]) -> list[str]:
    prepare, validate = (
        private.of(f"ray.autoscaler._private.util:{name}_config")
        for name in ("prepare", "validate")
    )
    found = []
    try:
        validate(prepare(values))
    except Exception as error:  # jsonschema's, and any from a provider
        found.append(f"Ray refuses it: {str(error).splitlines()[0]}")
    types = values.get("available_node_types", {})
    head = values.get("head_node_type")
    if head not in types:
        found.append(f"head_node_type is {head!r}; the node types are {', '.join(types)}")
    workers = {name: node for name, node in types.items() if name != head}
    most = values.get("max_workers", 2)
    for name, node in workers.items():
        least, limit = node.get("min_workers", 0), node.get("max_workers", most)
        if least > limit:
            found.append(f"{name}: min_workers {least} is above max_workers {limit}")
        if limit > most:
            found.append(
                f"{name}: max_workers {limit} is above the whole cluster's max_workers {most}"
            )
    if (total := sum(node.get("min_workers", 0) for node in workers.values())) > most:
        found.append(f"min_workers add up to {total}, above the whole cluster's max_workers {most}")
    found += _roles({name: node.get("labels", {}) for name, node in workers.items()})
    for kind in ("head", "worker"):
        start = [c for c in values.get(f"{kind}_start_ray_commands", []) if "ray start" in c]
        if not start:
            found.append(f"{kind}_start_ray_commands has no `ray start`")
        if any("RAY_AUTH_MODE=token" not in command for command in start):
            found.append(f"{kind}_start_ray_commands starts Ray without RAY_AUTH_MODE=token")
        hosts = re.findall(r"--dashboard-host[= ](\S+)", " ".join(start))
        if kind == "head" and any(host not in ("127.0.0.1", "localhost") for host in hosts):
            found.append(
                f"the dashboard listens on {hosts[0]}; let it be 127.0.0.1 and tunnel to it"
            )
    return found + _version(str(values.get("docker", {}).get("image", "")))


def _rayjob(values: dict[str, Any]) -> list[str]:
    found = []
    spec = values.get("spec", {})
    cluster = spec.get("rayClusterSpec", {})
    if not spec.get("entrypoint"):
        found.append("spec.entrypoint is missing: what the job runs")
    if cluster.get("authOptions", {}).get("mode") != "token":
        found.append(
            "spec.rayClusterSpec.authOptions.mode is not token: anyone who reaches it may run code"
        )
    groups = cluster.get("workerGroupSpecs", [])
    for group in groups:
        name = group.get("groupName")
        least, now, most = (group.get(key, 0) for key in ("minReplicas", "replicas", "maxReplicas"))
        if not least <= now <= most:
            found.append(
                f"{name}: minReplicas {least}, replicas {now}, maxReplicas {most} are not in that order"
            )
    found += _roles({group.get("groupName"): group.get("labels", {}) for group in groups})
    pods = [cluster.get("headGroupSpec", {}), *groups]
    images = {
        container.get("image")
        for pod in pods
        for container in pod.get("template", {}).get("spec", {}).get("containers", [])
    }
    if len(images) != 1:
        found.append(
            f"head and workers need one image; found {', '.join(map(str, sorted(images)))}"
        )
    return found + _version(f":{cluster.get('rayVersion', '')}")


def _roles(labels: dict[str, dict[str, str]]) -> list[str]:
    there = {label.get("node-role") for label in labels.values()}
    found = [
        f"no node type has the label node-role: {role}; --cluster.{role}-node {role} would wait for ever"
        for role in ROLES
        if role not in there
    ]
    return found + [
        f"{name}: has no label node-role"
        for name, label in labels.items()
        if "node-role" not in label
    ]


def _version(image: str) -> list[str]:
    named = re.search(r":(\d+\.\d+)", image)
    here = ".".join(ray.__version__.split(".")[:2])
    if named and named[1] != here:
        return [f"Ray is {named[1]} there and {here} here; all of a cluster must have one version"]
    return []


if __name__ == "__main__":
    cli.run(main)
