"""Ask a server for actions, with asyncio. `Client` is the same for programs without an event loop.

A task of its own keeps the connection: it connects, receives, and when the connection breaks, connects again. There is
one question at a time, because a robot wants to know what to do about what it sees now: a newer one takes the place of
the one before.
"""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from ssl import SSLContext
from typing import Self, Unpack

from molmoact2.client.errors import ConnectionLostError, LateError, RefusedError, refused
from molmoact2.client.link import BROKEN, Address, Backoff, Link, open_link
from molmoact2.client.questions import AskOptions, chunk_of, question, robot_card
from molmoact2.types import ActionChunk, Observation
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.limits import Code, WireError
from molmoact2.wire.messages import Answer, Ask, Control, FromServer, Refusal, Reset, RobotCard, Telemetry, Welcome

FINAL: frozenset[Code] = frozenset({"unauthorized", "unfit", "malformed"})
"""Refusals of a connection that another try does not change."""
SHORTEST_S = 1e-3
"""A deadline that is told to a server."""
MAX_WISHES = 256
"""Wishes that are kept for a program that does not ask for them: the newest."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """The question that is not answered yet."""

    ask: Ask
    card: RobotCard
    began: float
    """On the clock of the event loop."""
    deadline: float
    answered: asyncio.Future[ActionChunk]


class AsyncClient:
    """A connection to a server that comes back when it breaks; use it with `async with`."""

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
        """Nothing is connected yet.

        `token` is the server's, `jpeg_quality` (1 to 95) sends images as JPEG instead of as they are, `timeout_s` is
        the longest that anything is waited for, connecting included, and `tls` the certificates for a wss:// address
        whose own are not known to the system.
        """
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be more than 0, got {timeout_s}.")
        if jpeg_quality is not None and not 1 <= jpeg_quality <= 95:
            raise ValueError(f"jpeg_quality must be None, or from 1 to 95, got {jpeg_quality}.")
        self.address = Address(url=url, token=token, tls=tls)
        self.jpeg_quality = jpeg_quality
        self.timeout_s = timeout_s
        self.backoff = backoff or Backoff()
        self.num_dropped = 0
        """Answers that came too late, or that nobody waited for any more."""
        self.num_connections = 0
        """How often it connected: 1 more than how often the connection broke and came back."""
        self.num_unsent = 0
        """Telemetry that could not be sent at once and was left out."""
        self._ids = count()
        self._wishes: deque[Control] = deque(maxlen=MAX_WISHES)
        self._link: Link | None = None
        self._settled = asyncio.Event()
        """Set while there is a connection, and once there will be none any more."""
        self._keeper: asyncio.Task[None] | None = None
        self._failure: Exception = ConnectionLostError(f"There is no connection to {url} yet.")
        self._welcome: Welcome | None = None
        self._waiting: Waiting | None = None
        self._reset: Reset | None = None
        """A new episode, until an answer shows that the server knows of it: every connection is told."""
        self._reporting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def connect(self) -> Welcome:
        """Wait for the connection, at most `timeout_s`; say what the server is. It is kept until `close`.

        Raises ConnectionLostError where nobody answers, RefusedError where the server does not want us.
        """
        self.start()
        link = await self._connected(asyncio.get_running_loop().time() + self.timeout_s)
        return link.welcome

    def start(self) -> None:
        """Begin to connect, within a running event loop; returns at once."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        """End the connection for good. A question that waits fails with ConnectionLostError."""
        self.start()
        if self._keeper is not None and self._keeper.cancel():
            self._failure = ConnectionLostError("This client was closed.")
            await asyncio.wait((self._keeper,))

    @property
    def welcome(self) -> Welcome:
        """What the server said about itself; ConnectionLostError where there was no connection yet."""
        if self._welcome is None:
            raise self._failure
        return self._welcome

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, as far as anybody knows."""
        return self._link is not None

    def robot(self, embodiment: str | None = None) -> RobotCard:
        """What the server knows about a robot; ValueError where it does not know it, or several and none is named."""
        return robot_card(self.welcome, embodiment)

    async def act(
        self, observation: Observation, *, timeout_s: float | None = None, **options: Unpack[AskOptions]
    ) -> ActionChunk:
        """The next actions, within `timeout_s` (the client's own by default).

        While the connection is being repaired it is waited for, and so much less remains for the answer. The timing
        has the server's stages, and "round_trip". The observation must not change until the call returns.

        Raises WireError, a ValueError, for what the server would refuse, without sending it; RefusedError, or its kinds
        WrongQuestionError and LateError; ConnectionLostError, after which the same may be asked again.
        """
        self.start()
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + (self.timeout_s if timeout_s is None else timeout_s)
        link = await self._connected(deadline)
        card = robot_card(link.welcome, options.get("embodiment"))
        ask = question(next(self._ids), observation, card, link.welcome.limits, options)
        ask = replace(ask, deadline_s=max(deadline - loop.time(), SHORTEST_S))
        answered: asyncio.Future[ActionChunk] = loop.create_future()
        answered.add_done_callback(lambda future: future.cancelled() or future.exception())  # nobody may be left to ask
        waiting = Waiting(ask=ask, card=card, began=began, deadline=deadline, answered=answered)
        return await self._asked(link, waiting, encode(ask, jpeg_quality=self.jpeg_quality))

    async def reset(self, seed: int | None = None) -> None:
        """Begin a new episode; `seed` is of its noise. An answer to what was asked before is dropped.

        Without a connection the server is told before the next question.
        """
        reset = Reset(seed=seed)
        encode(reset)
        self._reset = reset
        self._give_up(refused(Refusal(code="superseded", message="A new episode began.")))
        if self._link is not None:
            with suppress(LateError):  # then it is said before the next question
                await self._tell_episode(self._link, self.timeout_s)

    async def report(self, telemetry: Telemetry) -> None:
        """Tell the server what the robot did; does not wait until it is sent.

        Without a connection, or while the report before is still being sent, it is left out and counted in
        `num_unsent`. Raises WireError where the server would refuse it.
        """
        self.post(self.packed(telemetry))

    def packed(self, telemetry: Telemetry) -> bytes:
        """A report as it is sent; WireError where the server would refuse it. Any thread may call this."""
        data = encode(telemetry)
        if self._welcome is not None:
            decode(data, self._welcome.limits)
        return data

    def post(self, report: bytes) -> None:
        """Send a packed report, within the event loop, or count it as unsent; returns at once."""
        is_sending = self._reporting is not None and not self._reporting.done()
        if self._link is None or is_sending:
            self.num_unsent += 1
        else:
            self._reporting = asyncio.create_task(self._report(self._link, report))

    def wishes(self) -> list[Control]:
        """What an operator wished since the last call, oldest first; the newest 256 are kept."""
        wishes: list[Control] = []
        while self._wishes:  # one by one, because another may come meanwhile
            wishes.append(self._wishes.popleft())
        return wishes

    async def _report(self, link: Link, data: bytes) -> None:
        try:
            await link.send(data, self.timeout_s)
        except LateError:
            self.num_unsent += 1

    async def _tell_episode(self, link: Link, timeout_s: float) -> None:
        """Say that an episode began, if this connection was not told yet."""
        if self._reset is not None and link.told is not self._reset:
            told = self._reset
            await link.send(encode(told), timeout_s)
            link.told = told

    async def _connected(self, deadline: float) -> Link:
        """The connection, waited for until `deadline`."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._settled.wait()
        if self._keeper is not None and self._keeper.done() and not self._keeper.cancelled():
            self._keeper.result()  # a defect of ours is not to be taken for a bad connection
        if self._link is None:
            raise self._failure.with_traceback(None)
        return self._link

    async def _asked(self, link: Link, waiting: Waiting, data: bytes) -> ActionChunk:
        """Send the question in place of the one before; wait for its answer."""
        self._give_up(refused(Refusal(code="superseded", message="A newer observation took its place.")))
        self._waiting = waiting
        loop = asyncio.get_running_loop()
        try:
            await self._tell_episode(link, waiting.deadline - loop.time())
            if not waiting.answered.done():
                await link.send(data, waiting.deadline - loop.time())
            done, _ = await asyncio.wait((waiting.answered,), timeout=waiting.deadline - loop.time())
            if not done:
                seconds = waiting.deadline - waiting.began
                raise refused(Refusal(code="late", message=f"There was no answer within {seconds:.3g} s."))
            return waiting.answered.result()
        finally:
            waiting.answered.cancel()

    def _give_up(self, error: Exception) -> None:
        """Fail the question that waits, if one does."""
        if self._waiting is not None and not self._waiting.answered.done():
            self._waiting.answered.set_exception(error)

    async def _keep_connected(self) -> None:
        """Connect, live, and again, until cancelled or refused for good."""
        loop, delays = asyncio.get_running_loop(), self.backoff.delays()
        try:
            while True:
                began = loop.time()
                try:
                    session = self._welcome and self._welcome.session
                    await self._live(await open_link(self.address, session, self.timeout_s))
                except RefusedError as error:
                    self._failure = error
                    if error.code in FINAL:
                        return
                except BROKEN as error:
                    cause = str(error) or type(error).__name__
                    self._failure = ConnectionLostError(f"There is no connection to {self.address.url}: {cause}")
                if loop.time() - began > self.backoff.longest_s:
                    delays = self.backoff.delays()
                await asyncio.sleep(next(delays))
        finally:
            self._settled.set()

    async def _live(self, link: Link) -> None:
        """Receive until the connection breaks."""
        try:
            self._check_same(link.welcome)
            self._link, self._welcome = link, link.welcome
            self.num_connections += 1
            self._settled.set()
            while True:
                self._take(await link.receive())
        finally:
            self._link = None
            self._settled.clear()
            self._give_up(ConnectionLostError("The connection broke before the answer came, or was closed."))
            await link.close()

    def _check_same(self, welcome: Welcome) -> None:
        """RefusedError where another model answers than at first: its actions may mean something else."""
        first = self._welcome or welcome
        if (welcome.model, welcome.revision, welcome.robots) != (first.model, first.revision, first.robots):
            text = f"The server is now {welcome.model} {welcome.revision}, and was {first.model} {first.revision}."
            raise refused(Refusal(code="unfit", message=f"{text} Make a new client for it."))

    def _take(self, message: FromServer) -> None:
        """What the server said."""
        waiting = self._waiting
        match message:
            case Control():
                self._wishes.append(message)
            case Answer():
                self._answer(message)
            case Refusal() if waiting is not None and message.id in (None, waiting.ask.id):
                self._give_up(refused(message))
            case Welcome():
                raise WireError("Welcome came a second time.")

    def _answer(self, answer: Answer) -> None:
        """Hand over the actions, unless nobody waits for them any more."""
        waiting, now = self._waiting, asyncio.get_running_loop().time()
        if waiting is None or waiting.answered.done() or answer.id != waiting.ask.id or now > waiting.deadline:
            self.num_dropped += 1
            return
        waiting.answered.set_result(chunk_of(answer, waiting.ask, waiting.card, now - waiting.began))
        self._reset = None
