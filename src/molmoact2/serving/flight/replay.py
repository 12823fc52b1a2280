"""A flight again: every question that was computed, in the same order and the same company, with the same noise.

What decides an answer to the bit is the policy, the question, its seed, who was computed together with it, and what its
session remembered. The log has all of it, unless a piece of the log is missing; then it is said what is in doubt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.inference.session import Session
from molmoact2.serving.computing import compute
from molmoact2.serving.exchange import Exchange, Question
from molmoact2.serving.flight.events import Gap
from molmoact2.serving.flight.log import Flight
from molmoact2.types import ActionChunk, DepthReasoning

INCOMPLETE = "others that it was computed together with are missing in the log"
FORGOTTEN = "what its session remembered is missing in the log"
Verdict: TypeAlias = Literal["same", "different", "doubtful"]
"""What became of an answer; "doubtful" is different with a reason to be."""
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
        return bits(self.exchange.chunk) == bits(self.answer)

    @property
    def verdict(self) -> Verdict:
        """What became of the answer."""
        return "same" if self.is_same else "doubtful" if self.doubt else "different"

    @property
    def difference(self) -> str:
        """How it differs from the recorded answer, in words."""
        where = f"answer {self.exchange.number} of session {self.exchange.session}"
        match self.exchange.chunk, self.answer:
            case ActionChunk(actions=then), ActionChunk(actions=now) if then.shape == now.shape:
                return f"{where}: {actions_apart(then, now)}"
            case ActionChunk(actions=then), ActionChunk(actions=now):
                return f"{where}: {list(then.shape)} actions were recorded, now {list(now.shape)}"
        return f"{where}: there is no answer now: {self.answer}"


def bits(answer: ActionChunk | ValueError | None) -> object:
    """All that has to be the same of an answer; nothing of one that is none is the same as of another."""
    match answer:
        case ActionChunk(depth=None):
            return [bits_of(answer.actions)]
        case ActionChunk(depth=DepthReasoning(codes=codes, changed=changed)):
            return [bits_of(answer.actions), bits_of(codes), bits_of(changed)]
    return object()


def bits_of(array: NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    """Everything about an array."""
    return array.dtype.str, array.shape, array.tobytes()


def actions_apart(then: NDArray[np.float32], now: NDArray[np.float32]) -> str:
    """Where two chunks of one shape differ first, in words."""
    places = np.argwhere(then.view(np.uint32) != now.view(np.uint32))
    if not len(places):
        return "the actions are the same, the depth map is not"
    row, joint = places[0]
    values = f"{then[row, joint]!s} was recorded, now {now[row, joint]!s}"
    return f"{len(places)} numbers, the first in row {row}, joint {joint}: {values}"


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
        match self._kept.get(name):
            case None:
                self._kept[name] = episode, Session() if self._begins else None
            case (before, _) if before != episode:
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
            case Exchange() if batch and event.batch == batch[0].batch:
                batch.append(event)
            case Exchange() if event.batch >= 0:
                yield from filter(None, (batch,))
                batch = [event]
    yield from filter(None, (batch,))


def asked_again(batch: Sequence[Exchange], policy: MolmoAct2Policy, memories: Memories) -> Iterator[Replayed]:
    """A batch, with what its sessions remember by now."""
    known = [memories.of(exchange) for exchange in batch]
    computed = compute(policy, [askable(one.question, policy) for one in batch], [one or Session() for one in known])
    thinks = any(exchange.question.options.get("think") for exchange in batch)
    doubts = {FORGOTTEN: thinks and None in known, INCOMPLETE: len(batch) != batch[0].together}
    doubt = next((words for words, is_so in doubts.items() if is_so), None)
    answered = [(one, answer) for one, answer in zip(batch, computed.answers, strict=True) if one.chunk is not None]
    yield from (Replayed(exchange=one, answer=answer, doubt=doubt) for one, answer in answered)


def askable(question: Question, policy: MolmoAct2Policy) -> Question:
    """The question as this policy can be asked it."""
    if policy.can_think:
        return question
    options = {name: value for name, value in question.options.items() if name not in THINKING}
    return replace(question, options=options)
