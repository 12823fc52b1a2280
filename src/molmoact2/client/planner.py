"""A server that plans beside the control loop."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Unpack

from molmoact2.client.asynchronous import FINAL
from molmoact2.client.errors import ConnectionLostError, RefusedError
from molmoact2.client.questions import AskOptions
from molmoact2.client.synchronous import Client
from molmoact2.control.plan import Plan, PlanRequest, Trouble
from molmoact2.control.robot import Clock
from molmoact2.types import ActionChunk, Committed


@dataclass(frozen=True, kw_only=True)
class Pending:
    """A request on its way."""

    request: PlanRequest
    answer: Future[ActionChunk]
    arrival: Future[float]
    """When its answer or its failure was there, on the robot's clock."""


class RemotePlanner:
    """Plans of a server, one request at a time; implements `molmoact2.control.plan.Planner`."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        *,
        real_time: bool = False,
        added_latency_s: float = 0.0,
        **options: Unpack[AskOptions],
    ) -> None:
        """`clock` is the robot's; `options` are those of every question.

        `real_time` tells the server what the robot will do meanwhile, so that the new plan begins with it.
        `added_latency_s` holds everything back for that long after it arrived, on the robot's clock, to see what a slow
        network would do. Waits for the connection; ValueError for an embodiment that the server does not know.
        """
        if added_latency_s < 0:
            raise ValueError(f"added_latency_s must be at least 0, got {added_latency_s}.")
        self.client = client
        self.clock = clock
        self.real_time = real_time
        self.added_latency_s = added_latency_s
        self.options = options
        self.period_s = 1 / client.robot(options.get("embodiment")).control_hz
        self._pending: Pending | None = None
        self._troubles: list[Trouble] = []
        self._not_before_s = float("-inf")
        """When the server wants to be asked again."""

    @property
    def is_free(self) -> bool:
        """Whether no request is on its way, and the server has not asked for patience."""
        return self._pending is None and self.clock.now() >= self._not_before_s

    def ask(self, request: PlanRequest, /) -> None:
        """Begin to plan; returns at once. A request that is still on its way is given up, which is a Trouble."""
        self._give_up("A newer request took its place.")
        committed = None
        if self.real_time and len(request.remaining):
            committed = Committed(actions=request.remaining, delay=request.delay)
        told: AskOptions = {**self.options, "observed_at": request.observed_at_s, "committed": committed}
        answer = self.client.begin(request.observation, **told)
        arrival: Future[float] = Future()
        answer.add_done_callback(lambda _: arrival.set_result(self.clock.now()))
        self._pending = Pending(request=request, answer=answer, arrival=arrival)

    def poll(self) -> Sequence[Plan | Trouble]:
        """The plan that arrived, or why there is none; returns at once."""
        found: list[Plan | Trouble] = [*self._troubles]
        self._troubles.clear()
        pending = self._pending
        if pending is not None and self._is_due(pending):
            self._pending = None
            found.append(self._outcome(pending))
        return found

    def close(self) -> None:
        """Give up what is on its way. The client stays as it is: whoever made it closes it."""
        self._give_up("The planner was closed.")

    def _is_due(self, pending: Pending) -> bool:
        return pending.arrival.done() and self.clock.now() >= pending.arrival.result() + self.added_latency_s

    def _give_up(self, why: str) -> None:
        """End the request that is on its way, if there is one."""
        if self._pending is not None:
            self._pending.answer.cancel()
            self._troubles.append(Trouble(sequence=self._pending.request.sequence, message=why))
            self._pending = None

    def _outcome(self, pending: Pending) -> Plan | Trouble:
        """What became of a request."""
        request = pending.request
        try:
            chunk = pending.answer.result()
        except RefusedError as error:
            self._not_before_s = self.clock.now() + (error.retry_after_s or 0.0)
            return Trouble(sequence=request.sequence, message=str(error), is_final=error.code in FINAL)
        except ConnectionLostError as error:
            return Trouble(sequence=request.sequence, message=str(error))
        except ValueError as error:  # an observation that this client does not send
            return Trouble(sequence=request.sequence, message=str(error), is_final=True)
        return Plan(
            actions=chunk.actions,
            observed_at_s=request.observed_at_s,
            period_s=self.period_s,
            sequence=request.sequence,
            arrived_at_s=self.clock.now(),
            depth=chunk.depth,
            timing_s=tuple(chunk.timing.items()),
        )
