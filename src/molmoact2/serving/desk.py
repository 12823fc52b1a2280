"""What every dialect needs at hand: the engine, the guard, and a way to read messages without holding anybody up."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import nan
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

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
    readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(NUM_READERS, thread_name_prefix="reading"), repr=False
    )
    """Messages are read here: pictures take milliseconds to decode, in which the event loop serves others."""

    @property
    def limits(self) -> Limits:
        """Of every message."""
        return self.engine.settings.limits

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
        settings = self.desk.guard.settings
        try:
            async with asyncio.timeout(settings.idle_s if seconds is None else seconds):
                message: Any = await self.websocket.receive()
        except TimeoutError:
            raise await self.leave(1000, "nothing was said for long") from None
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
