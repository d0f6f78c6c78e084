"""The address of the Ray cluster that a command joins, and a check that it answers."""

import os
import socket

from pipeline.cluster import private

_SECONDS = 10.0
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""HTTP/2's preface and empty settings, which every gRPC server answers with its own settings."""
_SETTINGS = 4


def of_cluster() -> str | None:
    """Address of the cluster that ``ray.init`` would join; None if it would start one.

    ``RAY_ADDRESS``, or the last ``ray start`` of this machine, if that still runs. Ray itself would wait
    five minutes for a cluster that does not answer.

    Raises:
        ValueError: RAY_ADDRESS names a cluster that does not answer.
    """
    named = os.environ.get("RAY_ADDRESS")
    try:
        found = private.address()
    except ConnectionError:
        raise ValueError(
            f"RAY_ADDRESS is {named!r}, but no Ray runs on this machine; start one with "
            "`ray start --head`, or unset RAY_ADDRESS to have one started for this run alone"
        ) from None
    if found is None or _answers(found):
        return found
    if not named:
        return None  # left behind by a killed `ray start`
    raise ValueError(
        f"RAY_ADDRESS is {named!r}, and no Ray cluster answers there; expected HOST:PORT of a running head "
        "(`ray start --head` names it), `auto` or `local`; unset it to have one started for this run alone"
    )


def _answers(address: str) -> bool:
    """Whether a gRPC server listens at ``host:port``."""
    host, _, port = address.partition("://")[2 if "://" in address else 0].rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS) as link:
            link.settimeout(_SECONDS)
            link.sendall(_HELLO)
            frame = link.recv(9)
            return len(frame) >= 4 and frame[3] == _SETTINGS
    except (OSError, ValueError, OverflowError):
        return False
