"""The core of the server: questions of many robots, answered by one worker. It knows neither HTTP nor any dialect.

    ask ──► checked ──► waiting, one per robot ──► batch ──► worker thread ──► Exchange
               │                │                    │
            "unfit"    "superseded", "busy"     "late", "held"

Everything but the computing happens on the event loop, so nothing here needs a lock.
"""

import asyncio
import itertools
import logging
import secrets
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import isnan
from operator import attrgetter
from typing import Any, Literal, TypeAlias

from molmoact2.inference.decoding import DecodingError
from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.serving.checking import check_question
from molmoact2.serving.computing import Computed, compute
from molmoact2.serving.exchange import Exchange, Question, Watcher
from molmoact2.serving.operator import Operator
from molmoact2.serving.sessions import ServedSession, Sessions
from molmoact2.serving.waiting import Span, Waiting
from molmoact2.serving.warm_up import warm_up
from molmoact2.tokens.action import ActionDecodeError
from molmoact2.tokens.reading import require
from molmoact2.types import ActionChunk, NoActionError
from molmoact2.wire.limits import Code, Limits, WireError
from molmoact2.wire.messages import Ask, Telemetry

LOG = logging.getLogger("molmoact2.serving")
State: TypeAlias = Literal["starting", "ready", "draining", "broken"]
HELD = "An operator holds the robot: there are no actions until it is resumed."
SMOOTHING = 0.2
"""Weight of the newest batch in the average of what one takes."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How much is taken on."""

    max_batch: int = 8
    """Questions that are computed together at most."""
    queue: int = 32
    """Questions that wait at most, over all sessions."""
    sessions: int = 256
    session_ttl_s: float = 600.0
    """Seconds after which a session that nobody is connected to is forgotten."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        for name in ("max_batch", "queue", "sessions"):
            require(vars(self)[name] >= 1, f"{name} must be at least 1, got {vars(self)[name]}.")
        require(self.session_ttl_s > 0, f"session_ttl_s must be positive, got {self.session_ttl_s}.")


class Engine:
    """One policy for many sessions."""

    def __init__(
        self,
        policy: MolmoAct2Policy,
        *,
        embodiment: str | None = None,
        settings: EngineSettings = EngineSettings(),
        operator: Operator | None = None,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        """`embodiment` is the only one that is served; by default all that the policy knows are.

        Raises:
            ValueError: the policy does not know the embodiment, or none at all.
        """
        require(policy.modes, f"This checkpoint is {policy.kind}: it plans no actions, so there is nothing to serve.")
        self.policy = policy
        self.settings = settings
        self.embodiments = policy.embodiments if embodiment is None else (policy.processor.tag(embodiment).tag,)
        self._only_embodiment = self.embodiments[0] if len(self.embodiments) == 1 else ""
        self.operator = operator or Operator()
        self.watchers = list(watchers)
        self.sessions = Sessions(cap=settings.sessions, ttl_s=settings.session_ttl_s, ended=self._ended)
        self.state: State = "starting"
        self.busy_s = 0.0
        """Seconds that the worker has computed."""
        self._waiting: dict[Hashable, Waiting] = {}
        self._awake = asyncio.Event()
        self._numbers, self._batches = itertools.count(), itertools.count()
        self.failure: BaseException | None = None
        """What ended `run`, where it was not `drain`."""
        self.closing: list[Callable[[], None]] = []
        """Called when it begins to drain."""
        self._batch_s = 0.1
        self._is_over = asyncio.Event()

    @property
    def num_waiting(self) -> int:
        """Questions that wait."""
        return len(self._waiting)

    @property
    def oldest_s(self) -> float:
        """Seconds that the oldest question has waited; 0 where none waits."""
        return max((time.perf_counter() - one.arrived_s for one in self._waiting.values()), default=0.0)

    @property
    def retry_after_s(self) -> float:
        """When it may be worth to ask again."""
        return (1 + self.num_waiting / self.settings.max_batch) * self._batch_s

    async def run(self) -> None:
        """Warm up, then answer until `drain` is called and nothing is left to answer."""
        running = asyncio.create_task(self._run())
        await asyncio.wait([running])
        self.failure = running.exception()
        self.state = "draining" if self.failure is None else "broken"
        self._is_over.set()

    async def finished(self, seconds: float) -> None:
        """Return when `run` has ended, or after this long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), seconds)

    def raise_if_broken(self) -> None:
        """Raise what ended `run`, if it was not `drain`."""
        if self.failure is not None:
            raise self.failure

    async def _run(self) -> None:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference") as worker:
            await asyncio.get_running_loop().run_in_executor(worker, warm_up, self.policy, self.embodiments)
            self.state = "ready" if self.state == "starting" else self.state
            while self.state == "ready":
                await self._awake.wait()
                self._awake.clear()
                while batch := self._take():
                    await self._answer(worker, batch)

    def drain(self) -> None:
        """Take nothing on any more, refuse what waits, finish what runs."""
        self.state = "draining"
        for waiting in list(self._waiting.values()):
            self._refuse(waiting, "busy", "The server is shutting down.")
        for close in self.closing:
            close()
        self._awake.set()

    async def ask(self, session: ServedSession, ask: Ask, *, arrived_s: float | None = None) -> Exchange:
        """What to do next; the exchange says why there is no answer where there is none.

        `arrived_s` is when the question arrived, on the clock of `time.perf_counter`; now by default. An `observed_at`
        that is not a number says that the client did not tell.
        """
        now_s = time.perf_counter()
        arrived_s = now_s if arrived_s is None else arrived_s
        waiting = Waiting(
            session=session,
            question=self._question(session, ask),
            request=str(ask.id),
            deadline_s=ask.deadline_s,
            episode=session.episode,
            arrived_s=arrived_s,
            arrived_at=time.time() - (now_s - arrived_s),
            observed_at=None if isnan(ask.observed_at) else ask.observed_at,
            reply=asyncio.get_running_loop().create_future(),
        )
        try:
            self._admit(waiting)
        except WireError as error:
            self._refuse(waiting, error.code, str(error))
        try:
            return await waiting.reply
        finally:
            self._forget(waiting)

    def reset(self, session: ServedSession, seed: int | None = None) -> None:
        """Begin another episode of a session; what waits from the last one is refused."""
        if session.id in self._waiting:
            self._refuse(self._waiting[session.id], "superseded", "Another episode began.")
        session.reset(seed)

    def moved(self, session: ServedSession, telemetry: Telemetry) -> None:
        """A robot said what it did."""
        self._tell(attrgetter("moved"), session.id, telemetry)

    def heard_nonsense(self, where: str, error: WireError) -> None:
        """Tell who watches of a message that was malformed, so that it never became a question."""
        if error.code == "malformed":
            self._tell(attrgetter("failed"), where, error.code, str(error))

    def failed(self, where: str, error: BaseException) -> str:
        """Write down what went wrong and return the id under which it is found; nobody else is told more than that."""
        error_id = secrets.token_hex(4)
        LOG.error("error %s in %s: %s", error_id, where, error, exc_info=error)
        self._tell(attrgetter("failed"), where, error_id, f"{type(error).__name__}: {error}")
        return error_id

    def _question(self, session: ServedSession, ask: Ask) -> Question:
        instruction = self.operator.wish_of(session.id).instruction or ask.observation.instruction
        options: dict[str, Any] = {"mode": ask.mode, "num_steps": ask.num_steps}
        options |= {"num_action_steps": ask.num_action_steps, "think": ask.think, "think_ahead": ask.think_ahead}
        return Question(
            observation=replace(ask.observation, instruction=instruction),
            embodiment=self._only_embodiment if ask.embodiment is None else ask.embodiment,
            options={name: value for name, value in options.items() if value not in (None, False)},
            seed=session.draw_seed() if ask.seed is None else ask.seed,
            committed=ask.committed,
        )

    def _admit(self, waiting: Waiting) -> None:
        """Let a question wait; WireError where it cannot."""
        question, known = waiting.question, ", ".join(self.embodiments)
        if question.embodiment not in self.embodiments:
            raise WireError(f"embodiment must be one of {known}, got {question.embodiment!r}.", code="unfit")
        check_question(self.policy, question, self.settings.limits)
        if self.state != "ready":
            raise WireError(f"The server is {self.state}.", code="busy", retry_after_s=1.0)
        if self.operator.wish_of(waiting.session.id).is_held:
            raise WireError(HELD, code="held")
        older = self._waiting.get(waiting.place)
        if older is None and self.num_waiting >= self.settings.queue:
            raise WireError(f"{self.num_waiting} questions are waiting already.", code="busy")
        self._waiting[waiting.place] = waiting  # keeps the place in line of an older one
        if older is not None:
            self._refuse(older, "superseded", "A newer observation took its place.")
        self._awake.set()

    def _take(self) -> list[Waiting]:
        """The questions to answer next: the one that waits longest, and others like it."""
        now_s = time.perf_counter()
        for waiting in list(self._waiting.values()):
            reason = self._reason_against(waiting, now_s)
            if reason is not None:
                self._refuse(waiting, *reason)
        first = next(iter(self._waiting.values()), None)
        alike = [one for one in self._waiting.values() if first is not None and one.kind == first.kind]
        batch = alike[: self.settings.max_batch]
        for waiting in batch:
            del self._waiting[waiting.place]
        return batch

    def _reason_against(self, waiting: Waiting, now_s: float) -> tuple[Code, str] | None:
        """Why this question is not to be answered any more, if so."""
        if self.operator.wish_of(waiting.session.id).is_held:
            return "held", HELD
        if waiting.is_late(now_s):
            return (
                "late",
                f"Its deadline was {waiting.deadline_s:g} s, and it is {now_s - waiting.arrived_s:.3f} s old.",
            )
        return None

    async def _answer(self, worker: ThreadPoolExecutor, batch: Sequence[Waiting]) -> None:
        questions, memories = [one.question for one in batch], [one.session.memory for one in batch]
        begun_s = time.perf_counter()
        work = partial(compute, self.policy, questions, memories)
        future = asyncio.get_running_loop().run_in_executor(worker, work)
        await asyncio.wait([future])
        done_s = time.perf_counter()
        self.busy_s += done_s - begun_s
        self._batch_s += SMOOTHING * (done_s - begun_s - self._batch_s)
        error = future.exception()
        if error is not None:
            broken = WireError(f"Error {self.failed('inference', error)}.", code="internal")
            computed = Computed(answers=[broken] * len(batch), were_together=True)
        else:
            computed = future.result()
        groups = [len(batch)] if computed.were_together else [1] * len(batch)
        spans = [
            Span(batch=number, began_s=begun_s, done_s=done_s, together=size)
            for size, number in zip(groups, self._batches, strict=False)
            for _ in range(size)
        ]
        for waiting, answer, span in zip(batch, computed.answers, spans, strict=True):
            refusal = self._reason_against(waiting, done_s) or fault(answer)
            chunk = answer if refusal is None and isinstance(answer, ActionChunk) else None
            self._reply(waiting, waiting.exchange(next(self._numbers), span, chunk=chunk, refusal=refusal))

    def _refuse(self, waiting: Waiting, code: Code, message: str) -> None:
        self._forget(waiting)
        self._reply(waiting, waiting.exchange(next(self._numbers), waiting.refused, refusal=(code, message)))

    def _forget(self, waiting: Waiting) -> None:
        if self._waiting.get(waiting.place) is waiting:
            del self._waiting[waiting.place]

    def _reply(self, waiting: Waiting, exchange: Exchange) -> None:
        """Tell who asked, unless he is gone, and who watches."""
        if not waiting.reply.done():
            waiting.reply.set_result(exchange)
        self._tell(attrgetter("exchanged"), exchange)

    def _ended(self, session: str) -> None:
        self.operator.forget(session)
        self._tell(attrgetter("ended"), session)

    def _tell(self, event: Callable[[Watcher], Callable[..., None]], *news: object) -> None:
        """Tell every watcher a little later, each by itself: one that fails harms neither the others nor the answer."""
        for watcher in self.watchers:
            asyncio.get_running_loop().call_soon(event(watcher), *news)


def fault(answer: ActionChunk | ValueError) -> tuple[Code, str] | None:
    """Why a question that was computed has no chunk."""
    match answer:
        case ActionChunk():
            return None
        case WireError():
            return answer.code, str(answer)
        case NoActionError() | DecodingError() | ActionDecodeError():
            return "internal", f"The checkpoint gave no action: {answer}"
        case _:
            return "unfit", str(answer)
