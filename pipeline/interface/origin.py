"""A run's origin: user, command and commit in MLflow's own tags, and versions in ours."""

import functools
import getpass
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from pipeline.cli import CHECKOUT, in_job

_PACKAGES = ("torch", "open_clip_torch", "av", "ray", "mlflow", "pyarrow")


def tags() -> dict[str, str]:
    """Tags for a new run."""
    made = {f"version.{package}": version(package) for package in _PACKAGES}
    made |= {"version.python": platform.python_version(), "mlflow.user": _user()}
    made["mlflow.source.name"] = _command()
    made["mlflow.source.type"] = "JOB" if in_job() else "LOCAL"
    return made | _git()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return f"uid {os.getuid()}"


def _command() -> str:
    """The script, relative to the checkout if it is in it."""
    script = Path(sys.argv[0]).resolve() if sys.argv[0] else CHECKOUT
    return str(script.relative_to(CHECKOUT) if script.is_relative_to(CHECKOUT) else script.name)


@functools.cache
def _git() -> dict[str, str]:
    """The state of this process's checkout, determined once."""
    commit = _ask("rev-parse", "HEAD")
    if not commit:
        return {"mlflow.source.git.commit": "not a git checkout"}
    made = {"mlflow.source.git.commit": commit}
    made["git.changed"] = "yes" if _ask("status", "--porcelain") else "no"
    if branch := _ask("branch", "--show-current"):
        made["mlflow.source.git.branch"] = branch
    return made


def _ask(*words: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
