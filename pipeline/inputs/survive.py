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
    """Index and result of every item, as they are done; the result of a killer is None.

    Args:
        function: Called in worker processes; travels to them pickled.
        items: What to call it on.
        workers: Batches under way at a time, one CPU each.
        batch: Items a batch; at most so many are done twice when a worker dies.
        node: Value of the label ``node-role`` of the nodes to run on.
        on_lost: Told how many items are tried again because their process died.
        finish: Makes a second function, to be called on the results of the first in actors, with a
            GPU each where there are any. An item that kills one is tried again like any other.
        finishers: Number of these actors.

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
    with _quiet(), contextlib.suppress(ObjectLostError):  # results that were on a lost node: left
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
            reference = again()  # not the item's doing


def _call(rows: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    # Pickled, so that Ray Data sees bytes and nothing it would like to convert.
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
    """Keep Ray Data's traceback of a lost batch off the terminal: the batch is tried again."""
    logger = logging.getLogger("ray.data._internal.execution.streaming_executor_state")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
