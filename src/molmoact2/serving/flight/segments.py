"""Files of checksummed records that are only ever appended to, and how one tells a crash from damage.

    MAGIC | record | record | ...        record = length, crc of payload, crc of these two | payload

A writer that is killed leaves whole records and then, perhaps, the beginning of one more: a torn tail. Anything else
that does not read is damage, because the header of every record vouches for its own length.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from molmoact2.tokens.reading import require

MAGIC = b"molmoact2 flight 1\n"
SUFFIX = ".flight"
LARGEST_RECORD = 64 * 2**20
"""Bytes of a payload."""
LENGTHS = struct.Struct("<II")
CHECK = struct.Struct("<I")
HEADER_BYTES = LENGTHS.size + CHECK.size


class FlightLogError(ValueError):
    """A log that is damaged, or none; says which file, and where in it."""


def ensure(holds: bool, message: str) -> None:
    """FlightLogError with `message` unless it holds."""
    if not holds:
        raise FlightLogError(message)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One whole record."""

    offset: int
    """Of its header in the file."""
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class TornTail:
    """The beginning of a record that was being written when the writer was stopped."""

    offset: int
    num_bytes: int


def framed(payload: bytes) -> bytes:
    """A record as bytes; ValueError beyond `LARGEST_RECORD`."""
    require(len(payload) <= LARGEST_RECORD, f"A record has up to {LARGEST_RECORD} bytes, got {len(payload)}.")
    lengths = LENGTHS.pack(len(payload), zlib.crc32(payload))
    return lengths + CHECK.pack(zlib.crc32(lengths)) + payload


class SegmentWriter:
    """One new file that records are appended to. OSError where the disk does not take them."""

    def __init__(self, path: Path) -> None:
        """FileExistsError where there is such a file already: nothing is ever written over."""
        self.path = path
        self.size = 0
        self._file = path.open("xb", buffering=0)
        try:
            self._append(MAGIC)
        except OSError:
            self._file.close()
            path.unlink()
            raise

    def append(self, payload: bytes) -> int:
        """Write a record and return its offset. After an OSError it is as if nothing had been written."""
        offset = self.size
        self._append(framed(payload))
        return offset

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._file.truncate(self.size)
            self._file.seek(self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Put everything on the disk and close."""
        try:
            self.sync()
        finally:
            self._file.close()


def read_segment(path: Path) -> Iterator[Record | TornTail]:
    """The records of a file in order, and what a crash left behind them, if anything.

    Raises FlightLogError where a record is damaged, or the file is none of ours.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(len(MAGIC))
        ensure(head == MAGIC[: len(head)], f"{path} is not a segment of a flight log: it does not begin as one.")
        if head != MAGIC:
            yield TornTail(offset=0, num_bytes=size)
            return
        while (offset := file.tell()) < size:
            entry = read_record(file, path, size)
            yield entry
            if isinstance(entry, TornTail):
                return
            file.seek(offset + HEADER_BYTES + len(entry.payload))


def read_record(file: BinaryIO, path: Path, size: int) -> Record | TornTail:
    """The record where the file stands, of a file of `size` bytes."""
    offset = file.tell()
    torn, header = TornTail(offset=offset, num_bytes=size - offset), file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return torn
    length, checksum = LENGTHS.unpack_from(header)
    if CHECK.unpack_from(header, LENGTHS.size)[0] != zlib.crc32(header[: LENGTHS.size]) or length > LARGEST_RECORD:
        file.seek(offset)  # zeros are a file that grew before its content was on the disk, as in a power failure
        ensure(is_zero_to_the_end(file), f"{path}, byte {offset}: the header of this record is damaged.")
        return torn
    if offset + HEADER_BYTES + length > size:
        return torn
    payload = file.read(length)
    is_right = zlib.crc32(payload) == checksum
    ensure(is_right, f"{path}, byte {offset}: this record of {length} bytes is damaged.")
    return Record(offset=offset, payload=payload)


def is_zero_to_the_end(file: BinaryIO) -> bool:
    """Whether all that follows is zeros."""
    return not any(any(block) for block in iter(lambda: file.read(2**20), b""))
