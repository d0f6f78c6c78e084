"""What a run's processes have to say to the person at the terminal, by way of the driver.

Lines that a worker prints reach the driver through Ray with ``(RayTrainWorker pid=…)`` before each, so
workers leave them under a key in the cluster's own store instead, where the driver reads them. Each who
writes has a key of its own; one that is started again goes on with what it finds.
"""

import contextlib
import json
import time
from typing import Any

from ray.train import Checkpoint, UserCallback

from pipeline.cluster import private

WORKER, CONTROLLER = "worker", "controller"
_KEPT = 200
"""Lines kept; the driver reads several times a second."""
_PAUSE = 0.5
"""Seconds between two states of training."""


class Teller:
    """One of those who write.

    Args:
        board: Key of the run's board.
        who: :data:`WORKER` or :data:`CONTROLLER`.
    """

    def __init__(self, board: str, who: str) -> None:
        self.key = f"{board}/{who}"
        found = _read(self.key)
        self.said: dict[str, Any] = found or {"count": 0, "lines": [], "now": None}
        self._shown = 0.0

    def say(self, text: str, *, step: bool = False) -> None:
        """Leave a line; ``step`` marks one that a live line makes superfluous."""
        self.said["count"] += 1
        self.said["lines"] = [*self.said["lines"][1 - _KEPT :], {"text": text, "step": step}]
        self._put()

    def due(self) -> bool:
        """Whether the last state of training is old enough for another."""
        return time.monotonic() - self._shown >= _PAUSE

    def state(self, **now: Any) -> None:
        """Leave the state of training."""
        self.said["now"], self._shown = now, time.monotonic()
        self._put()

    def _put(self) -> None:
        # Words are never worth a run: where the store is away, they wait for the next ones.
        with contextlib.suppress(Exception):
            private.put(self.key, json.dumps(self.said))


class Wire:
    """The driver's end."""

    def __init__(self, board: str) -> None:
        self.keys = [f"{board}/{who}" for who in (WORKER, CONTROLLER)]

    def news(self) -> list[dict[str, Any]]:
        """What each has said; ``count`` lines in all, of which ``lines`` are the last."""
        with contextlib.suppress(Exception):
            return [_read(key) or {"count": 0, "lines": [], "now": None} for key in self.keys]
        return []

    def wipe(self) -> None:
        """Leave nothing behind in the cluster."""
        for key in self.keys:
            private.delete(key)


class Report(UserCallback):
    """Runs in Ray Train's controller: says when workers are lost."""

    def __init__(self, board: str) -> None:
        self.board = board

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Nothing: rank 0 speaks for itself."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """A line for the person at the terminal."""
        lost = "; ".join(
            f"worker {rank}: {(str(error).strip().splitlines() or [type(error).__name__])[-1][:200]}"
            for rank, error in worker_exceptions.items()
        )
        Teller(self.board, CONTROLLER).say(f"lost {lost}")


def _read(key: str) -> dict[str, Any] | None:
    found = private.get(key)
    return json.loads(found) if found else None
