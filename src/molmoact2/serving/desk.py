"""What every dialect needs at hand: the engine, the guard, and a way to read messages without holding anybody up."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import nan
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from molmoact2.processing.norm_stats import TagStats
from molmoact2.serving.engine import Engine
from molmoact2.serving.security import Guard, client_of
from molmoact2.types import Observation
from molmoact2.wire.limits import Limits, WireError
from molmoact2.wire.messages import Ask

Read = TypeVar("Read")
NUM_READERS = 2


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Shared by all dialects of one server."""

    engine: Engine
    guard: Guard
    model: str
    """Name of what is served; never a path."""
    revision: str | None
    numbers: Iterator[int] = field(default_factory=count, repr=False)
    readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(NUM_READERS, thread_name_prefix="reading"), repr=False
    )
    """Messages are read here: pictures take milliseconds to decode, in which the event loop serves others."""

    @property
    def limits(self) -> Limits:
        """Of every message."""
        return self.engine.settings.limits

    def next_number(self) -> int:
        """The number of a question whose client does not count."""
        return next(self.numbers)

    def stats(self, embodiment: object) -> TagStats:
        """What the checkpoint knows of the robot that a client named; None is the only one that is served."""
        served = self.engine.embodiments
        tag = served[0] if embodiment is None and len(served) == 1 else embodiment
        if not isinstance(tag, str) or tag not in served:
            raise WireError(f"embodiment must be one of {', '.join(served)}, got {str(tag)[:80]}.", code="unfit")
        return self.engine.policy.processor.tag(tag)

    async def read(self, reader: Callable[[bytes, Limits], Read], data: bytes) -> Read:
        """What `reader` makes of `data`, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.readers, reader, data, self.limits)

    async def body(self, request: Request) -> bytes:
        """The body of a request; WireError where it is too long or too slow."""
        body = bytearray()
        try:
            async with asyncio.timeout(self.guard.settings.body_s):
                async for piece in request.stream():
                    body += piece
                    if len(body) > self.limits.message_bytes:
                        raise WireError(f"A request has up to {self.limits.message_bytes} bytes, got more.")
        except TimeoutError as error:
            raise WireError(f"The request took more than {self.guard.settings.body_s:g} s to arrive.") from error
        except ClientDisconnect as error:
            raise WireError("The request ended before it was whole.") from error
        return bytes(body)


def websocket_route(router: APIRouter, path: str, desk: Desk, serve: "Callable[[Line, Desk], Awaitable[None]]") -> None:
    """Let `serve` speak with everyone who opens a websocket at `path`, until it returns or the client is gone."""

    @router.websocket(path)
    async def converse(websocket: WebSocket) -> None:
        await websocket.accept()
        with suppress(WebSocketDisconnect):
            await serve(Line(websocket, desk), desk)


class Line:
    """One accepted websocket."""

    def __init__(self, websocket: WebSocket, desk: Desk) -> None:
        """Speak through `websocket`."""
        self.websocket, self.desk = websocket, desk
        self.client = client_of(websocket)

    async def hear(self, seconds: float | None = None) -> bytes:
        """The next message, within the idle time or `seconds`; text comes as no bytes.

        Raises WebSocketDisconnect when the client is gone, or was sent away: silent, or too fast.
        """
        heard = await self.hear_within(self.desk.guard.settings.idle_s if seconds is None else seconds)
        if heard is None:
            raise await self.leave(1000, "nothing was said for long")
        return heard

    async def hear_within(self, seconds: float) -> bytes | None:
        """The next message, or None where there is none within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                message: Any = await self.websocket.receive()
        except TimeoutError:
            return None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if not self.desk.guard.rate.take(self.client):
            raise await self.leave(1008, "too many messages")
        return message.get("bytes") or b""

    async def say(self, message: bytes | str) -> None:
        """Send a message; WebSocketDisconnect when the client is gone or does not read."""
        if self.websocket.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnect(1006)
        if isinstance(message, str):
            await self.websocket.send_text(message)
        else:
            await self.websocket.send_bytes(message)

    async def leave(self, code: int, reason: str) -> WebSocketDisconnect:
        """Close the line and return what to raise."""
        await self.websocket.close(code, reason)
        return WebSocketDisconnect(code, reason)


def foreign_ask(number: int, observation: Observation, **wanted: Any) -> Ask:
    """A question of a dialect that does not say when it observed."""
    return Ask(id=number, observation=observation, observed_at=nan, **wanted)
