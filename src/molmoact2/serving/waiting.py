"""A question in line."""

import asyncio
import time
from collections.abc import Hashable
from dataclasses import dataclass

from molmoact2.serving.exchange import Exchange, Question
from molmoact2.serving.sessions import ServedSession
from molmoact2.types import ActionChunk
from molmoact2.wire.limits import Code

NOT_COMPUTED = -1
"""Batch of an exchange that was refused before it was computed."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """When, and with which others, something was computed."""

    batch: int
    began_s: float
    """On the clock of `time.perf_counter`."""
    done_s: float
    together: int = 1
    """How many were computed then."""


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

    @property
    def refused(self) -> "Span":
        """When nothing was computed for it."""
        now_s = time.perf_counter()
        return Span(batch=NOT_COMPUTED, began_s=now_s, done_s=now_s)

    def exchange(
        self, number: int, span: "Span", *, chunk: ActionChunk | None = None, refusal: tuple[Code, str] | None = None
    ) -> Exchange:
        """What became of it: either a chunk or a refusal."""
        return Exchange(
            number=number,
            session=self.session.id,
            client=self.session.client,
            dialect=self.session.dialect,
            request=self.request,
            question=self.question,
            chunk=chunk,
            refusal=refusal,
            batch=span.batch,
            episode=self.episode,
            arrived_at=self.arrived_at,
            queue_s=span.began_s - self.arrived_s,
            inference_s=span.done_s - span.began_s,
            total_s=time.perf_counter() - self.arrived_s,
            observed_at=self.observed_at,
            remembers=self.session.remembers,
            together=span.together,
        )

    def is_late(self, now_s: float) -> bool:
        """Whether nobody needs the answer any more."""
        return self.deadline_s is not None and now_s - self.arrived_s > self.deadline_s
