"""Reading a flight log: strictly, a record at a time.

    for flight in FlightLog("flights").flights:     a run of the server
        for event in flight.events():               an exchange, a gap, ...

What a crash leaves is normal and said (`Flight.torn`); what nobody can have written is a FlightLogError with its place.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from molmoact2.serving.exchange import Exchange
from molmoact2.serving.flight.events import Ended, Event, Failed, Gap, Moved, PolicyIdentity
from molmoact2.serving.flight.recorder import segment_paths
from molmoact2.serving.flight.records import FORMAT, Begin, End, read, read_image
from molmoact2.serving.flight.segments import FlightLogError, Record, TornTail, ensure, read_record, read_segment
from molmoact2.tokens.reading import require
from molmoact2.types import Image

KEPT_IMAGES = 16
"""Images of a file that are remembered, because some come again."""


@dataclass(frozen=True, kw_only=True)
class Flight:
    """One run of a server."""

    id: str
    at: float
    """Unix time at which it began."""
    policy: PolicyIdentity
    paths: Sequence[Path]
    has_beginning: bool
    """False where its oldest files were deleted."""

    def events(self) -> Iterator[Event]:
        """Everything that was recorded, in order, up to the end or to where the server was stopped.

        Raises FlightLogError, when it comes to it, for a record that is damaged.
        """
        for path in self.paths:
            yield from segment_events(path, is_last=path == self.paths[-1])

    def exchanges(self) -> Iterator[Exchange]:
        """The exchanges alone."""
        return (event for event in self.events() if isinstance(event, Exchange))

    @property
    def torn(self) -> TornTail | None:
        """What a crash left at the end, if anything."""
        return self._last if isinstance(self._last, TornTail) else None

    @property
    def is_closed(self) -> bool:
        """Whether it was ended in an orderly way; False while it goes on, and after a crash."""
        return isinstance(self._last, Record) and isinstance(decoded(self._last, self.paths[-1]), End)

    @property
    def _last(self) -> Record | TornTail:
        *_, last = read_segment(self.paths[-1])
        return last


class FlightLog:
    """A folder that a `FlightRecorder` wrote, or is writing."""

    def __init__(self, folder: str | Path) -> None:
        """Reads the first record of every file.

        Raises:
            FlightLogError: there is no such log, a file is none of ours, or one is missing between others.
        """
        self.folder = Path(folder)
        paths = segment_paths(self.folder) if self.folder.is_dir() else []
        ensure(len(paths) > 0, f"{self.folder} holds no flight log: there are no files such as 000000.flight in it.")
        flights: dict[str, tuple[Begin, list[Path]]] = {}
        for path in paths:
            begin = first_record(path)
            if begin is None:
                continue  # the server was stopped before it had written anything to it
            known, files = flights.setdefault(begin.flight, (begin, []))
            due = known.segment + len(files)
            ensure(
                begin == replace(known, segment=due),
                f"{path} is file {begin.segment} of flight {begin.flight}, and {due} was to come: a file is missing, "
                "or is not of this log.",
            )
            files.append(path)
        self.flights = tuple(
            Flight(id=name, at=begin.at, policy=begin.policy, paths=tuple(files), has_beginning=begin.segment == 0)
            for name, (begin, files) in flights.items()
        )
        """Runs of the server, oldest first."""


def first_record(path: Path) -> Begin | None:
    """How a file begins; None where it was torn before."""
    first = next(read_segment(path), None)
    if not isinstance(first, Record):
        return None
    begin = decoded(first, path)
    is_ours = isinstance(begin, Begin) and begin.format == FORMAT
    ensure(is_ours, f"{path} does not begin as a file of a flight log of format {FORMAT}.")
    return begin


def segment_events(path: Path, *, is_last: bool) -> Iterator[Event]:
    """The events of one file, with their images."""

    @lru_cache(maxsize=KEPT_IMAGES)
    def image_at(offset: int) -> Image:
        return read_image_at(path, offset)

    for entry in read_segment(path):
        if isinstance(entry, TornTail):
            ensure(is_last, f"{path}, byte {entry.offset}: the file ends within a record, and others follow.")
            return
        match decoded(entry, path):
            case Exchange() as exchange:
                yield with_images(exchange, image_at)
            case Moved() | Failed() | Ended() | Gap() as event:
                yield event


def decoded(record: Record, path: Path) -> Any:
    """What a record says; FlightLogError where nobody of ours can have written it."""
    try:
        return read(record.payload)
    except ValueError as error:
        raise FlightLogError(f"{path}, byte {record.offset}: this record is none of ours: {error}") from error


def read_image_at(path: Path, offset: int) -> Image:
    """The image whose record is at `offset`; FlightLogError where there is none."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(min(offset, size))
        entry = read_record(file, path, size)
    try:
        require(isinstance(entry, Record), "an image was to be here.")
        return read_image(cast(Record, entry).payload)
    except ValueError as error:
        raise FlightLogError(f"{path}, byte {offset}: {error}") from error


def with_images(exchange: Exchange, image_at: Callable[[int], Image]) -> Exchange:
    """The exchange with images where there were offsets."""
    observation = exchange.question.observation
    assert isinstance(observation.images, Mapping)
    images = {name: image_at(cast(int, offset)) for name, offset in observation.images.items()}
    question = replace(exchange.question, observation=replace(observation, images=images))
    return replace(exchange, question=question)
