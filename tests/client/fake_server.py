"""A server that does what a test tells it, faults included: a script for every connection it gets."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from http import HTTPStatus
from ssl import SSLContext
from threading import Thread
from typing import Self, TypeVar

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.types import Observation
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.limits import Limits
from molmoact2.wire.messages import Answer, Ask, Hello, Message, RobotCard, Welcome

T = TypeVar("T", bound=Message)
OBSERVATION = Observation(
    images={"front": np.full((4, 6, 3), 7, np.uint8), "wrist": np.zeros((4, 6, 3), np.uint8)},
    state=np.arange(6, dtype=np.float32),
    instruction="wave",
)
CARD = RobotCard(
    tag=SO101_TABLETOP.tag,
    cameras=SO101_TABLETOP.cameras,
    state_names=SO101_TABLETOP.state_names,
    action_names=SO101_TABLETOP.action_names,
    action_units=SO101_TABLETOP.action_units,
    control_hz=SO101_TABLETOP.control_hz,
    action_horizon=SO101_TABLETOP.action_horizon,
    n_action_steps=SO101_TABLETOP.n_action_steps,
    setup=SO101_TABLETOP.setup,
    control_mode=SO101_TABLETOP.control_mode,
    normalization="digest",
    state_statistics={},
    action_statistics={},
)
WELCOME = Welcome(
    server="fake",
    model="tiny",
    revision="abc",
    session="s1",
    robots=(CARD,),
    modes=("continuous",),
    can_think=False,
    limits=Limits(),
)


class Peer:
    """One client, seen from the server."""

    def __init__(self, socket: ServerConnection, received: list[Message]) -> None:
        self.socket = socket
        self.received = received

    async def next(self, kind: type[T]) -> T:
        """The next message, which has to be of this kind."""
        message = decode(await self.socket.recv(), Limits())  # type: ignore[arg-type]
        self.received.append(message)
        assert isinstance(message, kind), message
        return message

    async def say(self, message: Message) -> None:
        await self.socket.send(encode(message))

    async def greet(self, **changes: object) -> Hello:
        """Shake hands."""
        hello = await self.next(Hello)
        await self.say(replace(WELCOME, **changes))
        return hello

    async def answer(self, ask: Ask, value: float | None = None, **changes: object) -> None:
        """Three rows of `value`, or of the number of the question."""
        actions = np.full((3, 6), ask.id if value is None else value, np.float32)
        reply = Answer(id=ask.id, observed_at=ask.observed_at, actions=actions, seed=0, timing={"total": 0.25})
        await self.say(replace(reply, **changes))

    async def serve_on(self) -> None:
        """Answer everything that is asked, for good."""
        while True:
            message = await self.next(Message)  # type: ignore[type-var]
            if isinstance(message, Ask):
                await self.answer(message)


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait for what another thread does; a test that waits in vain fails by its own time limit."""
    while not is_so():
        time.sleep(0.002)


Script = Callable[[Peer], Awaitable[None]]


async def good(peer: Peer) -> None:
    """A server without faults."""
    await peer.greet()
    await peer.serve_on()


class FakeServer:
    """Listens on a thread of its own; connection i follows script i, and later ones the last."""

    def __init__(self, *scripts: Script, statuses: tuple[int, ...] = (), tls: SSLContext | None = None) -> None:
        self.scripts = scripts
        self.tls = tls
        self.statuses = list(statuses)
        """HTTP errors for the first attempts to connect."""
        self.received: list[Message] = []
        self.headers: list[Headers] = []
        self.paths: list[str] = []
        self.errors: list[Exception] = []
        self.num_attempts = 0
        self.loop = asyncio.new_event_loop()
        self.thread = Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        self.server = asyncio.run_coroutine_threadsafe(self._listen(), self.loop).result()
        self.port: int = next(iter(self.server.sockets)).getsockname()[1]
        self.url = f"{'ws' if self.tls is None else 'wss'}://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        assert not self.errors, self.errors

    async def _listen(self) -> Server:
        return await serve(
            self._follow,
            "127.0.0.1",
            0,
            process_request=self._let_in,
            compression=None,
            max_size=2**26,
            close_timeout=0.05,
            ping_interval=None,
            ssl=self.tls,
        )

    async def _end(self) -> None:
        for connection in list(self.server.connections):
            connection.transport.abort()
        self.server.close()
        await self.server.wait_closed()

    def _let_in(self, socket: ServerConnection, request: Request) -> Response | None:
        self.num_attempts += 1
        self.headers.append(request.headers)
        self.paths.append(request.path)
        return socket.respond(HTTPStatus(self.statuses.pop(0)), "no\n") if self.statuses else None

    async def _follow(self, socket: ServerConnection) -> None:
        number = min(len(self.paths) - 1, len(self.scripts) - 1)
        try:
            await self.scripts[number](Peer(socket, self.received))
        except ConnectionClosed:
            pass
        except AssertionError as error:
            self.errors.append(error)

    def asks(self) -> list[Ask]:
        """The questions that came."""
        return [message for message in self.received if isinstance(message, Ask)]
