"""The flight recorder: everything that passes a server, on its disk, without the server ever waiting for it.

    event loop ──► backlog, bounded in bytes ──► one thread: pack, append ──► 000007.flight
                        │ full                        │ disk full
                        └─────────► counted in a Gap ◄┘, which is recorded as soon as there is room again

Every record is handed to the operating system at once, so a server that is killed loses what was still in the backlog
and nothing else. The disk is told to keep it once a second and at the end of a segment: a power failure costs a second.
"""

import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from math import inf
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.serving.exchange import Exchange, Question
from molmoact2.serving.flight.backlog import Backlog
from molmoact2.serving.flight.events import Ended, Event, Failed, Moved, PolicyIdentity, gap_of
from molmoact2.serving.flight.records import FORMAT, Begin, End, write_event, write_exchange, write_image
from molmoact2.serving.flight.segments import SUFFIX, SegmentWriter
from molmoact2.tokens.reading import require
from molmoact2.types import Observation
from molmoact2.wire.messages import Telemetry

LOG = logging.getLogger("molmoact2.serving.flight")
SYNC_S = 1.0
"""Seconds between two requests to the disk to keep what it has."""
RETRY_S = 1.0
"""Seconds for which a disk that took nothing is left alone."""
MB = 10**6
GB = 10**9
EVENT_BYTES = 1000
"""About what an event takes in memory besides its arrays."""
DIGITS = 6
DISK_REFUSES = "the disk does not take it"
UNWRITABLE = "it has no form that could be read again"


class FlightRecorder:
    """Writes every exchange of a server to a folder; implements `serving.exchange.Watcher`.

        with FlightRecorder("flights", identify(policy, name)) as recorder:
            engine = Engine(policy, watchers=[recorder])

    Its methods return at once and never fail: what cannot be recorded is counted, and the count is recorded.
    """

    def __init__(
        self,
        folder: str | Path,
        policy: PolicyIdentity,
        *,
        segment_mb: float = 256,
        backlog_mb: float = 256,
        max_gb: float | None = None,
    ) -> None:
        """Nothing is written before it is entered.

        Args:
            folder: of one server; every run of it adds to what is there.
            policy: who answers.
            segment_mb: size of one file.
            backlog_mb: memory for what was not written yet.
            max_gb: size of the folder beyond which the oldest files are deleted; None deletes nothing.

        Raises:
            ValueError: a size that is not positive, or a `max_gb` that two segments do not fit in.
        """
        are_positive = segment_mb > 0 and backlog_mb > 0
        require(are_positive, f"segment_mb and backlog_mb must be positive, got {segment_mb} and {backlog_mb}.")
        has_room = max_gb is None or max_gb * GB >= 2 * segment_mb * MB
        require(has_room, f"max_gb must have room for two segments of {segment_mb:g} MB, got {max_gb}.")
        self.folder = Path(folder)
        self.num_recorded = 0
        """Exchanges that are in the log."""
        self._segment_bytes = segment_mb * MB
        self._max_bytes = inf if max_gb is None else max_gb * GB
        self._begin = Begin(format=FORMAT, flight=secrets.token_hex(8), segment=0, at=time.time(), policy=policy)
        self._backlog = Backlog(backlog_mb * MB)
        self._segment: SegmentWriter | None = None
        self._closed_bytes = 0
        self._offsets: dict[bytes, int] = {}
        """Digest of an image -> where it is in this file."""
        self._sync_at = self._try_at = 0.0
        self._thread = Thread(target=self._work, name="flight-recorder", daemon=True)

    @property
    def num_missed(self) -> int:
        """Exchanges that are not."""
        return self._backlog.num_missed

    @property
    def num_bytes(self) -> int:
        """Bytes that were written."""
        return self._closed_bytes + (0 if self._segment is None else self._segment.size)

    def __enter__(self) -> "FlightRecorder":
        """Make the folder and the first file; ValueError where that cannot be done."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._segment = self._open_segment()
        except OSError as error:
            raise ValueError(f"The flight recorder cannot write to {self.folder}: {error}.") from error
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is in the backlog, and that this is the end."""
        self._backlog.close()
        self._thread.join()

    def exchanged(self, exchange: Exchange, /) -> None:
        """Record an exchange."""
        images = exchange.question.observation.images
        listed = images.values() if isinstance(images, Mapping) else images
        self._backlog.put(exchange, EVENT_BYTES + sum(image.nbytes for image in listed))

    def moved(self, session: str, telemetry: Telemetry, /) -> None:
        """Record what a robot did."""
        num_bytes = telemetry.executed.nbytes + telemetry.measured.nbytes + telemetry.times.nbytes
        self._backlog.put(Moved(at=time.time(), session=session, telemetry=telemetry), EVENT_BYTES + num_bytes)

    def failed(self, where: str, error_id: str, message: str, /) -> None:
        """Record that something went wrong."""
        event = Failed(at=time.time(), where=where, error_id=error_id, message=message)
        self._backlog.put(event, EVENT_BYTES + len(message))

    def ended(self, session: str, /) -> None:
        """Record the end of a session."""
        self._backlog.put(Ended(at=time.time(), session=session), EVENT_BYTES)

    def _work(self) -> None:
        """The thread."""
        is_over = False
        while not is_over:
            event, is_over = self._backlog.take(SYNC_S)
            if time.monotonic() < self._try_at and not is_over:
                self._leave_out(event, DISK_REFUSES)
            else:
                self._record(event)
            self._sync()
        self._finish()

    def _record(self, event: Event | None) -> None:
        """Write what is missing before it, and then the event itself."""
        try:
            self._write_gap()
            if event is not None:
                self._write(event)
        except OSError as error:
            LOG.warning("The disk does not take what the flight recorder writes: %s.", error)
            self._try_at = time.monotonic() + RETRY_S
            self._leave_out(event, DISK_REFUSES)
        except (ValueError, TypeError, OverflowError) as error:
            LOG.warning("The flight recorder has no form for this: %s", error)
            self._leave_out(event, UNWRITABLE)

    def _leave_out(self, event: Event | None, reason: str) -> None:
        if event is not None:
            self._backlog.miss(gap_of(event, reason))

    def _write_gap(self) -> None:
        gap = self._backlog.take_gap()
        if gap is None:
            return
        try:
            self._room().append(write_event(gap))
        except OSError:
            self._backlog.give_back(gap)
            raise

    def _write(self, event: Event) -> None:
        segment = self._room()
        match event:
            case Exchange(question=Question(observation=Observation(images=Mapping() as images))):
                offsets = {
                    name: self._offset_of(np.ascontiguousarray(image), segment) for name, image in images.items()
                }
                segment.append(write_exchange(event, offsets))
                self.num_recorded += 1
            case Exchange():
                raise ValueError("The images of an exchange have no names.")
            case _:
                segment.append(write_event(event))

    def _offset_of(self, image: NDArray[Any], segment: SegmentWriter) -> int:
        """Where in this file the image is; it is written where it is not there yet."""
        key = blake2b(image.data, digest_size=16, key=str(image.shape).encode()).digest()
        if key not in self._offsets:
            self._offsets[key] = segment.append(write_image(image))
        return self._offsets[key]

    def _room(self) -> SegmentWriter:
        """The file to append to: this one, or the next where it is full."""
        if self._segment is not None and self._segment.size < self._segment_bytes:
            return self._segment
        if self._segment is not None:
            self._close_segment(self._segment)
        self._segment = self._open_segment()
        self._delete_oldest()
        return self._segment

    def _open_segment(self) -> SegmentWriter:
        last = max((number_of(path) for path in segment_paths(self.folder)), default=-1)
        segment = SegmentWriter(self.folder / f"{last + 1:0{DIGITS}d}{SUFFIX}")
        try:
            segment.append(write_event(self._begin))
        except OSError:
            segment.close()
            segment.path.unlink()
            raise
        self._begin = replace(self._begin, segment=self._begin.segment + 1)
        return segment

    def _close_segment(self, segment: SegmentWriter) -> None:
        self._segment = None
        self._offsets.clear()
        self._closed_bytes += segment.size
        segment.close()

    def _delete_oldest(self) -> None:
        """Keep the folder within its bound, where it has one. The newest file stays."""
        *old, newest = segment_paths(self.folder)
        room = self._max_bytes - max(self._segment_bytes, newest.stat().st_size)
        for path in reversed(old):
            room -= path.stat().st_size
            if room < 0:
                LOG.info("The flight recorder deletes %s, its oldest file, to stay within max_gb.", path)
                path.unlink()

    def _sync(self) -> None:
        """Ask the disk to keep what it has, once in a while."""
        now = time.monotonic()
        if self._segment is None or now < self._sync_at:
            return
        self._sync_at = now + SYNC_S
        try:
            self._segment.sync()
        except OSError as error:
            LOG.warning("The disk does not keep what the flight recorder wrote: %s.", error)

    def _finish(self) -> None:
        """Write that this is the end, and let go of the file."""
        try:
            self._write_gap()
            segment = self._room()
            segment.append(write_event(End(at=time.time(), num_exchanges=self.num_recorded + self.num_missed)))
            self._close_segment(segment)
        except OSError as error:
            LOG.error("The flight log has no end, and %d exchanges are missing: %s.", self.num_missed, error)


def segment_paths(folder: Path) -> list[Path]:
    """The files of a log, oldest first. Others in the folder are none of its business."""
    names = re.compile(rf"\d{{{DIGITS},}}{re.escape(SUFFIX)}")
    return sorted((path for path in folder.iterdir() if names.fullmatch(path.name)), key=number_of)


def number_of(path: Path) -> int:
    """Of a segment file."""
    return int(path.name.removesuffix(SUFFIX))
