"""Named parts of a step, for a profiler's trace and for a table of their times.

``with span("text tower"): ...`` costs two calls if nothing is recorded. Inside :class:`Recording`,
each span's time is recorded as well; a moment is counted for the innermost span of its thread, and
divided evenly among threads that are in a span.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import torch
from torch.profiler import record_function

STEP = "step"
"""The span of a complete step; its time outside of other spans is listed under OTHER."""
OTHER = "not named"

_recording: "Recording | None" = None


class span:  # noqa: N801 (used as a function)
    """A named part of a step, as a context.

    Args:
        name: Shown in traces and in the table.
    """

    __slots__ = ("_name", "_start", "_trace")

    def __init__(self, name: str) -> None:
        self._name = name
        self._trace = record_function(name)

    def __enter__(self) -> None:
        self._trace.__enter__()
        if _recording is not None:
            _recording.settle()
            self._start = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if _recording is not None:
            _recording.settle()
            _recording.add(self._name, getattr(self, "_start", None))
        self._trace.__exit__(kind, error, trace)


@dataclass(frozen=True)
class Part:
    """A row of the table."""

    name: str
    seconds: float
    """Per step, on average."""
    share: float
    """Share of the step's time, between 0 and 1."""


class Recording:
    """Records the times of all spans inside, in all threads.

    On a GPU, every span waits for the device at both ends, so that it measures only its own work;
    steps take a little longer than without recording.
    """

    def __init__(self) -> None:
        self._found: list[tuple[str, int, float, float]] = []
        self._wait: Callable[[], None] | None = (
            torch.cuda.synchronize if torch.cuda.is_available() else None
        )

    def __enter__(self) -> "Recording":
        global _recording
        _recording = self
        return self

    def __exit__(self, *error: object) -> None:
        global _recording
        _recording = None

    def settle(self) -> None:
        """Wait for the device, if there is one."""
        if self._wait is not None:
            self._wait()

    def add(self, name: str, start: float | None) -> None:
        """Record a span of this thread that ends now; one that began before the recording is ignored."""
        if start is not None:
            self._found.append((name, threading.get_ident(), start, time.perf_counter()))

    @property
    def count(self) -> int:
        """Number of spans that have ended."""
        return len(self._found)

    def table(self) -> list[Part]:
        """The parts of a step by time, longest first, then time outside spans; empty without a step."""
        steps = [(start, end) for name, _, start, end in self._found if name == STEP]
        total = sum(end - start for start, end in steps)
        if not total:
            return []
        inside = [
            (name, thread, start, end)
            for name, thread, start, end in self._found
            if name != STEP and any(a <= start and end <= b for a, b in steps)
        ]
        seconds = _shared_out(inside)
        seconds[OTHER] = total - sum(seconds.values())
        parts = [Part(name, value / len(steps), value / total) for name, value in seconds.items()]
        return sorted(parts, key=lambda part: (part.name == OTHER, -part.seconds))


def _shared_out(spans: Sequence[tuple[str, int, float, float]]) -> dict[str, float]:
    """Seconds per name: each moment is divided equally among the innermost spans of all threads."""
    events = sorted(
        (moment, kind, number)
        for number, (_, _, start, end) in enumerate(spans)
        for moment, kind in ((start, 1), (end, 0))
    )
    open_in: dict[int, list[int]] = {}
    seconds: dict[str, float] = {}
    last = 0.0
    for moment, starts, number in events:
        active = [stack[-1] for stack in open_in.values() if stack]
        for each in active:
            name = spans[each][0]
            seconds[name] = seconds.get(name, 0.0) + (moment - last) / len(active)
        stack = open_in.setdefault(spans[number][1], [])
        if starts:
            stack.append(number)
        else:
            stack.remove(number)
        last = moment
    return seconds


def format_parts(parts: Sequence[Part]) -> str:
    """The table as text: part, milliseconds a step, share."""
    width = max([len(part.name) for part in parts], default=4)
    rows = [
        f"{part.name:{width}}  {1000 * part.seconds:9.1f}  {100 * part.share:6.1f} %"
        for part in parts
    ]
    total = sum(part.seconds for part in parts)
    head = f"{'part':{width}}  {'ms a step':>9}  {'share':>8}"
    return "\n".join([head, *rows, f"{'a step':{width}}  {1000 * total:9.1f}  {100:6.1f} %"])
