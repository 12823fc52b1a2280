"""The recorder: everything is there, or it is said what is not; also when the server is killed or the disk is full."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_flights import NOBODY, is_same, made_up, recorded_numbers, telemetry

from molmoact2.serving.flight import Ended, Failed, FlightLog, FlightLogError, FlightRecorder, Gap, Moved, recorder
from molmoact2.serving.flight.segments import HEADER_BYTES, MAGIC, SegmentWriter, read_segment


def test_everything_that_was_told_is_there(tmp_path: Path):
    with FlightRecorder(tmp_path, NOBODY) as flight_recorder:
        flight_recorder.exchanged(made_up(0))
        flight_recorder.moved("one", telemetry())
        flight_recorder.failed("inference", "abc", "it broke")
        flight_recorder.exchanged(made_up(1, chunk=None, refusal=("late", "too late"), batch=-1))
        flight_recorder.ended("one")
    (flight,) = FlightLog(tmp_path).flights
    first, moved, failed, second, ended = flight.events()
    assert is_same(first, made_up(0))
    assert is_same(second, made_up(1, chunk=None, refusal=("late", "too late"), batch=-1))
    assert isinstance(moved, Moved)
    assert is_same(moved.telemetry, telemetry())
    assert isinstance(failed, Failed)
    assert (failed.where, failed.error_id, failed.message) == ("inference", "abc", "it broke")
    assert isinstance(ended, Ended)
    assert (flight.is_closed, flight.torn, flight.policy, flight.has_beginning) == (True, None, NOBODY, True)
    assert (flight_recorder.num_recorded, flight_recorder.num_missed) == (2, 0)
    assert flight_recorder.num_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_an_image_that_comes_again_is_written_once(tmp_path: Path):
    sizes = []
    for name, numbers in (("same", [0] * 5), ("others", range(5))):
        with FlightRecorder(tmp_path / name, NOBODY) as flight_recorder:
            for number in numbers:
                flight_recorder.exchanged(made_up(number, height=40, width=40))
        sizes.append(flight_recorder.num_bytes)
    one_image = 40 * 40 * 3
    assert sizes[1] - sizes[0] > 4 * 2 * 0.9 * one_image
    (flight,) = FlightLog(tmp_path / "same").flights
    assert all(is_same(exchange, made_up(0, height=40, width=40)) for exchange in flight.exchanges())


def test_files_follow_one_another_and_each_has_its_own_images(tmp_path: Path):
    with FlightRecorder(tmp_path, NOBODY, segment_mb=0.004) as flight_recorder:
        for number in range(20):
            flight_recorder.exchanged(made_up(number % 3, request=str(number)))
    assert len(list(tmp_path.iterdir())) >= 4
    (flight,) = FlightLog(tmp_path).flights
    assert [exchange.request for exchange in flight.exchanges()] == [str(number) for number in range(20)]
    assert all(is_same(one, made_up(one.number, request=one.request)) for one in flight.exchanges())


def test_the_oldest_files_go_where_that_was_asked_for(tmp_path: Path):
    with FlightRecorder(tmp_path, NOBODY, segment_mb=0.004, max_gb=0.000016) as flight_recorder:
        for number in range(60):
            flight_recorder.exchanged(made_up(number))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 16_000
    (flight,) = FlightLog(tmp_path).flights
    kept = recorded_numbers(tmp_path)
    assert not flight.has_beginning
    assert kept == list(range(kept[0], 60))


def test_a_full_backlog_is_a_gap_and_not_a_wait(tmp_path: Path):
    with FlightRecorder(tmp_path, NOBODY, backlog_mb=0.0011) as flight_recorder:
        for number in range(4, 7):
            flight_recorder.exchanged(made_up(number))
        flight_recorder.moved("one", telemetry(ticks=900))
    (flight,) = FlightLog(tmp_path).flights
    (gap,) = flight.events()
    assert isinstance(gap, Gap)
    assert (gap.num_exchanges, gap.num_others, gap.first, gap.last, gap.sessions) == (3, 1, 4, 6, ("one",))
    assert (flight_recorder.num_recorded, flight_recorder.num_missed) == (0, 3)


def test_a_full_disk_is_a_gap_and_the_flight_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    append, refused = SegmentWriter.append, [True]

    def sometimes(self: SegmentWriter, payload: bytes) -> int:
        if refused[0]:
            raise OSError(28, "No space left on device")
        return append(self, payload)

    monkeypatch.setattr(recorder, "RETRY_S", 0.0)
    monkeypatch.setattr(recorder, "SYNC_S", 0.01)
    refused[0] = False
    with FlightRecorder(tmp_path, NOBODY) as flight_recorder:
        monkeypatch.setattr(SegmentWriter, "append", sometimes)
        flight_recorder.exchanged(made_up(0))
        wait_for(lambda: flight_recorder.num_recorded == 1)
        refused[0] = True
        flight_recorder.exchanged(made_up(1))
        flight_recorder.exchanged(made_up(2))
        wait_for(lambda: flight_recorder.num_missed == 2)
        refused[0] = False
        flight_recorder.exchanged(made_up(3))
    (flight,) = FlightLog(tmp_path).flights
    first, gap, last = flight.events()
    assert is_same(first, made_up(0))
    assert is_same(last, made_up(3))
    assert isinstance(gap, Gap)
    assert (gap.num_exchanges, gap.first, gap.last, gap.reason) == (2, 1, 2, recorder.DISK_REFUSES)


def test_what_has_no_form_is_counted_and_harms_no_other(tmp_path: Path):
    question = made_up(1).question
    odd = made_up(1).question.observation
    floating = type(odd)(images={"front": np.zeros((2, 2, 3))}, state=odd.state, instruction="")
    with FlightRecorder(tmp_path, NOBODY) as flight_recorder:
        flight_recorder.exchanged(made_up(0))
        flight_recorder.exchanged(made_up(1, question=type(question)(**{**vars(question), "observation": floating})))
        flight_recorder.exchanged(made_up(2))
    (flight,) = FlightLog(tmp_path).flights
    first, gap, last = flight.events()
    assert isinstance(gap, Gap)
    assert (gap.first, gap.reason) == (1, recorder.UNWRITABLE)
    assert is_same([first, last][0], made_up(0))
    assert is_same(last, made_up(2))


def test_every_run_of_a_server_is_a_flight(tmp_path: Path):
    for number in range(3):
        with FlightRecorder(tmp_path, NOBODY) as flight_recorder:
            flight_recorder.exchanged(made_up(number))
    flights = FlightLog(tmp_path).flights
    assert [[one.number for one in flight.exchanges()] for flight in flights] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"segment_mb": 0}, "positive"), ({"backlog_mb": -1}, "positive"), ({"max_gb": 0.1}, "two segments")],
)
def test_sizes_that_make_no_sense_are_refused(tmp_path: Path, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        FlightRecorder(tmp_path, NOBODY, **options)


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write"), FlightRecorder(tmp_path / "file" / "flights", NOBODY):
        pass


def fly(folder: Path, count: int = 12) -> list[Path]:
    """A flight of several files."""
    with FlightRecorder(folder, NOBODY, segment_mb=0.004) as flight_recorder:
        for number in range(count):
            flight_recorder.exchanged(made_up(number))
    return sorted(folder.iterdir())


def test_no_log_is_said(tmp_path: Path):
    with pytest.raises(FlightLogError, match="no flight log"):
        FlightLog(tmp_path)
    with pytest.raises(FlightLogError, match="no flight log"):
        FlightLog(tmp_path / "nowhere")


def test_a_file_that_is_missing_between_others_is_said(tmp_path: Path):
    fly(tmp_path)[1].unlink()
    with pytest.raises(FlightLogError, match=r"000002\.flight.*missing"):
        FlightLog(tmp_path)


def test_a_file_that_was_cut_between_others_is_damage(tmp_path: Path):
    path = fly(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:-3])
    (flight,) = FlightLog(tmp_path).flights
    with pytest.raises(FlightLogError, match=r"000001\.flight, byte \d+: the file ends within a record"):
        list(flight.events())


def test_the_last_file_cut_anywhere_gives_the_whole_events_before(tmp_path: Path):
    with FlightRecorder(tmp_path, NOBODY) as flight_recorder:
        for number in range(3):
            flight_recorder.exchanged(made_up(number, height=2, width=2))
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    records = list(read_segment(path))
    ends = [record.offset + HEADER_BYTES + len(record.payload) for record in records]
    exchanges = [end for end, record in zip(ends, records, strict=True) if b"\xa8exchange" in record.payload]
    assert len(exchanges) == 3
    near_ends = {end + step for end in ends[:-1] for step in (0, 1, HEADER_BYTES, -1) if end + step >= ends[0]}
    for size in sorted({*range(ends[0], len(data), 23), *near_ends}):
        path.write_bytes(data[:size])
        (flight,) = FlightLog(tmp_path).flights
        assert [one.number for one in flight.exchanges()] == list(range(sum(end <= size for end in exchanges)))
        assert (flight.torn is None) == (size in ends)
        assert not flight.is_closed


def test_a_server_stopped_before_its_first_record_left_nothing(tmp_path: Path):
    fly(tmp_path)
    for name, data in (("000100.flight", b""), ("000101.flight", MAGIC[:5]), ("000102.flight", MAGIC)):
        (tmp_path / name).write_bytes(data)
    assert len(FlightLog(tmp_path).flights) == 1


@settings(max_examples=30)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_taken_for_an_exchange(tmp_path_factory: pytest.TempPathFactory, place: float, bit: int):
    folder = tmp_path_factory.mktemp("flights")
    (path,) = fly(folder, count=1)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(FlightLogError, match=r"000000\.flight"):
        [list(flight.events()) for flight in FlightLog(folder).flights]


KILLED = """
import sys
import time
sys.path.insert(0, sys.argv[2])
from made_up_flights import NOBODY, made_up
from molmoact2.serving.flight import FlightRecorder
with FlightRecorder(sys.argv[1], NOBODY, segment_mb=0.2) as recorder:
    number, said = 0, 0
    while True:
        if number - recorder.num_recorded < 20:
            recorder.exchanged(made_up(number, height=30, width=30))
            number += 1
        if recorder.num_recorded > said:
            said = recorder.num_recorded
            print(said, flush=True)
        time.sleep(0.0005)
"""


@pytest.mark.parametrize("patience", [1, 40])
def test_what_was_recorded_survives_kill_9(tmp_path: Path, patience: int):
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = 0
        for _ in range(patience):
            said = int(server.stdout.readline())
        server.send_signal(signal.SIGKILL)
    numbers = recorded_numbers(tmp_path)
    (flight,) = FlightLog(tmp_path).flights
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= said
    assert not flight.is_closed
    assert all(is_same(one, made_up(one.number, height=30, width=30)) for one in flight.exchanges())


def wait_for(holds) -> None:
    """Return when something holds; fail when it does not for long."""
    for _ in range(3000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen in time")
