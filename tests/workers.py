"""A few processes joined by gloo, kept for many calls: starting them is what takes time."""

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class Workers:
    """``size`` processes; :meth:`run` calls a function of some test module in each of them."""

    def __init__(self, size: int) -> None:
        # A fresh server, whose imports all workers share: forking pytest itself would copy its threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tcmgc.model", "tcmgc.training.step", "torch.distributed"])
        self.folder = tempfile.TemporaryDirectory()
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(size):
            mine, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, rank, size, f"file://{self.folder.name}/store")
            )
            process.start()
            theirs.close()
            self.pipes.append(mine)
            self.processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The function's results, by rank."""
        for pipe in self.pipes:
            pipe.send((function, arguments))
        answers = [pipe.recv() for pipe in self.pipes]
        for good, result in answers:
            if not good:
                raise AssertionError(result)
        return [result for _, result in answers]

    def close(self) -> None:
        """End the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(20)
            process.kill()
        self.folder.cleanup()


def _serve(pipe: Connection, rank: int, size: int, store: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    while (call := pipe.recv()) is not None:
        function, arguments = call
        try:
            pipe.send((True, function(*arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()
