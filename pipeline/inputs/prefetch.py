"""Prefetching in a thread."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


def prefetch(loads: Iterator[Callable[[], Any]], ahead: int = 2) -> Iterator[Any]:
    """Run loads in a thread, at most ``ahead`` of them before they are requested.

    An error in the thread is raised in place of its result.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: tuple[bool, Any]) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for load in loads:
                put((True, load()))
                if stop.is_set():
                    return
            put((False, None))
        except Exception as error:
            put((False, error))

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            good, item = ready.get()
            if not good:
                break
            yield item
        if item is not None:
            raise item
    finally:
        stop.set()
        thread.join()
