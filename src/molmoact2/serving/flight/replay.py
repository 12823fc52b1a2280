"""A flight again: every question that was computed, in the same order and the same company, with the same noise.

What decides an answer to the bit is the policy, the question, its seed, who was computed together with it, and what its
session remembered. The log has all of it, unless a piece of the log is missing; then it is said what is in doubt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.inference.session import Session
from molmoact2.serving.computing import compute
from molmoact2.serving.exchange import Exchange, Question
from molmoact2.serving.flight.events import Gap
from molmoact2.serving.flight.log import Flight
from molmoact2.types import ActionChunk, DepthReasoning

INCOMPLETE = "others that it was computed together with are missing in the log"
FORGOTTEN = "what its session remembered is missing in the log"
THINKING = ("think", "think_ahead")


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """An exchange, and the answer that its question gets now."""

    exchange: Exchange
    answer: ActionChunk | ValueError
    """The error says why there is none."""
    doubt: str | None = None
    """Why it may rightly differ from the recorded answer; None where it may not."""

    @property
    def is_same(self) -> bool:
        """Whether the answer is the recorded one to the bit: actions, depth codes and what changed."""
        recorded = self.exchange.chunk
        if recorded is None or not isinstance(self.answer, ActionChunk):
            return False
        pairs = [(recorded.actions, self.answer.actions), *thoughts(recorded.depth, self.answer.depth)]
        return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)

    @property
    def difference(self) -> str:
        """How it differs from the recorded answer, in words."""
        recorded, where = self.exchange.chunk, f"answer {self.exchange.number} of session {self.exchange.session}"
        if recorded is None or not isinstance(self.answer, ActionChunk):
            return f"{where}: there is no answer now: {self.answer}"
        if recorded.actions.shape != self.answer.actions.shape:
            return (
                f"{where}: {list(recorded.actions.shape)} actions were recorded, now {list(self.answer.actions.shape)}"
            )
        apart = recorded.actions.view(np.uint32) != self.answer.actions.view(np.uint32)
        if not apart.any():
            return f"{where}: the actions are the same, the depth map is not"
        row, joint = np.argwhere(apart)[0]
        then, now = recorded.actions[row, joint], self.answer.actions[row, joint]
        return (
            f"{where}: {apart.sum()} numbers, the first in row {row}, joint {joint}: {then!s} was recorded, now {now!s}"
        )


def thoughts(recorded: DepthReasoning | None, now: DepthReasoning | None) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """What is compared of two thoughts; of a thought and none, something that differs."""
    if recorded is None and now is None:
        return ()
    if recorded is None or now is None:
        return ((np.zeros(0), np.zeros(1)),)
    return (recorded.codes, now.codes), (recorded.changed, now.changed)


class Memories:
    """What the sessions of a flight remember, as far as the log tells."""

    def __init__(self, *, begins: bool) -> None:
        """`begins` is whether the log has the flight from its beginning."""
        self._begins = begins
        self._kept: dict[str, tuple[int, Session | None]] = {}
        self._lost: dict[str, int] = {}

    def lose(self, gap: Gap) -> None:
        """Of these sessions something is missing from some exchange on."""
        self._lost |= dict.fromkeys(gap.sessions, gap.first or 0)

    def of(self, exchange: Exchange) -> Session | None:
        """The memory that its question was asked with; None where nobody knows it."""
        if not exchange.remembers:
            return Session()
        name, episode = exchange.session, exchange.episode
        if exchange.number > self._lost.get(name, exchange.number):
            del self._lost[name]
            self._kept[name] = episode, None
        before = self._kept.get(name)
        if before is None:
            self._kept[name] = episode, Session() if self._begins else None
        elif before[0] != episode:
            self._kept[name] = episode, Session()
        return self._kept[name][1]


def replay(flight: Flight, policy: MolmoAct2Policy) -> Iterator[Replayed]:
    """Ask `policy` everything that the policy of the flight answered, and tell the answers in order.

    Questions that were computed for nobody, because they were too late, are asked too: sessions remember them. A policy
    that cannot think is asked to act without.
    """
    memories = Memories(begins=flight.has_beginning)
    for batch in batches(flight):
        if isinstance(batch, Gap):
            memories.lose(batch)
        else:
            yield from asked_again(batch, policy, memories)


def batches(flight: Flight) -> Iterator[list[Exchange] | Gap]:
    """The exchanges that were computed together, in order; and gaps where they are."""
    batch: list[Exchange] = []
    for event in flight.events():
        match event:
            case Gap():
                yield from filter(None, (batch, event))
                batch = []
            case Exchange() if event.batch >= 0:
                if batch and event.batch != batch[0].batch:
                    yield batch
                    batch = []
                batch.append(event)
    if batch:
        yield batch


def asked_again(batch: Sequence[Exchange], policy: MolmoAct2Policy, memories: Memories) -> Iterator[Replayed]:
    """A batch, with what its sessions remember by now."""
    known = [memories.of(exchange) for exchange in batch]
    computed = compute(policy, [askable(one.question, policy) for one in batch], [one or Session() for one in known])
    thinks = any(exchange.question.options.get("think") for exchange in batch)
    is_whole = len(batch) == batch[0].together
    doubt = None if is_whole else INCOMPLETE
    doubt = FORGOTTEN if thinks and None in known else doubt
    for exchange, answer in zip(batch, computed.answers, strict=True):
        if exchange.chunk is not None:
            yield Replayed(exchange=exchange, answer=answer, doubt=doubt)


def askable(question: Question, policy: MolmoAct2Policy) -> Question:
    """The question as this policy can be asked it."""
    if policy.can_think:
        return question
    options = {name: value for name, value in question.options.items() if name not in THINKING}
    return replace(question, options=options)
