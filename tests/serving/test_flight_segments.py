"""A file of records gives back exactly the whole ones, wherever it ends, and notices any byte that changed."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.serving.flight.segments import (
    LARGEST_RECORD,
    MAGIC,
    FlightLogError,
    Record,
    SegmentWriter,
    TornTail,
    framed,
    read_segment,
)

PAYLOADS = (b"first", b"", b"\x00" * 7, b"the last of them")


def write(path: Path, payloads: tuple[bytes, ...] = PAYLOADS) -> list[int]:
    """The offset of every record, and the size of the file."""
    writer = SegmentWriter(path)
    offsets = [writer.append(payload) for payload in payloads]
    writer.close()
    return [*offsets, writer.size]


def payloads_of(path: Path) -> tuple[bytes, ...]:
    return tuple(entry.payload for entry in read_segment(path) if isinstance(entry, Record))


@given(payloads=st.lists(st.binary(max_size=300), max_size=8))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]):
    path = tmp_path_factory.mktemp("segment") / "000000.flight"
    write(path, tuple(payloads))
    assert payloads_of(path) == tuple(payloads)


def test_cut_at_every_byte_it_gives_the_whole_records_before(tmp_path: Path):
    path, cut = tmp_path / "whole", tmp_path / "cut"
    ends = write(path)
    data = path.read_bytes()
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        whole = sum(end <= size for end in ends[1:])
        entries = list(read_segment(cut))
        assert tuple(entry.payload for entry in entries if isinstance(entry, Record)) == PAYLOADS[:whole]
        assert isinstance(entries[-1], TornTail) == (size not in ends) if entries else size in (0, len(MAGIC))


def test_any_byte_that_changed_is_damage_and_is_placed(tmp_path: Path):
    path, bad = tmp_path / "whole", tmp_path / "bad"
    ends = write(path)
    data = path.read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x10
        bad.write_bytes(changed)
        with pytest.raises(FlightLogError, match=str(bad)) as error:
            list(read_segment(bad))
        if place >= ends[0]:
            assert f"byte {max(end for end in ends if end <= place)}:" in str(error.value)


def test_zeros_at_the_end_are_a_torn_tail(tmp_path: Path):
    path = tmp_path / "000000.flight"
    size = write(path)[-1]
    path.write_bytes(path.read_bytes() + bytes(5000))
    *records, tail = read_segment(path)
    assert (len(records), tail) == (len(PAYLOADS), TornTail(offset=size, num_bytes=5000))


def test_nothing_is_written_over(tmp_path: Path):
    write(tmp_path / "000000.flight")
    with pytest.raises(FileExistsError):
        SegmentWriter(tmp_path / "000000.flight")


def test_a_record_that_would_not_be_read_is_not_written():
    with pytest.raises(ValueError, match="up to"):
        framed(bytes(LARGEST_RECORD + 1))


class FullDisk:
    """A file that takes `room` bytes more."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = self.file.write(bytes(data[: self.room]))
        self.room -= count
        return count

    def __getattr__(self, name: str):
        return getattr(self.file, name)


@pytest.mark.parametrize("room", [0, 1, 11, 12, 20])
def test_a_disk_that_is_full_leaves_no_half_record(tmp_path: Path, room: int):
    writer = SegmentWriter(tmp_path / "000000.flight")
    writer.append(b"before")
    file, writer._file = writer._file, FullDisk(writer._file, room)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(OSError, match="No space"):
        writer.append(b"lost" * 10)
    writer._file = file
    writer.append(b"after")
    writer.close()
    assert payloads_of(tmp_path / "000000.flight") == (b"before", b"after")


def test_a_disk_that_takes_nothing_gets_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode, **options: FullDisk(opened(path, *mode, **options), 3))
    with pytest.raises(OSError, match="No space"):
        SegmentWriter(tmp_path / "000000.flight")
    assert not list(tmp_path.iterdir())
