"""The server on Ray Serve: replicas that map one index, and answer concurrent queries in one batch."""

import asyncio
from typing import Any, ClassVar

import torch
from ray import serve

from pipeline import cli
from pipeline.serving.http import application
from pipeline.serving.service import SearchRequest, Service

TOGETHER = 32
"""Most queries that are scored together."""
WAIT = 0.003
"""Seconds that a query waits for others."""


class Late:
    """The ASGI application created by this process's replica."""

    app: ClassVar[Any] = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on."""
        if scope["type"] == "lifespan":
            return
        await Late.app(scope, receive, send)


@serve.deployment(max_ongoing_requests=256)
@serve.ingress(Late())
class Replica:
    """One process that answers.

    Args:
        index: folder or URI.
        labels: folder of the tables of labels.
        token: required in requests; None on loopback.
        threads: CPU threads for scoring.
    """

    def __init__(self, index: str, labels: str, token: str | None, threads: int) -> None:
        cli.quiet()
        torch.set_num_threads(threads)
        self.service = Service(index, labels)
        Late.app = application(self.service, self.search, token)

    @serve.batch(max_batch_size=TOGETHER, batch_wait_timeout_s=WAIT)
    async def search(self, requests: list[SearchRequest]) -> list[Any]:
        """Answers, or exceptions, of a batch of requests."""
        return await asyncio.to_thread(self.service.search, requests)
