"""Requests for a checkpoint between two steps: by time, SIGTERM, Ctrl-C, or a node about to leave."""

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray.train

from pipeline.cluster import private

NOTHING, SAVE, STOP, ASK, TELL = 0, 1, 2, 4, 8
"""Requests of rank 0, as bits: a checkpoint; a checkpoint and then the end; ask Ray about nodes; send
the metrics so far."""

_STOPPING = "stopping after this step, once its checkpoint is written; once more ends it at once\n"
_LOOK = 1.0
_ASK = 5.0
_TELL = 15.0


class Stopped(KeyboardInterrupt):
    """A run was stopped cleanly; the same command continues it."""

    def __init__(self, signal_name: str, step: int | None) -> None:
        where = "after its last step" if step is None else f"at step {step}, after its checkpoint"
        super().__init__(f"{signal_name}: stopped {where}")


class Board:
    """The driver's messages for the workers, under a key in the cluster's own store.

    An actor would work too, but needs another process for every run and every trial of a sweep.
    """

    def __init__(self) -> None:
        self.key = f"tcmgc/word/{uuid.uuid4().hex}"

    def leave(self, word: str) -> None:
        """Write a message, which stays until it is wiped."""
        private.put(self.key, word)

    def read(self) -> str:
        """The message, or nothing."""
        return (private.get(self.key) or b"").decode()

    def wipe(self) -> None:
        """Delete the message from the cluster."""
        private.delete(self.key)


@contextmanager
def on_stop_signals(board: Board) -> Iterator[list[str]]:
    """In this block, SIGTERM and Ctrl-C write a message to the board instead of ending the process.

    Yields a list that contains the signal's name once one has arrived. A second signal ends the
    process as usual. Only the main thread receives signals: in others (a trial of Ray Tune) nothing changes.
    """
    came: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def handle(number: int, frame: Any) -> None:
        came.append(signal.Signals(number).name)
        for one, usual in before.items():
            signal.signal(one, usual)
        os.write(2, _STOPPING.encode())  # the signal may have interrupted a print
        board.leave(came[0])

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    for one in before:
        signal.signal(one, handle)
    try:
        yield came
    finally:
        for one, usual in before.items():
            signal.signal(one, usual)


class Watch:
    """Rank 0 watches for requests; the other workers receive them with the sum of the loss.

    Args:
        board: The driver's.
        minutes: Time between checkpoints; 0 for no such limit.
    """

    def __init__(self, board: Board, minutes: float) -> None:
        self.board = board
        self.seconds = 60 * minutes
        self.saved = self.told = self.looked = self.asked = time.monotonic()
        self._leaving: set[str] = set()

    def wishes(self) -> int:
        """Rank 0's requests after this step."""
        now = time.monotonic()
        wishes = SAVE if self.seconds and now - self.saved >= self.seconds else NOTHING
        if now - self.told >= _TELL:
            wishes |= TELL
        if now - self.asked >= _ASK:
            self.asked = now
            wishes |= ASK
        if now - self.looked >= _LOOK:
            self.looked = now
            wishes |= STOP | SAVE if self.board.read() else NOTHING
        return wishes

    def leaving(self) -> bool:
        """Whether further nodes of the run are about to leave. Must be called on all workers together."""
        info = ray.train.get_preemption_info()
        nodes = set(info.preempted_node_ids) if info else set()
        new = nodes - self._leaving
        self._leaving |= nodes
        return bool(new)

    def note_told(self) -> None:
        """Note that metrics were sent."""
        self.told = time.monotonic()

    def note_saved(self) -> None:
        """Note that a checkpoint was written, and metrics were sent with it."""
        self.saved = self.told = time.monotonic()
