"""What a flight log tells, besides exchanges."""

import time
from dataclasses import dataclass, replace
from typing import TypeAlias

from molmoact2.serving.exchange import Exchange
from molmoact2.wire.messages import Telemetry


@dataclass(frozen=True, kw_only=True)
class PolicyIdentity:
    """Everything but the questions that decides what a policy answers, to the bit."""

    name: str
    """As it was loaded: a folder, a hub id, or a bundled policy."""
    fingerprint: str
    """Commit of the hub repository, or a digest of the folder's files."""
    dtype: str
    device: str
    num_threads: int
    """Of torch on the CPU."""
    torch: str
    """Version of torch."""
    molmoact2: str
    """Version of this package."""
    action_tokenizer: str | None = None
    """What reads spoken actions, where it is not the checkpoint's own."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A robot said what it did."""

    at: float
    """Unix time in seconds."""
    session: str
    telemetry: Telemetry


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Something went wrong that is not part of an exchange."""

    at: float
    where: str
    error_id: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A session is over."""

    at: float
    session: str


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What should be here and is not: the disk was too slow, or full, or it could not be written down."""

    at: float
    """When it was noticed first."""
    reason: str
    num_exchanges: int
    num_others: int
    """Telemetry, failures and ends of sessions."""
    first: int | None
    """Number of the first exchange that is missing; None where none is."""
    last: int | None
    sessions: tuple[str, ...]
    """Of the exchanges that are missing."""


Event: TypeAlias = Exchange | Moved | Failed | Ended | Gap


def gap_of(event: Event, reason: str) -> Gap:
    """The gap that one event leaves."""
    nothing = Gap(at=time.time(), reason=reason, num_exchanges=0, num_others=0, first=None, last=None, sessions=())
    match event:
        case Gap():
            return event
        case Exchange(number=number, session=session):
            return replace(nothing, num_exchanges=1, first=number, last=number, sessions=(session,))
    return replace(nothing, num_others=1)


def merged(gap: Gap | None, later: Gap | None) -> Gap | None:
    """Two gaps as one, which keeps the reason of the first."""
    if gap is None or later is None:
        return gap or later
    numbers = [number for number in (gap.first, gap.last, later.first, later.last) if number is not None]
    return Gap(
        at=gap.at,
        reason=gap.reason,
        num_exchanges=gap.num_exchanges + later.num_exchanges,
        num_others=gap.num_others + later.num_others,
        first=min(numbers, default=None),
        last=max(numbers, default=None),
        sessions=tuple(sorted({*gap.sessions, *later.sessions})),
    )
