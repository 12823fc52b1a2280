"""What waits to be written, bounded, and what did not fit: between the event loop and the thread that writes."""

import logging
from collections import deque
from threading import Condition

from molmoact2.serving.flight.events import Event, Gap, gap_of, merged

LOG = logging.getLogger("molmoact2.serving.flight")
TOO_SLOW = "the backlog is full: the disk, or the processor that packs the images, is too slow"


class Backlog:
    """A queue of events that never makes anybody wait to put something in."""

    def __init__(self, max_bytes: float) -> None:
        """`max_bytes` is about the memory of the events that wait."""
        self.num_missed = 0
        """Exchanges that were left out."""
        self._max_bytes, self._bytes = max_bytes, 0
        self._events: deque[tuple[Event, int]] = deque()
        self._gap: Gap | None = None
        self._is_closed = False
        self._change = Condition()

    def put(self, event: Event, num_bytes: int) -> None:
        """Let an event wait; count it where there is no room, or nobody writes any more."""
        with self._change:
            has_room = self._bytes + num_bytes <= self._max_bytes and not self._is_closed
            self._events.extend([(event, num_bytes)] * has_room)
            self._bytes += num_bytes * has_room
            self._change.notify()
        if not has_room:
            self.miss(gap_of(event, TOO_SLOW))

    def miss(self, gap: Gap) -> None:
        """Count what is left out."""
        with self._change:
            if self._gap is None:
                LOG.warning("The flight recorder has a gap: %s.", gap.reason)
            self.num_missed += gap.num_exchanges
            self._gap = merged(self._gap, gap)

    def take(self, seconds: float) -> tuple[Event | None, bool]:
        """The next event, None where none comes within `seconds`; and whether there will never be another."""
        with self._change:
            self._change.wait_for(lambda: self._events or self._is_closed, timeout=seconds)
            event, num_bytes = self._events.popleft() if self._events else (None, 0)
            self._bytes -= num_bytes
            return event, self._is_closed and not self._events

    def take_gap(self) -> Gap | None:
        """What was left out since it was asked last."""
        with self._change:
            gap, self._gap = self._gap, None
            return gap

    def give_back(self, gap: Gap) -> None:
        """The gap could not be written down: it is part of the next one."""
        with self._change:
            self._gap = merged(gap, self._gap)

    def close(self) -> None:
        """Take nothing more in."""
        with self._change:
            self._is_closed = True
            self._change.notify()
