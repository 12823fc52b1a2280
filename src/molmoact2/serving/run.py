"""The server as a process: it listens, and on SIGTERM or Ctrl-C it finishes what runs, says so, and goes."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from molmoact2.serving.connections import uvicorn_config
from molmoact2.serving.engine import Engine
from molmoact2.serving.settings import ServerSettings

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class PolicyServer(uvicorn.Server):
    """uvicorn's server, with our way of ending."""

    def __init__(self, app: FastAPI, engine: Engine, settings: ServerSettings) -> None:
        """Serve `app`, which is built around `engine`."""
        super().__init__(uvicorn_config(app, settings, message_bytes=engine.settings.limits.message_bytes))
        self.engine = engine

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and Ctrl-C end the server, and that is a success; the second one ends it at once."""
        is_main = threading.current_thread() is threading.main_thread()
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS if is_main}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def on_tick(self, counter: int) -> bool:
        """Go on unless somebody wants it to end, or the engine broke."""
        return await super().on_tick(counter) or self.engine.state == "broken"

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse what waits and finish what runs, then close every connection."""
        self.engine.drain()
        await self.engine.finished(self.config.timeout_graceful_shutdown or 0)
        await super().shutdown(sockets)


def serve(app: FastAPI, engine: Engine, settings: ServerSettings, *, listening: Callable[[int], None]) -> None:
    """Serve until a signal comes; `listening` is told the port."""

    async def run(server: PolicyServer) -> None:
        serving = asyncio.create_task(server.serve())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            listening(server.servers[0].sockets[0].getsockname()[1])
        await serving

    asyncio.run(run(PolicyServer(app, engine, settings)))
    engine.raise_if_broken()
