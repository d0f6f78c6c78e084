"""Use the counters of a transport stream to distinguish lost packets from joined streams.

Every 188-byte packet increments the counter of its stream (ISO/IEC 13818-1, 2.4.3.3).
FFmpeg reports a damaged picture wherever the counter jumps, even if two complete streams were joined.
"""

import re
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tcmgc.video.file import Source

_PACKET = 188
_LAYOUTS = ((_PACKET, 0), (192, 4), (204, 0))
"""Bytes per packet, and the packet's offset in them: plain, with time codes, with parity."""
_TABLES = 0
"""The id of the program association table, which begins a program."""
_STUFFING = 0x1FFF
"""The id of packets without content, which are not counted."""
_PARAMETERS = re.compile(rb"\x00\x00\x01[\xb3\x27\x47\x67\x40\x42]")
"""Sequence headers: MPEG-1 and 2; H.264; HEVC."""
_CHUNK = 16 << 20


def splices(source: Source, pid: int) -> int | None:
    """Number of places where one complete stream follows another; None if packets of ``pid`` are lost.

    At such a place, a picture begins that needs no other, the program's tables are sent right before
    it, and their counter, another stream's counter or the clock restarts. Lost packets
    do not affect the other counters.
    """
    packets = _packets(source)
    if packets is None:
        return 0
    pids = (packets[:, 1] & 0x1F).astype(np.int32) << 8 | packets[:, 2]
    if (packets[pids == pid, 1] & 0x80).any():  # marked by the receiver as damaged
        return None
    mine = np.flatnonzero(pids == pid)
    jumps = _jumps(packets[mine])
    counted = [int(other) for other in np.unique(pids) if other not in (pid, _STUFFING)]
    others = {other: np.flatnonzero(pids == other) for other in counted}
    broken = {other: set(at[_jumps(packets[at])].tolist()) for other, at in others.items()}
    tables = np.flatnonzero(pids == _TABLES)
    for jump in jumps:
        before, at = mine[jump - 1], mine[jump]
        begins = _begins_anew(packets[at].tobytes())
        announced = bool(((tables > before) & (tables < at)).any())
        anew = any(
            _first_after(places, before) in broken[other] for other, places in others.items()
        )
        if not (begins and announced and (anew or _clock_jumps(packets, mine, int(jump)))):
            return None
    return len(jumps)


def _packets(source: Source) -> UInt8[np.ndarray, "packets 188"] | None:
    """All packets of the file; None if it is not a transport stream."""
    with source.open() as file:
        head = file.read(2 * _LAYOUTS[-1][0] + _LAYOUTS[1][1])
        layout = next((one for one in _LAYOUTS if _synced(head, *one)), None)
        if layout is None:
            return None
        width, begin = layout
        file.seek(0)
        parts = []
        while chunk := file.read(_CHUNK // width * width):
            whole = np.frombuffer(chunk, dtype=np.uint8)[: len(chunk) // width * width]
            parts.append(whole.reshape(-1, width)[:, begin : begin + _PACKET])
    return np.concatenate(parts)


def _synced(head: bytes, width: int, begin: int) -> bool:
    return len(head) > begin + width and head[begin] == head[begin + width] == 0x47


def _jumps(packets: UInt8[np.ndarray, "packets 188"]) -> np.ndarray:
    """Which packets of one stream do not continue the previous packet's counter."""
    if len(packets) < 2:
        return np.array([], dtype=np.int64)
    count, filled = packets[:, 3] & 15, (packets[:, 3] & 0x10) > 0
    expected = (count[:-1] + filled[1:]) & 15
    announced = ((packets[1:, 3] & 0x20) > 0) & (packets[1:, 4] > 0) & ((packets[1:, 5] & 0x80) > 0)
    return np.flatnonzero((count[1:] != expected) & ~announced) + 1


def _first_after(places: np.ndarray, place: Any) -> int:
    at = int(np.searchsorted(places, place, side="right"))
    return int(places[at]) if at < len(places) else -1


def _clock_jumps(packets: UInt8[np.ndarray, "packets 188"], mine: np.ndarray, jump: int) -> bool:
    """Whether presentation times step back, or forward by a second."""
    begins = mine[:jump][(packets[mine[:jump], 1] & 0x40) > 0]
    before = _time(packets[begins[-1]]) if len(begins) else None
    now = _time(packets[mine[jump]])
    return before is not None and now is not None and not 0 <= now - before < 90_000


def _begins_anew(packet: bytes) -> bool:
    """Whether a picture marked as independent, or the parameters before one, begin here."""
    if not packet[1] & 0x40:
        return False
    marked = packet[3] & 0x20 and packet[4] and packet[5] & 0x40  # random_access_indicator
    return bool(marked) or _PARAMETERS.search(packet, 4) is not None


def _time(packet: UInt8[np.ndarray, " 188"]) -> int | None:
    """The presentation time that begins in the packet, in ticks of 1/90,000 s."""
    data = packet.tobytes()
    if not data[1] & 0x40:
        return None
    at = 4 + (1 + data[4] if data[3] & 0x20 else 0)
    if data[at : at + 3] != b"\0\0\1" or len(data) < at + 14 or not data[at + 7] & 0x80:
        return None
    a, b, c, d, e = data[at + 9 : at + 14]
    return (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
