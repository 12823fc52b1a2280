"""A question in line."""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass

from molmoact2.serving.exchange import Exchange, Question
from molmoact2.serving.sessions import ServedSession


@dataclass(frozen=True, kw_only=True, eq=False)
class Waiting:
    """A question, and who waits for its answer."""

    session: ServedSession
    question: Question
    request: str
    deadline_s: float | None
    episode: int
    arrived_s: float
    """On the clock of `time.perf_counter`."""
    arrived_at: float
    """In Unix time."""
    observed_at: float | None
    reply: "asyncio.Future[Exchange]"

    @property
    def place(self) -> Hashable:
        """Where it waits: a session that is remembered has one place."""
        return self.session.id if self.session.remembers else self

    @property
    def kind(self) -> Hashable:
        """Questions of equal kinds can be answered together."""
        question = self.question
        return question.embodiment, question.committed is None, tuple(sorted(question.options.items()))

    def is_late(self, now_s: float) -> bool:
        """Whether nobody needs the answer any more."""
        return self.deadline_s is not None and now_s - self.arrived_s > self.deadline_s
