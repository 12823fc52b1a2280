"""What passed between the server and one client: the unit of the dashboard, the metrics and the flight recorder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from molmoact2.types import ActionChunk, Observation
from molmoact2.wire.limits import Code
from molmoact2.wire.messages import Committed, Telemetry


@dataclass(frozen=True, kw_only=True)
class Question:
    """An observation with everything that decides its answer."""

    observation: Observation
    """With images by name, uint8, as they were decoded."""
    embodiment: str
    options: Mapping[str, Any]
    """Keyword arguments of `MolmoAct2Policy.act` that are numbers, words or truth values: mode, think, num_steps, …"""
    seed: int
    """Of the noise of this one answer."""
    committed: Committed | None = None


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One question and what became of it."""

    number: int
    """Counts every exchange of this server, from 0, in the order in which they were computed or refused."""
    session: str
    client: str
    dialect: str
    request: str
    """The client's own id of it, or one of ours."""
    question: Question
    chunk: ActionChunk | None
    """None where it was refused."""
    refusal: tuple[Code, str] | None
    batch: int
    """Exchanges of the same batch were computed together, in the order of their numbers; -1 was not computed."""
    episode: int
    """Counts the resets of its session."""
    arrived_at: float
    """Unix time in seconds."""
    queue_s: float
    inference_s: float
    total_s: float
    """From its arrival to its reply being ready."""
    observed_at: float | None = None
    """`Ask.observed_at`: when it was observed, on the clock of its robot; None where the dialect does not say."""
    remembers: bool = True
    """Whether its session remembers from question to question; where not, every question stands for itself."""
    together: int = 1
    """How many exchanges its batch has."""


class Watcher(Protocol):
    """Is told what happens, from the event loop; has to return at once."""

    def exchanged(self, exchange: Exchange, /) -> None:
        """A question was answered or refused."""
        ...

    def moved(self, session: str, telemetry: Telemetry, /) -> None:
        """A robot said what it did."""
        ...

    def failed(self, where: str, error_id: str, message: str, /) -> None:
        """Something went wrong that is not part of an exchange."""
        ...

    def ended(self, session: str, /) -> None:
        """A session is over."""
        ...
