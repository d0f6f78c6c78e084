"""Threads that compute pieces of one result side by side, each as it would be computed alone.

On a CPU, last digits depend on how many threads share an operation (`torch.set_num_threads`). With
these, a process with many pieces can give each as many as a process with one piece has.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads:
    """Called like `map`; gives a list.

    PyTorch's modes (no gradients, inference) are a thread's own: the function sets those it needs.

    Args:
        count: Items computed at a time. With one, the calling thread computes them in turn.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "piece") if count > 1 else None

    def __call__(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """The function's results, in the order of the items; the first error is raised.

        Items are taken as they are needed, no more than `count` ahead of the results.
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
"""Everything in turn, in the calling thread."""
