"""Loading ahead: order, how far ahead, errors, and a reader that stops."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.inputs.prefetch import prefetch


def numbered(count: int, done: list[int]) -> Iterator[Callable[[], int]]:
    def load(number: int) -> Callable[[], int]:
        def work() -> int:
            done.append(number)
            return number

        return work

    return (load(number) for number in range(count))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_results_come_in_order() -> None:
    assert list(prefetch(numbered(20, []))) == list(range(20))
    assert list(prefetch(iter([]))) == []


def test_loads_run_ahead_and_no_further() -> None:
    done: list[int] = []
    results = prefetch(numbered(20, done), ahead=3)
    assert next(results) == 0
    # Three wait to be taken and one more is ready to be put.
    wait_until(lambda: len(done) == 5)
    time.sleep(0.3)
    assert done == [0, 1, 2, 3, 4]
    assert next(results) == 1
    wait_until(lambda: len(done) == 6)
    results.close()


def test_an_error_is_raised_where_its_result_would_have_come() -> None:
    def fails() -> int:
        raise OSError("the shard is gone")

    results = prefetch(iter([lambda: 1, fails, lambda: 3]))
    assert next(results) == 1
    with pytest.raises(OSError, match="the shard is gone"):
        next(results)


def test_a_reader_that_stops_ends_the_thread() -> None:
    done: list[int] = []
    results = prefetch(numbered(1000, done))
    assert next(results) == 0
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    assert len(done) < 10
