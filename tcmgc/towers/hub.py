"""Published weights from open_clip's hub, or from the local cache if the hub is unreachable."""

import contextlib
import socket
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

PATIENCE = 5.0
"""Seconds within which the hub must answer."""


@contextlib.contextmanager
def offline_if_unreachable(patience: float = PATIENCE) -> Iterator[None]:
    """Inside this context, use only the local cache of weights if the hub does not answer.

    Otherwise the hub's client would retry for more than a minute, with a warning each time. Behind a
    proxy there is no check and nothing changes.

    Args:
        patience: seconds to wait for a connection.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(constants.ENDPOINT, patience)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(address: str, patience: float) -> bool:
    if urllib.request.getproxies():
        return True
    parts = urlsplit(address)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), patience).close()
    except OSError:
        return False
    return True
