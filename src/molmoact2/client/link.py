"""One connection to a server, from its handshake until it breaks."""

import asyncio
import random
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.http11 import Response

from molmoact2.client.errors import ConnectionLostError, refused
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.limits import Limits, WireError
from molmoact2.wire.messages import PROTOCOL_VERSION, FromServer, Hello, Refusal, Reset, Welcome

CLIENT = "molmoact2.client"
PATH = "/v1"
LIMITS = Limits(num_text=2**15)
"""Of what a server may send us."""
PING_S = 5.0
"""Between two pings."""
STUCK_S = 10.0
"""A server that does not answer a ping for this long, or does not read a message to its end, is gone."""
FRAGMENT_BYTES = 2**18
"""Of one websocket frame: a third less time for two images of 360 x 640 than as one frame."""
CLOSE_S = 1.0
"""How long a server is waited for to say goodbye."""

BROKEN = (OSError, WebSocketException, WireError)
"""What ends a connection, or keeps it from beginning; TimeoutError is an OSError."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where the server is, and how to be let in."""

    url: str
    """"ws://host:port", or "wss://" for TLS; the path is ours unless another is given."""
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.port == 0:
            raise ValueError(
                f"A server's address must be like ws://127.0.0.1:8000 or wss://host:port, got {self.url!r}."
            )
        if self.tls is not None and parts.scheme != "wss":
            raise ValueError(f"TLS needs a wss:// address, got {self.url!r}.")

    def full_url(self) -> str:
        """With the path of our protocol."""
        parts = urlsplit(self.url)
        return parts._replace(path=PATH).geturl() if parts.path in ("", "/") else self.url

    def certificates(self) -> ssl.SSLContext | None:
        """Those that are trusted: the given ones, or the system's; None without TLS."""
        default = ssl.create_default_context() if self.url.startswith("wss") else None
        return self.tls or default


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait before the next try: longer each time, and never as long as all the others wait."""

    first_s: float = 0.1
    factor: float = 2.0
    longest_s: float = 5.0
    jitter: float = 0.5
    """Share of a delay that is left to chance."""

    def __post_init__(self) -> None:
        if min(self.first_s, self.longest_s) <= 0 or self.factor < 1 or not 0 <= self.jitter <= 1:
            raise ValueError(f"A back-off has times above 0, a factor from 1 on and a jitter in [0, 1], got {self}.")

    def delays(self) -> Iterator[float]:
        """Seconds before each try."""
        delay = self.first_s
        while True:
            delay = min(delay, self.longest_s)
            yield delay * (1 - self.jitter * random.random())
            delay *= self.factor


class Link:
    """An open connection, and what its server said first."""

    def __init__(self, socket: ClientConnection, welcome: Welcome) -> None:
        """After the handshake."""
        self.socket = socket
        self.welcome = welcome
        self.told: Reset | None = None
        """The episode that the server knows of."""
        self._sending: asyncio.Task[None] | None = None

    async def send(self, data: bytes, timeout_s: float) -> None:
        """Send a message after those before it.

        LateError where it takes longer than `timeout_s`; half of it may be on its way then, and the rest goes on,
        because nothing can be sent after half a message. A connection that breaks is for `receive` to tell.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        if self._sending is not None:
            await finished(self._sending, deadline)
        self._sending = asyncio.create_task(self._write(data))
        await finished(self._sending, deadline)

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(STUCK_S):
                await self.socket.send(fragments(data))
        except ConnectionClosed:
            pass  # whoever receives is told why
        except TimeoutError:
            self.socket.transport.abort()

    async def receive(self) -> FromServer:
        """The next message; raises one of BROKEN where there is none."""
        return await receive(self.socket)

    async def close(self) -> None:
        """Say goodbye, and do not wait long for an answer."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.socket.close()
        except TimeoutError:
            self.socket.transport.abort()


def fragments(data: bytes) -> bytes | list[memoryview]:
    """A message in pieces, so that each is on its way while the next is masked; short ones as they are."""
    view = memoryview(data)
    pieces = [view[begin : begin + FRAGMENT_BYTES] for begin in range(0, len(data), FRAGMENT_BYTES)]
    return pieces if len(pieces) > 1 else data


async def finished(task: asyncio.Task[None], deadline: float) -> None:
    """Wait for something that is not ended by ending the wait; LateError at `deadline`."""
    _, pending = await asyncio.wait((task,), timeout=max(deadline - asyncio.get_running_loop().time(), 0.0))
    if pending:
        raise refused(Refusal(code="late", message="The network did not take the message in time."))
    task.result()


async def receive(socket: ClientConnection) -> FromServer:
    """The next message of a server."""
    data = await socket.recv()
    if not isinstance(data, bytes):
        raise WireError("A message must be binary, got text.")
    message = decode(data, LIMITS)
    if not isinstance(message, FromServer):
        raise WireError(f"A server does not send {type(message).__name__}.")
    return message


async def open_link(address: Address, session: str | None, timeout_s: float) -> Link:
    """Connect and shake hands; one of BROKEN where that fails, RefusedError where the server does not want us."""
    headers = {} if address.token is None else {"Authorization": f"Bearer {address.token}"}
    async with asyncio.timeout(timeout_s):
        try:
            socket = await connect(
                address.full_url(),
                additional_headers=headers,
                compression=None,
                max_size=LIMITS.message_bytes,
                ping_interval=PING_S,
                ping_timeout=STUCK_S,
                open_timeout=timeout_s,
                close_timeout=CLOSE_S,
                proxy=None,
                ssl=address.certificates(),
            )
        except InvalidStatus as error:
            raise answer_of_status(error.response, address) from error
        with ExitStack() as undo:
            undo.callback(socket.transport.abort)
            link = await shake_hands(socket, session)
            undo.pop_all()
        return link


def answer_of_status(response: Response, address: Address) -> Exception:
    """What an HTTP error means for us: a server that may be ready later, or one that never will."""
    status, said = response.status_code, response.body.decode(errors="replace").strip()[:300]
    if status in (401, 403):
        text = f"{address.url} does not let us in; is the token right? It says {status}: {said}"
        return refused(Refusal(code="unauthorized", message=text))
    if 400 <= status < 500 and status != 429:
        text = f"{address.full_url()} is no policy server. It says {status}: {said}"
        return refused(Refusal(code="unfit", message=text))
    return ConnectionLostError(f"The server is not ready. It says {status}: {said}")


async def shake_hands(socket: ClientConnection, session: str | None) -> Link:
    """Say Hello, be told Welcome."""
    await socket.send(encode(Hello(client=CLIENT, session=session)))
    message = await receive(socket)
    if isinstance(message, Refusal):
        raise refused(message)
    if not isinstance(message, Welcome):
        raise WireError(f"The first message of a server must be Welcome, got {type(message).__name__}.")
    if message.protocol != PROTOCOL_VERSION:
        text = f"The server speaks version {message.protocol} of the protocol, this client {PROTOCOL_VERSION}."
        raise refused(Refusal(code="unfit", message=text))
    return Link(socket, message)
