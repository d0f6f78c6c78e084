"""Output of a running command: a header, a live line on a terminal, plain lines in a pipe."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from tqdm import tqdm

_LOOK = 0.3
"""Seconds between two checks for messages from workers."""
_PIPE = 5.0
"""Seconds between two lines of progress in a pipe."""


def header(name: str, text: str) -> None:
    """Print a line of the header: a name and its value."""
    print(f"{name:9}{text}", flush=True)


def live() -> bool:
    """Whether both streams are terminals, so that a person can watch."""
    return sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def silent(quiet: bool) -> Iterator[None]:
    """With ``quiet``, suppress stdout in the block; errors go to stderr as usual."""
    if not quiet:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


class Progress:
    """Progress over a known number of items: a bar on a terminal, otherwise a line every few seconds."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.done = self.bad = 0
        self.start = self.said = time.monotonic()
        self._bar = tqdm(total=total, unit="", desc=f"  {what}", leave=False) if live() else None

    def step(self, by: int = 1, bad: bool = False) -> None:
        """Count items, and show the progress."""
        self.done, self.bad = self.done + by, self.bad + bad
        last = self.done >= self.total
        if self._bar is not None:
            self._bar.update(by)
            if self.bad:
                self._bar.set_postfix_str(f"{self.bad} unreadable", refresh=False)
            if last:
                self._bar.close()
        now = time.monotonic()
        if last or (self._bar is None and now - self.said >= _PIPE):
            self.said = now
            pace = self.done / max(now - self.start, 1e-9)
            speed = f"{pace:.0f} a second" if pace >= 1 else f"{1 / pace:.0f} s each"
            line = f"  {self.done} of {self.total} {self.what}, {speed}"
            print(line + (f", {self.bad} unreadable" if self.bad else ""), flush=True)


class News(Protocol):
    """Source of workers' lines and the state of training for the driver."""

    def news(self) -> list[dict[str, Any]]:
        """All messages by sender: ``lines``, ``count``, ``now``."""


@contextlib.contextmanager
def following(news: News) -> Iterator[None]:
    """While the block runs, show the workers' messages in a thread, if called from the main thread.

    In other threads, as in a trial of a sweep, nothing is shown.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    screen, stop = _Screen(), threading.Event()

    def work() -> None:
        while not stop.wait(_LOOK):
            screen.show(news.news())

    thread = threading.Thread(target=work, name="screen", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        screen.show(news.news())
        screen.close()


class _Screen:
    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.bar: tqdm[Any] | None = None
        self.live = live()

    def show(self, news: list[dict[str, Any]]) -> None:
        """Show new lines, and the live line."""
        for who, said in enumerate(news):
            fresh = said["count"] - self.seen.get(who, 0)
            self.seen[who] = said["count"]
            for line in said["lines"][-fresh:] if fresh > 0 else ():
                if self.live and line["step"]:
                    continue  # the live line shows it
                self._write(line["text"])
            if self.live and said["now"]:
                self._draw(said["now"])

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _write(self, text: str) -> None:
        if self.bar is None:
            print(text, flush=True)
        else:
            self.bar.write(text, file=sys.stdout)

    def _draw(self, now: dict[str, Any]) -> None:
        if self.bar is None:
            self.bar = tqdm(
                total=now["steps"],
                initial=now["step"],
                dynamic_ncols=True,
                leave=False,
                bar_format="step {n_fmt} of {total_fmt} |{bar:20}| {desc}",
            )
        rate = now["rate"]
        pace = now["steps_a_second"]
        left = f", {duration((now['steps'] - now['step']) / pace)} left" if pace else ""
        text = f"loss {now['loss']:.3f}, {rate:.0f} pairs a second{left}"
        if now.get("best") is not None:
            text += f", validation SumR {now['last']:.1f} (best {now['best']:.1f})"
        self.bar.n = now["step"]
        self.bar.set_description_str(text)  # which draws the line


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
