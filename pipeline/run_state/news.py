"""Messages from a run's processes to the terminal, by way of the driver.

Ray would prefix lines that a worker prints with ``(RayTrainWorker pid=…)``, so workers write
them to a key in the cluster's own store instead, where the driver reads them. Each sender
has its own key; a restarted one continues with the existing messages.
"""

import contextlib
import json
import time
from typing import Any

from ray.train import Checkpoint, UserCallback

from pipeline.cluster import private

WORKER, CONTROLLER = "worker", "controller"
_KEPT = 200
"""Number of lines kept; the driver reads several times per second."""
_PAUSE = 0.5
"""Seconds between two updates of the training state."""


class Teller:
    """A sender of messages.

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
        """Send a line; ``step`` marks one that is not needed with a live line."""
        self.said["count"] += 1
        self.said["lines"] = [*self.said["lines"][1 - _KEPT :], {"text": text, "step": step}]
        self._put()

    def due(self) -> bool:
        """Whether a new training state is due."""
        return time.monotonic() - self._shown >= _PAUSE

    def state(self, **now: Any) -> None:
        """Send the state of training."""
        self.said["now"], self._shown = now, time.monotonic()
        self._put()

    def _put(self) -> None:
        # Messages must never stop a run: if the store is unavailable, they wait for the next ones.
        with contextlib.suppress(Exception):
            private.put(self.key, json.dumps(self.said))


class Wire:
    """The driver's side."""

    def __init__(self, board: str) -> None:
        self.keys = [f"{board}/{who}" for who in (WORKER, CONTROLLER)]

    def news(self) -> list[dict[str, Any]]:
        """Each sender's messages; ``count`` lines in total, of which ``lines`` are the last."""
        with contextlib.suppress(Exception):
            return [_read(key) or {"count": 0, "lines": [], "now": None} for key in self.keys]
        return []

    def wipe(self) -> None:
        """Delete all messages from the cluster."""
        for key in self.keys:
            private.delete(key)


class Report(UserCallback):
    """Runs in Ray Train's controller and reports lost workers."""

    def __init__(self, board: str) -> None:
        self.board = board

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        """Do nothing: rank 0 sends its own messages."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Send a line to the terminal."""
        lost = "; ".join(
            f"worker {rank}: {(str(error).strip().splitlines() or [type(error).__name__])[-1][:200]}"
            for rank, error in worker_exceptions.items()
        )
        Teller(self.board, CONTROLLER).say(f"lost {lost}")


def _read(key: str) -> dict[str, Any] | None:
    found = private.get(key)
    return json.loads(found) if found else None
