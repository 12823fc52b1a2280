"""Ask a server for actions, without asyncio: `AsyncClient` on a thread of its own."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from ssl import SSLContext
from threading import Thread
from typing import Any, Self, TypeVar, Unpack

from molmoact2.client.asynchronous import AsyncClient
from molmoact2.client.errors import ConnectionLostError
from molmoact2.client.link import Backoff
from molmoact2.client.questions import AskOptions, robot_card
from molmoact2.types import ActionChunk, Observation
from molmoact2.wire.messages import Control, RobotCard, Telemetry, Welcome

T = TypeVar("T")


class Client:
    """A connection to a server that comes back when it breaks; use it with `with`. Its methods block.

    Any thread may call them, and all share one question: a newer one takes the place of the one before.
    """

    def __init__(
        self,
        url: str = "ws://127.0.0.1:8000",
        *,
        token: str | None = None,
        jpeg_quality: int | None = None,
        timeout_s: float = 10.0,
        tls: SSLContext | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """Begin to connect; returns at once. The arguments are those of `AsyncClient`."""
        self._client = AsyncClient(
            url, token=token, jpeg_quality=jpeg_quality, timeout_s=timeout_s, tls=tls, backoff=backoff
        )
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="molmoact2.client", daemon=True)
        self._thread.start()
        self._loop.call_soon_threadsafe(self._client.start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def welcome(self) -> Welcome:
        """What the server says about itself; waits for the connection.

        Raises ConnectionLostError where nobody answers, RefusedError where the server does not want us.
        """
        return self._wait(self._client.connect())

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as anybody knows."""
        return self._client.is_connected

    @property
    def num_dropped(self) -> int:
        """Answers that came too late, or that nobody waited for any more."""
        return self._client.num_dropped

    @property
    def num_connections(self) -> int:
        """How often it connected."""
        return self._client.num_connections

    @property
    def num_unsent(self) -> int:
        """Telemetry that could not be sent at once and was left out."""
        return self._client.num_unsent

    def robot(self, embodiment: str | None = None) -> RobotCard:
        """What the server knows about a robot; ValueError where it does not know it, or several and none is named."""
        return robot_card(self.welcome, embodiment)

    def begin(
        self, observation: Observation, *, timeout_s: float | None = None, **options: Unpack[AskOptions]
    ) -> Future[ActionChunk]:
        """Ask without waiting: a future that has what `act` returns or raises. Cancel it to drop the answer."""
        return self._run(self._client.act(observation, timeout_s=timeout_s, **options))

    def act(
        self, observation: Observation, *, timeout_s: float | None = None, **options: Unpack[AskOptions]
    ) -> ActionChunk:
        """The next actions; what it takes and raises is in `AsyncClient.act`."""
        return self._wait(self._client.act(observation, timeout_s=timeout_s, **options))

    def reset(self, seed: int | None = None) -> None:
        """Begin a new episode; `seed` is of its noise."""
        self._wait(self._client.reset(seed))

    def report(self, telemetry: Telemetry) -> None:
        """Tell the server what the robot did; returns at once, see `AsyncClient.report`."""
        report = self._client.packed(telemetry)
        if self._loop.is_closed():
            raise ConnectionLostError("This client was closed.")
        self._loop.call_soon_threadsafe(self._client.post, report)

    def wishes(self) -> list[Control]:
        """What an operator wished since the last call, oldest first."""
        return self._client.wishes()

    def close(self) -> None:
        """End the connection and the thread. Questions that wait in other threads fail with ConnectionLostError."""
        if self._loop.is_closed():
            return
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        """Close, and see every question to its end."""
        await self._client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work` on the thread."""
        if self._loop.is_closed():
            work.close()
            raise ConnectionLostError("This client was closed.")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` on the thread; given up when this thread is interrupted."""
        future = self._run(work)
        try:
            return future.result()
        finally:
            future.cancel()
