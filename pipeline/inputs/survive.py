"""Ray Data over items of which one may kill its worker, as a decoder does on some broken files.

Ray tries a task whose worker died again, with the same end, for ever or until the data set fails.
Here a batch that kills its worker costs that batch: its items are tried once more, each alone,
and the one that kills again is named. Every other item gives its result.
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
from ray.data import TaskPoolStrategy
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
) -> Iterator[tuple[int, Any]]:
    """Index and result of every item, as they are done; the result of a killer is None.

    Args:
        function: Called in worker processes; travels to them pickled.
        items: What to call it on.
        workers: Batches under way at a time, one CPU each.
        batch: Items a batch; at most so many are done twice when a worker dies.
        node: Value of the label ``node-role`` of the nodes to run on.
        on_lost: Told how many items are tried again because their process died.

    Raises:
        RayTaskError: what ``function`` raised.
    """
    selector: dict[str, Any] = {"label_selector": {"node-role": node}} if node else {}
    blocks = -(-len(items) // batch)
    rows = ray.data.from_items(
        [{"index": index, "item": pickle.dumps(item)} for index, item in enumerate(items)],
        override_num_blocks=blocks,
    )
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to say that a task whose worker died is not tried for ever.
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
    dataset.context.max_errored_blocks = -1
    left = set(range(len(items)))
    with _quiet(), contextlib.suppress(ObjectLostError):  # results that were on a lost node: left
        for row in dataset.iter_rows():
            left.discard(row["index"])
            yield row["index"], pickle.loads(row["result"])
    if left:
        on_lost(len(left))
    alone = ray.remote(_apply).options(num_cpus=1, max_retries=0, **selector)
    first = {index: alone.remote(function, items[index]) for index in sorted(left)}
    for index, reference in first.items():
        yield index, _result(reference, functools.partial(alone.remote, function, items[index]))


def _result(reference: Any, again: Callable[[], Any]) -> Any:
    while True:
        try:
            return ray.get(reference)
        except (WorkerCrashedError, OutOfMemoryError):
            return None
        except (NodeDiedError, ObjectLostError):
            reference = again()  # not the item's doing


def _call(rows: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    # Pickled, so that Ray Data sees bytes and nothing it would like to convert.
    results = [pickle.dumps(function(pickle.loads(item))) for item in rows["item"]]
    return {"index": rows["index"], "result": results}


def _apply(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Data's traceback of a lost batch off the terminal: the batch is tried again."""
    logger = logging.getLogger("ray.data._internal.execution.streaming_executor_state")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
