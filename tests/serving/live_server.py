"""A real server, on a free port, in a thread: what clients of all kinds are tested against."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx
from websockets.sync.client import ClientConnection, connect

from molmoact2.inference import MolmoAct2Policy
from molmoact2.serving.app import build_app
from molmoact2.serving.engine import Engine, EngineSettings
from molmoact2.serving.exchange import Watcher
from molmoact2.serving.run import PolicyServer
from molmoact2.serving.settings import ServerSettings
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.limits import Limits
from molmoact2.wire.messages import Hello, Message, Welcome

Result = TypeVar("Result")
LIMITS = Limits()
PATIENCE_S = 30.0


@dataclass(frozen=True, kw_only=True)
class LiveServer:
    """A server that answers."""

    engine: Engine
    port: int
    server: PolicyServer
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def http(self, **options) -> httpx.Client:
        return httpx.Client(base_url=f"http://{self.address}", timeout=PATIENCE_S, **options)

    def websocket(self, path: str, **options) -> ClientConnection:
        return connect(f"ws://{self.address}{path}", compression=None, max_size=None, **options)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def on_loop(self, work: Callable[[], Result]) -> Result:
        """Do something on the event loop, where the engine lives."""

        async def do() -> Result:
            return work()

        return asyncio.run_coroutine_threadsafe(do(), self.loop).result(PATIENCE_S)

    @contextmanager
    def robot(self, session: str | None = None, **options) -> Iterator["LiveRobot"]:
        """A client of our own protocol, after its Welcome."""
        with self.websocket("/v1", **options) as websocket:
            robot = LiveRobot(websocket)
            robot.say(Hello(client="test", session=session))
            robot.welcome = robot.hear()
            assert isinstance(robot.welcome, Welcome), robot.welcome
            yield robot


class LiveRobot:
    """Our own protocol, message by message."""

    welcome: Message

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket

    def say(self, message: Message) -> None:
        self.websocket.send(encode(message))

    def hear(self) -> Message:
        data = self.websocket.recv(timeout=PATIENCE_S)
        assert isinstance(data, bytes)
        return decode(data, LIMITS)

    def ask(self, question: Message) -> Message:
        self.say(question)
        return self.hear()


@contextmanager
def live_server(
    policy: MolmoAct2Policy,
    *,
    settings: ServerSettings | None = None,
    taken_on: EngineSettings | None = None,
    watchers: Sequence[Watcher] = (),
    wait: bool = True,
) -> Iterator[LiveServer]:
    """Serve `policy` while the block runs; by default begin it when the server is ready."""
    settings = settings or ServerSettings(port=0)
    engine = Engine(policy, settings=taken_on or EngineSettings(), watchers=watchers)
    app = build_app(engine, settings, model="tiny", revision="sha256:0")
    server, loop = PolicyServer(app, engine, settings), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(),))
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        if wait:
            wait_until(lambda: engine.state != "starting")
        yield LiveServer(engine=engine, port=port, server=server, loop=loop)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        loop.close()
        assert not thread.is_alive(), "the server does not end"


def wait_until(holds: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Return when something holds; fail when it does not for long."""
    pause = threading.Event()
    for _ in range(round(seconds / 0.01)):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in time")
