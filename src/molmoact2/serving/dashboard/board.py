"""What the dashboard can show: the last seconds of every session, bounded in every direction.

Nothing is drawn or encoded here: images are kept as they came, and only the newest of each session.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from molmoact2.serving.exchange import Exchange
from molmoact2.types import DepthReasoning, Image
from molmoact2.wire.limits import Code
from molmoact2.wire.messages import RobotCard, Telemetry

NUM_PLANS = 150
NUM_MOTIONS = 600
NUM_NOTES = 50
NUM_ERRORS = 50
NUM_SESSIONS = 64
"""Of each, the newest are kept; of sessions those that are not over before those that are."""
NUM_TICKS = 4000
"""Ticks of motion of one session."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Something new at `version` of the board."""

    version: int


@dataclass(frozen=True, kw_only=True)
class Planned(Shown):
    """An exchange without its images."""

    number: int
    at: float
    """When it was observed, on the clock of its robot; of its arrival, where the robot does not say."""
    instruction: str
    state: NDArray[np.floating]
    actions: NDArray[np.float32] | None
    refusal: tuple[Code, str] | None
    total_s: float
    queue_s: float
    inference_s: float
    together: int
    """Questions that were computed together."""


@dataclass(frozen=True, kw_only=True)
class Motion(Shown):
    """What a robot said that it did."""

    telemetry: Telemetry


@dataclass(frozen=True, kw_only=True)
class Note(Shown):
    """What a guard said."""

    at: float
    """Unix time at which we heard it."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Trouble(Shown):
    """An error of the server."""

    at: float
    where: str
    error_id: str
    message: str


@dataclass(frozen=True, kw_only=True)
class View(Shown):
    """What was seen, and thought of it, at one moment."""

    images: Mapping[str, Image]
    thought: DepthReasoning | None


@dataclass(kw_only=True)
class History:
    """One session."""

    session: str
    client: str = ""
    dialect: str = ""
    embodiment: str = ""
    mode: str | None = None
    """Of the robot's guard; None where the robot does not say."""
    instruction: str = ""
    """The newest."""
    heard_at: float = 0.0
    """Unix time of the last sign of life."""
    is_over: bool = False
    view: View | None = None
    plans: deque[Planned] = field(default_factory=lambda: deque(maxlen=NUM_PLANS))
    motions: deque[Motion] = field(default_factory=lambda: deque(maxlen=NUM_MOTIONS))
    notes: deque[Note] = field(default_factory=lambda: deque(maxlen=NUM_NOTES))

    @property
    def num_ticks(self) -> int:
        """Of the motions that are kept."""
        return sum(len(motion.telemetry.times) for motion in self.motions)


class Board:
    """The newest of everything; implements `serving.exchange.Watcher`. Used from the event loop only."""

    def __init__(
        self, robots: Sequence[RobotCard] = (), *, model: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        """`robots` say what joints are called; `model` is the name of what is served."""
        self.robots = {card.tag: card for card in robots}
        self.model = model
        self.clock = clock
        self.version = 0
        """Counts what was told."""
        self.is_open = True
        self.errors: deque[Trouble] = deque(maxlen=NUM_ERRORS)
        self._sessions: dict[str, History] = {}
        self._versions = itertools.count(1)

    def close(self) -> None:
        """Let those who watch go, as the server ends."""
        self.is_open = False

    @property
    def sessions(self) -> tuple[History, ...]:
        """Newest first, those that are over last."""
        newest_first = list(self._sessions.values())[::-1]
        return tuple(sorted(newest_first, key=lambda one: one.is_over))

    def session(self, name: str | None) -> History | None:
        """The session of this id, by default the newest; None where there is none."""
        return next((one for one in self.sessions if name in (None, one.session)), None)

    def exchanged(self, exchange: Exchange, /) -> None:
        """A question was answered or refused."""
        history, question, chunk = self._heard(exchange.session), exchange.question, exchange.chunk
        history.client, history.dialect = exchange.client, exchange.dialect
        history.embodiment, history.instruction = question.embodiment, question.observation.instruction
        history.plans.append(
            Planned(
                version=self.version,
                number=exchange.number,
                at=exchange.arrived_at if exchange.observed_at is None else exchange.observed_at,
                instruction=question.observation.instruction,
                state=question.observation.state,
                actions=None if chunk is None else chunk.actions,
                refusal=exchange.refusal,
                total_s=exchange.total_s,
                queue_s=exchange.queue_s,
                inference_s=exchange.inference_s,
                together=exchange.together,
            )
        )
        images, thought = question.observation.images, None if chunk is None else chunk.depth
        if isinstance(images, Mapping):
            history.view = View(version=self.version, images=images, thought=thought)

    def moved(self, session: str, telemetry: Telemetry, /) -> None:
        """A robot said what it did."""
        history = self._heard(session)
        history.mode = telemetry.mode
        history.motions.append(Motion(version=self.version, telemetry=telemetry))
        while history.num_ticks > NUM_TICKS and len(history.motions) > 1:
            history.motions.popleft()
        history.notes.extend(Note(version=self.version, at=self.clock(), text=text) for text in telemetry.notes)

    def failed(self, where: str, error_id: str, message: str, /) -> None:
        """Something went wrong."""
        self.version = next(self._versions)
        self.errors.append(
            Trouble(version=self.version, at=self.clock(), where=where, error_id=error_id, message=message)
        )

    def ended(self, session: str, /) -> None:
        """A session is over; what it did last can still be looked at."""
        if session in self._sessions:
            self._heard(session).is_over = True

    def _heard(self, session: str) -> History:
        """The session, which gave a sign of life; a new one takes the place of the oldest where there are too many."""
        self.version = next(self._versions)
        if session not in self._sessions and len(self._sessions) >= NUM_SESSIONS:
            del self._sessions[self.sessions[-1].session]
        history = self._sessions.setdefault(session, History(session=session))
        history.heard_at, history.is_over = self.clock(), False
        return history
