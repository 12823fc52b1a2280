"""Connections that cannot be held open for nothing: uvicorn's, with a cap and with patience that ends.

A client that sends half a request, stops reading its answers, or opens connections without end harms itself only.
"""

import asyncio
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from molmoact2.serving.settings import ServerSettings

MAX_FRAGMENTS = 1024
"""Frames that one message may come in."""


class Patience:
    """A timer that aborts a connection unless it is called off."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._timer is not None

    def begin(self, transport: asyncio.Transport) -> None:
        """Abort `transport` after a while."""
        self.end()
        self._timer = asyncio.get_running_loop().call_later(self.seconds, transport.abort)

    def end(self) -> None:
        """All is well."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class GuardedHTTP(H11Protocol):
    """HTTP: few connections per client, requests that arrive in time, answers that are read in time."""

    def __init__(self, settings: ServerSettings, **context: Any) -> None:
        super().__init__(**context)
        self.settings = settings
        self.for_the_head, self.for_the_reader = Patience(settings.first_byte_s), Patience(settings.write_s)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Turn away who has too many connections. From the first byte that waits for a client to read, time runs."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1)  # 0 would never let TLS write again
        clients = [other.client for other in self.connections if isinstance(other, GuardedHTTP | GuardedWebSocket)]
        num_open = sum(client is not None and client[:1] == self.client[:1] for client in clients if self.client)
        if num_open > self.settings.connections_per_client:
            transport.abort()
        else:
            self.for_the_head.begin(transport)

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a head for a while, and no longer."""
        super().data_received(data)
        is_busy = self.cycle is not None and not self.cycle.response_complete
        has_moved = self.transport.get_protocol() is not self
        if is_busy or has_moved:
            self.for_the_head.end()
        elif self.timeout_keep_alive_task is None and not self.for_the_head.is_running:
            self.for_the_head.begin(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self.for_the_head.end()
        self.for_the_reader.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self.for_the_reader.begin(self.transport)

    def resume_writing(self) -> None:
        """It reads again."""
        self.for_the_reader.end()
        super().resume_writing()


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """Websockets: messages in few pieces, answers that are read in time."""

    def __init__(self, settings: ServerSettings, **context: Any) -> None:
        super().__init__(**context)
        self.for_the_reader = Patience(settings.write_s)
        self.close_timeout = settings.write_s

    def handle_cont(self, event: Frame) -> None:
        """Give up on a message that never ends."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self.for_the_reader.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self.for_the_reader.begin(self.transport)

    def resume_writing(self) -> None:
        """It reads again."""
        self.for_the_reader.end()
        super().resume_writing()


def uvicorn_config(app: Any, settings: ServerSettings, *, message_bytes: int) -> uvicorn.Config:
    """How uvicorn serves `app`: our connections, bounded messages, no compression, nothing said about itself."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=partial(GuardedHTTP, settings),  # type: ignore[arg-type]
        ws=partial(GuardedWebSocket, settings),  # type: ignore[arg-type]
        ws_max_size=message_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.ping_s,
        ws_ping_timeout=3 * settings.ping_s,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        timeout_keep_alive=max(1, round(settings.first_byte_s)),
        timeout_graceful_shutdown=round(settings.shutdown_s),
        server_header=False,
        log_level="warning",
        access_log=False,
        lifespan="on",
    )
