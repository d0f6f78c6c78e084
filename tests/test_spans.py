"""Where a step's time goes: what the table says of times that are known."""

import threading
import time

import pytest

from tcmgc.training import spans
from tcmgc.training.spans import OTHER, STEP, Recording, format_parts, span


def seconds(recording: Recording) -> dict[str, float]:
    return {part.name: part.seconds for part in recording.table()}


def test_each_moment_belongs_to_the_innermost_span(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 5.0, 6.0, 10.0])
    monkeypatch.setattr(spans.time, "perf_counter", lambda: next(clock))
    with Recording() as recording, span(STEP), span("outer"), span("inner"):
        pass
    assert seconds(recording) == {"inner": 3.0, "outer": 2.0, OTHER: 5.0}
    assert sum(part.share for part in recording.table()) == pytest.approx(1.0)


def test_threads_share_a_moment() -> None:
    def work(name: str) -> None:
        with span(name):
            together.wait()
            time.sleep(0.05)

    together = threading.Barrier(2)
    with Recording() as recording, span(STEP):
        threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = seconds(recording)
    whole = sum(found.values())
    assert found["one"] + found["two"] <= whole
    assert found["one"] == pytest.approx(found["two"], rel=0.5)


def test_steps_are_averaged_and_what_lies_outside_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 1.0, 10.0, 11.0, 12.0, 14.0, 20.0, 21.0, 24.0, 26.0])
    monkeypatch.setattr(spans.time, "perf_counter", lambda: next(clock))
    with Recording() as recording:
        with span("between"):
            pass
        for _ in range(2):
            with span(STEP), span("part"):
                pass
    assert seconds(recording) == {"part": 2.0, OTHER: 3.0}


def test_without_a_step_there_is_no_table() -> None:
    with Recording() as recording, span("part"):
        pass
    assert recording.table() == []


def test_the_table_as_text() -> None:
    rows = format_parts([spans.Part("text tower", 0.1, 0.25), spans.Part(OTHER, 0.3, 0.75)])
    assert rows.splitlines()[1].split() == ["text", "tower", "100.0", "25.0", "%"]
    assert rows.splitlines()[-1].split() == ["a", "step", "400.0", "100.0", "%"]
