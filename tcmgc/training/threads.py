"""Threads that compute pieces of one result in parallel, each as if it were computed alone.

On a CPU, rounding depends on the number of threads in an operation (`torch.set_num_threads`). A
process with many pieces can thus give each as many threads as a process with one piece has.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads:
    """Called like `map`; returns a list.

    PyTorch's modes (no gradients, inference) are thread-local: the function must set those it needs.

    Args:
        count: Items computed at a time. With one, the calling thread computes them in turn.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "piece") if count > 1 else None

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The function's results, in the order of the items; the first error is raised.

        Items are consumed on demand, at most `count` ahead of the results.
        """
        if self._pool is None:
            return [function(item) for item in items]
        running: deque[Future[Result]] = deque()
        results = []
        for item in items:
            running.append(self._pool.submit(function, item))
            if len(running) > self.count:
                results.append(running.popleft().result())
        return [*results, *(future.result() for future in running)]


ONE = Threads()
"""Computes everything in turn, in the calling thread."""
