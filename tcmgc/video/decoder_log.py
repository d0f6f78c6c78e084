"""Errors that FFmpeg's decoders log and then conceal.

A decoder that misses a reference picture or finds a wrong checksum often reports it in the log only
and returns a made-up picture.
"""

import contextlib
import threading
from collections.abc import Iterator

import av.logging

Complaint = tuple[int, str, str]
"""Level, name of the decoder, message."""

_lock = threading.Lock()
_listeners = 0
_before: tuple[int | None, bool] = (None, True)


@contextlib.contextmanager
def listening() -> Iterator[list[Complaint]]:
    """A list that collects the errors that FFmpeg logs in this thread within the block.

    FFmpeg's log level is global to the process: it is raised to ERROR while any thread listens, and
    restored by the last.
    """
    global _listeners, _before
    with _lock:
        if not _listeners:
            _before = av.logging.get_level(), av.logging.get_skip_repeated()
            av.logging.set_level(av.logging.ERROR)
            av.logging.set_skip_repeated(False)
        _listeners += 1
    try:
        with av.logging.Capture() as complaints:
            yield complaints
    finally:
        with _lock:
            _listeners -= 1
            if not _listeners:
                av.logging.set_level(_before[0])
                av.logging.set_skip_repeated(_before[1])
