"""Ray Data over items that may kill their worker, as some broken files do with a decoder.

Ray retries a task whose worker died, with the same outcome, for ever or until the data set fails.
Here, if a batch kills its worker, its items are retried once, each alone, and an item that kills
its worker again is reported. All other items return their results.
"""

import contextlib
import functools
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy, TaskPoolStrategy
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    WorkerCrashedError,
)
from ray.util.annotations import RayDeprecationWarning


def map_surviving(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    workers: int,
    batch: int,
    node: str | None = None,
    on_lost: Callable[[int], None] = lambda count: None,
    finish: Callable[[], Callable[[Any], Any]] | None = None,
    finishers: int = 0,
) -> Iterator[tuple[int, Any]]:
    """Index and result of every item, as they complete; None for an item that kills its worker.

    Args:
        function: Called in worker processes, to which it is sent pickled.
        items: Its arguments.
        workers: Batches processed at a time, one CPU each.
        batch: Items per batch; at most this many are done twice when a worker dies.
        node: Value of the label ``node-role`` of the nodes to run on.
        on_lost: Called with the number of items that are retried because their process died.
        finish: Creates a second function, which is called on the results of the first in actors, with
            a GPU each if there are any. An item that kills one is retried like any other.
        finishers: Number of these actors.

    Raises:
        RayTaskError: the exception of ``function``.
    """
    selector: dict[str, Any] = {"label_selector": {"node-role": node}} if node else {}
    blocks = -(-len(items) // batch)
    rows = ray.data.from_items(
        [{"index": index, "item": pickle.dumps(item)} for index, item in enumerate(items)],
        override_num_blocks=blocks,
    )
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to prevent endless retries of a task whose worker died.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        dataset = rows.map_batches(
            functools.partial(_call, function=function),
            batch_size=batch,
            batch_format="numpy",
            compute=TaskPoolStrategy(size=min(workers, blocks)),
            num_cpus=1,
            max_retries=0,
            **selector,
        )
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    if finish is not None:
        dataset = dataset.map_batches(
            _Finisher,
            fn_constructor_args=(finish,),
            batch_size=1,
            batch_format="numpy",
            compute=ActorPoolStrategy(size=finishers),
            num_cpus=0 if gpus else 1,
            num_gpus=gpus,
        )
    dataset.context.max_errored_blocks = -1
    left = set(range(len(items)))
    with _quiet(), contextlib.suppress(ObjectLostError):  # results on a lost node are skipped
        for row in dataset.iter_rows():
            left.discard(row["index"])
            yield row["index"], pickle.loads(row["result"])
    if left:
        on_lost(len(left))
    needs = {"num_gpus": gpus} if finish is not None else selector
    alone = ray.remote(_apply).options(num_cpus=1, max_retries=0, **needs)
    start = functools.partial(alone.remote, function, finish)
    first = {index: start(items[index]) for index in sorted(left)}
    for index, reference in first.items():
        yield index, _result(reference, functools.partial(start, items[index]))


def _result(reference: Any, again: Callable[[], Any]) -> Any:
    while True:
        try:
            return ray.get(reference)
        except (WorkerCrashedError, OutOfMemoryError):
            return None
        except (NodeDiedError, ObjectLostError):
            reference = again()  # not caused by the item


def _call(rows: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    # Pickled, so that Ray Data sees only bytes and converts nothing.
    results = [pickle.dumps(function(pickle.loads(item))) for item in rows["item"]]
    return {"index": rows["index"], "result": results}


class _Finisher:
    def __init__(self, finish: Callable[[], Callable[[Any], Any]]) -> None:
        self.function = finish()

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        results = [pickle.dumps(self.function(pickle.loads(item))) for item in rows["result"]]
        return {"index": rows["index"], "result": results}


def _apply(
    function: Callable[[Any], Any],
    finish: Callable[[], Callable[[Any], Any]] | None,
    item: Any,
) -> Any:
    result = function(item)
    return result if finish is None else finish()(result)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide Ray Data's traceback of a lost batch, since the batch is retried."""
    logger = logging.getLogger("ray.data._internal.execution.streaming_executor_state")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
