"""Planners that compute here: beside the control loop, or on a virtual clock with whatever latency is wanted.

The one that asks a server is `molmoact2.client.RemotePlanner`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from molmoact2.control.plan import Plan, PlanRequest, Trouble
from molmoact2.control.robot import Clock
from molmoact2.types import ActionChunk, NoActionError, Policy

ALMOST_S = 1e-6
"""Two moments this near are the same: clocks add up periods that are not binary fractions."""

Answer: TypeAlias = Callable[[PlanRequest], ActionChunk]
"""What a policy says to a request; raises what `Policy.act` raises."""


def answers_of(policy: Policy) -> Answer:
    """A policy that looks at the observation and at nothing else of a request."""
    return lambda request: policy.act(request.observation)


class LocalPlanner:
    """A policy in a thread of its own, one request at a time; implements `Planner`."""

    def __init__(self, answer: Answer, clock: Clock, *, period_s: float, added_latency_s: float = 0.0) -> None:
        """`added_latency_s` holds every plan back for that long, to see what a slow computer or network would do."""
        self.answer = answer
        self.clock = clock
        self.period_s = period_s
        self.added_latency_s = added_latency_s
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="planner")
        self.pending: tuple[PlanRequest, Future[tuple[ActionChunk, float]]] | None = None

    @property
    def is_free(self) -> bool:
        """Whether the last request was answered."""
        return self.pending is None

    def ask(self, request: PlanRequest, /) -> None:
        """Begin to plan; returns at once."""
        assert self.pending is None, "ask only while is_free"
        self.pending = request, self.thread.submit(lambda: (self.answer(request), self.clock.now()))

    def poll(self) -> Sequence[Plan | Trouble]:
        """The plan that is finished, or why there is none; returns at once."""
        if self.pending is None or not self._is_due(self.pending[1]):
            return ()
        (request, future), self.pending = self.pending, None
        error = future.exception()
        if error is not None:
            return (trouble_of(request, error),)
        return (plan_of(request, future.result()[0], self.period_s, self.clock.now()),)

    def close(self) -> None:
        """Let go of the thread; a plan in the making is not waited for."""
        self.thread.shutdown(wait=False, cancel_futures=True)

    def _is_due(self, future: Future[tuple[ActionChunk, float]]) -> bool:
        has_failed = future.done() and future.exception() is not None
        return future.done() and (has_failed or self.clock.now() >= future.result()[1] + self.added_latency_s)


class PunctualPlanner:
    """A policy that answers at once and is heard `latency_s` later, on the robot's clock; implements `Planner`.

    On a virtual clock this is asynchronous execution with exactly that latency, the same in every run. Without latency
    a plan is there in the tick in which it was asked for.
    """

    def __init__(self, answer: Answer, clock: Clock, *, period_s: float, latency_s: float = 0.0) -> None:
        self.answer = answer
        self.clock = clock
        self.period_s = period_s
        self.latency_s = latency_s
        self.pending: Plan | Trouble | None = None
        self.due_s = 0.0

    @property
    def is_free(self) -> bool:
        """Whether the last answer was heard."""
        return self.pending is None

    def ask(self, request: PlanRequest, /) -> None:
        """Plan, and keep the plan back."""
        assert self.pending is None, "ask only while is_free"
        self.due_s = request.observed_at_s + self.latency_s
        try:
            self.pending = plan_of(request, self.answer(request), self.period_s, self.due_s)
        except ValueError as error:
            self.pending = trouble_of(request, error)

    def poll(self) -> Sequence[Plan | Trouble]:
        """What is due by now."""
        if self.pending is None or self.clock.now() < self.due_s - ALMOST_S:
            return ()
        finished, self.pending = self.pending, None
        return (finished,)

    def close(self) -> None:
        """There is nothing to let go of."""


def plan_of(request: PlanRequest, chunk: ActionChunk, period_s: float, arrived_at_s: float) -> Plan:
    """A chunk, tied to the moment that it was made for."""
    return Plan(
        actions=chunk.actions,
        observed_at_s=request.observed_at_s,
        period_s=period_s,
        sequence=request.sequence,
        arrived_at_s=arrived_at_s,
        depth=chunk.depth,
        timing_s=tuple(chunk.timing.items()),
    )


def trouble_of(request: PlanRequest, error: BaseException) -> Trouble:
    """Why a policy said nothing: without an action it may have one next time, after any other error it will not."""
    return Trouble(
        sequence=request.sequence,
        message=f"{type(error).__name__}: {error}",
        is_final=not isinstance(error, NoActionError),
    )
