"""One writer per run: a lock in the run's folder that does not stay locked after a crash.

The lock is a small file with its owner's name and a counter that the owner increments every few
seconds. Another process that sees the counter unchanged takes the lock over. No clocks are compared,
so machines need not agree on the time; a dead process of this machine is detected immediately.

If two processes find a folder free at the same time, only one of them can create a local file. On
an object store both write, wait, and read back; the last writer wins. Writes that take longer
than that wait would let both in: it is a guard against mistakes, not a consensus protocol.
"""

import _thread
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipeline.run_state import run_folder
from tcmgc import storage

NAME = "lock.json"
BEAT = 5.0
"""Seconds between an owner's heartbeats."""
PATIENCE = 20.0
"""Seconds without a heartbeat after which an owner counts as dead."""
_SETTLE = 1.0
_UNKNOWN: dict[str, Any] = {
    "owner": None,
    "host": "an unknown host",
    "boot": "",
    "pid": "?",
    "started": 0.0,
    "beat": 0,
}


@contextmanager
def held(folder: str, *, beat: float = BEAT, patience: float = PATIENCE) -> Iterator[None]:
    """Own the folder while the block runs.

    If another process still takes it over (because this one slept longer than ``patience``), the
    block is interrupted as by Ctrl-C, so that two processes never write at the same time.

    Raises:
        ValueError: another living process owns it; names it.
    """
    mine = {"owner": uuid.uuid4().hex, **_self(), "beat": 0}
    found = _read(folder)
    if found is not None:
        _wait_for(folder, found, patience)
    _take(folder, mine, fresh=found is None)
    stop = threading.Event()
    thread = threading.Thread(
        target=_beat, args=(folder, mine, beat, stop), name="lock", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        if _owner(folder) == mine["owner"]:
            run_folder.remove(folder, NAME)


def refuse_if_held(folder: str) -> None:
    """Raise immediately if a running process of this machine owns the folder; writes nothing.

    Raises:
        ValueError: names the process.
    """
    found = _read(folder)
    if found is not None and _alive_here(found):
        raise ValueError(_taken(folder, found))


def _self() -> dict[str, Any]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.is_file() else "",
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def _dead(lock: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine and has ended."""
    here = _self()
    if any(lock.get(name) != here[name] for name in ("host", "boot")):
        return False
    try:
        process = psutil.Process(lock["pid"])
        return process.create_time() != lock["started"] or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_for(folder: str, found: dict[str, Any], patience: float) -> None:
    """Return when the owner has ended."""
    until = time.monotonic() + patience
    while not _dead(found) and time.monotonic() < until:
        now = _read(folder)
        if now is None:
            return
        if (now["owner"], now["beat"]) != (found["owner"], found["beat"]) or _alive_here(now):
            raise ValueError(_taken(folder, now))
        time.sleep(min(1.0, patience / 5))


def _alive_here(lock: dict[str, Any]) -> bool:
    here = _self()
    return lock["host"] == here["host"] and lock["boot"] == here["boot"] and not _dead(lock)


def _taken(folder: str, lock: dict[str, Any]) -> str:
    return (
        f"{folder} is being written by process {lock['pid']} on {lock['host']}; two never write into one "
        "folder. Wait for it, stop it, or choose another folder (--run.name, --out)"
    )


def _take(folder: str, mine: dict[str, Any], fresh: bool) -> None:
    path = storage.without_scheme(storage.join(folder, NAME))
    if fresh and not storage.is_uri(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        try:
            # Only one of several can create it.
            with open(path, "x") as file:
                file.write(json.dumps(mine))
        except FileExistsError:
            raise ValueError(_taken(folder, _read(folder) or _UNKNOWN)) from None
        return
    run_folder.write(folder, NAME, mine)
    time.sleep(_SETTLE)
    now = _read(folder) or _UNKNOWN
    if now["owner"] != mine["owner"]:
        raise ValueError(_taken(folder, now))


def _read(folder: str) -> dict[str, Any] | None:
    """The lock; without an owner if that died before it had written its name."""
    return run_folder.read(folder, NAME) or (_UNKNOWN if run_folder.exists(folder, NAME) else None)


def _owner(folder: str) -> str | None:
    return (_read(folder) or _UNKNOWN)["owner"]


def _beat(folder: str, mine: dict[str, Any], pause: float, stop: threading.Event) -> None:
    while not stop.wait(pause):
        try:
            if _owner(folder) != mine["owner"]:
                _thread.interrupt_main()
                return
            mine["beat"] += 1
            run_folder.write(folder, NAME, mine)
        except OSError:
            continue  # a full disk or an unavailable store: the next heartbeat retries
