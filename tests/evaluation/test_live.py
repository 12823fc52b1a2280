"""A live run from its robot to its summary, with a robot that pretends and a clock that nobody waits for."""

import contextlib
import io
import os
import pty
import termios
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from molmoact2.control.clock import VirtualClock
from molmoact2.control.guard import Guard, Mode
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Reading
from molmoact2.control.strategies import make_strategy
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.writer import DatasetWriter
from molmoact2.evaluation.live import LiveRun, OpenStage, Scene
from molmoact2.evaluation.live_counts import Counts
from molmoact2.evaluation.live_display import Printer, Screen, bar
from molmoact2.evaluation.live_keys import Operator, open_terminal
from molmoact2.evaluation.live_planners import PlannerSource, rows_per_plan
from molmoact2.evaluation.live_recording import EpisodeRecorder, open_dataset
from molmoact2.evaluation.live_summary import episode_sentence, summary_lines
from molmoact2.evaluation.live_telemetry import Reporter
from molmoact2.evaluation.live_watching import Watching, watched_run
from molmoact2.robots.dry_run import DryRun, DryRunSettings
from molmoact2.robots.faults import RobotInTrouble
from molmoact2.wire.codec import decode, encode
from molmoact2.wire.limits import Limits
from molmoact2.wire.messages import Control, RobotCard, Telemetry
from swinging import HZ, Diary, back_to_swing, make_loop, pose, punctual, until


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def robot(clock: VirtualClock) -> DryRun:
    return DryRun(DryRunSettings(lag_s=0.02, image_width=32, image_height=24), clock, pose(0.0).astype(np.float32))


@pytest.fixture
def card() -> RobotCard:
    return RobotCard(
        tag="so101_tabletop",
        cameras=("front", "wrist"),
        state_names=(),
        action_names=(),
        action_units=(),
        control_hz=HZ,
        action_horizon=16,
        n_action_steps=12,
        setup="",
        control_mode="",
        normalization="",
        state_statistics={},
        action_statistics={},
    )


class Dashboard:
    """What a server hears, and what somebody at its dashboard wants."""

    def __init__(self) -> None:
        self.heard: list[Telemetry] = []
        self.wanted: list[Control] = []

    def wishes(self) -> list[Control]:
        wanted, self.wanted = self.wanted, []
        return wanted


@pytest.fixture
def dashboard() -> Dashboard:
    return Dashboard()


@pytest.fixture
def source(clock: VirtualClock, card: RobotCard, dashboard: Dashboard) -> PlannerSource:
    return PlannerSource(
        label="swinger",
        card=card,
        rows_per_plan=12,
        start=lambda _seed: punctual(clock, answer=back_to_swing),
        wishes=dashboard.wishes,
        report=dashboard.heard.append,
    )


@contextmanager
def opened(robot: DryRun, source: PlannerSource, watching: Watching, *, seconds: float | None = 2.0):
    """A run of a robot that is not judged."""
    guard = Guard(MotionLimits.of(robot.embodiment), mode=Mode.FULL)
    stage, console = OpenStage(robot, "swing", seconds), Console(file=io.StringIO())
    with watched_run(robot, stage, source, make_strategy("replan"), lambda: guard, watching, console) as run:
        yield run


def typed(run: LiveRun, schedule: dict[float, str]) -> LiveRun:
    """The same run, with somebody who presses keys at these moments."""

    def keys() -> str:
        due = [moment for moment in schedule if moment <= run.robot.clock.now()]
        return "".join(schedule.pop(moment) for moment in due)

    return replace(run, keys=keys)


def test_notes_what_happened(robot: DryRun, source: PlannerSource, dashboard: Dashboard):
    with opened(robot, source, Watching()) as run:
        (record,) = run.episodes([Scene(seed=3)])
    assert record["failure"] == "out of time"
    assert record["seed"] == 3
    assert record["plans"] == pytest.approx(2.0 * HZ / 7, abs=2)
    assert record["latency_s"] == pytest.approx(0.1)
    assert record["plan_age_s"] > 0.1
    assert record["dropped"] == record["late_ticks"] == 0
    lines = "\n".join([episode_sentence(record), *summary_lines([record, record])])
    assert "0 of 2, 0% (0-66)" in lines
    executed = np.concatenate([telemetry.executed for telemetry in dashboard.heard])
    assert len(executed) == pytest.approx(2.0 * HZ, abs=4)
    assert all(t.executed.shape == t.measured.shape == (len(t.times), 6) for t in dashboard.heard)
    assert np.all(np.diff(np.concatenate([telemetry.times for telemetry in dashboard.heard])) > 0)


def test_keys_judge_episodes_and_end_the_run(robot: DryRun, source: PlannerSource):
    with opened(robot, source, Watching(), seconds=None) as run:
        records = list(typed(run, {1.0: "s", 2.5: "f", 4.0: "q"}).episodes([Scene()] * 9))
    assert [(r["success"], r["failure"]) for r in records] == [
        (True, None),
        (False, "failed, says the operator"),
        (False, "stopped by the operator"),
    ]


def test_space_holds_and_resumes_and_an_instruction_is_typed(robot: DryRun, source: PlannerSource):
    with opened(robot, source, Watching(), seconds=6.0) as run:
        watched = typed(run, {1.0: " ", 2.0: " ", 3.0: "ifast", 3.5: "er\x7f\x7fq\r"})
        (record,) = watched.episodes([Scene()])
    assert "The operator holds the arm." in record["notes"]
    assert record["instruction"] == "fastq", "a letter of an instruction is no key"
    assert record["failure"] == "out of time"


def test_somebody_at_the_dashboard_stops_the_run(robot: DryRun, source: PlannerSource, dashboard: Dashboard):
    dashboard.wanted = [Control(command="stop")]
    with opened(robot, source, Watching(), seconds=None) as run:
        records = list(run.episodes([Scene()] * 3))
    assert [record["failure"] for record in records] == ["stopped by the operator"]


def test_records_what_was_commanded_and_measured(robot: DryRun, source: PlannerSource, tmp_path: Path):
    watching = Watching(record=tmp_path / "data")
    with opened(robot, source, watching, seconds=None) as run:
        list(typed(run, {2.0: "s", 4.0: "f", 6.0: "s", 7.0: "q"}).episodes([Scene()] * 9))
    dataset = LeRobotDataset(tmp_path / "data")
    assert len(set(dataset.episode_ends.tolist())) == 2, "failed and aborted episodes are left out"
    episode = dataset.episode(0)
    assert len(episode.action) == pytest.approx(2 * HZ, abs=3)
    assert episode.task == "swing"
    assert episode.images["front"].shape == (len(episode.action), 24, 32, 3)
    assert bool(episode.extras["success"].all())
    moved = episode.state[5:] - episode.state[:-5]
    assert np.abs(moved).max() > 5
    behind = episode.state[1:] - episode.action[:-1]
    assert np.abs(behind).max() < 10, "what is measured follows what was commanded one frame before"


def test_keeps_everything_if_asked_and_goes_on_with_a_dataset(robot: DryRun, source: PlannerSource, tmp_path: Path):
    watching = Watching(record=tmp_path, keep_all=True)
    for _ in range(2):
        with opened(robot, source, watching, seconds=1.0) as run:
            list(run.episodes([Scene()]))
    dataset = LeRobotDataset(tmp_path)
    assert len(set(dataset.episode_ends.tolist())) == 2
    assert not dataset.episode(1).extras["success"].any()


def test_an_episode_that_begins_held_waits_for_a_person(robot: DryRun, source: PlannerSource, tmp_path: Path):
    with opened(robot, source, Watching(record=tmp_path), seconds=None) as run:
        waiting = replace(run, stage=OpenStage(robot, "swing", None, begins_held=True))
        schedule = {2.0: " ", 3.0: "s", 5.0: " ", 6.0: "s", 6.5: "q"}
        first, second, _ = typed(waiting, schedule).episodes([Scene()] * 9)
    assert first["seconds"] == pytest.approx(3.0, abs=0.3)
    assert first["plans"] < 4, "nothing is planned before a person resumes it"
    assert second["success"]
    dataset = LeRobotDataset(tmp_path)
    for episode in range(2):
        assert len(dataset.episode(episode).action) == pytest.approx(HZ, abs=4), "what was held is left out"


def test_a_dataset_of_another_robot_is_refused(robot: DryRun, clock: VirtualClock, tmp_path: Path):
    open_dataset(tmp_path, robot).finalize()
    other = DryRun(DryRunSettings(image_width=64, image_height=48), clock)
    with pytest.raises(ValueError, match="episodes of another robot or of other cameras"):
        open_dataset(tmp_path, other)


def test_an_episode_begins_where_its_instruction_does(robot: DryRun, source: PlannerSource, tmp_path: Path):
    watching = Watching(record=tmp_path)
    with opened(robot, source, watching, seconds=None) as run:
        list(typed(run, {2.0: "inew\r", 3.0: "s", 3.5: "q"}).episodes([Scene()] * 2))
    episode = LeRobotDataset(tmp_path).episode(0)
    assert episode.task == "new"
    assert len(episode.action) == pytest.approx(HZ, abs=3)


def test_an_interrupted_episode_leaves_a_whole_dataset(robot: DryRun, source: PlannerSource, tmp_path: Path):
    def interrupting() -> str:
        if robot.clock.now() > 3.0:
            raise KeyboardInterrupt
        return "s" if 1.0 < robot.clock.now() < 1.1 else ""

    with (
        pytest.raises(KeyboardInterrupt),
        opened(robot, source, Watching(record=tmp_path), seconds=None) as run,
    ):
        list(replace(run, keys=interrupting).episodes([Scene()] * 9))
    assert len(set(LeRobotDataset(tmp_path).episode_ends.tolist())) == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("tmp")]
    with DatasetWriter.resume(tmp_path) as writer:
        assert writer.num_episodes == 1


def test_frames_wait_on_disk_and_are_gone_with_their_episode(robot: DryRun, source: PlannerSource, tmp_path: Path):
    recorder = EpisodeRecorder(HZ, tmp_path)
    guard = Guard(MotionLimits.of(robot.embodiment), mode=Mode.FULL)
    run = LiveRun(
        robot=robot,
        stage=OpenStage(robot, "swing", 1.0),
        source=source,
        strategy=make_strategy("replan"),
        guard_of_episode=lambda: guard,
        operator=Operator(),
        keys=str,
        observers=[recorder],
    )
    list(run.episodes([Scene()]))
    assert len(recorder.states) == pytest.approx(HZ, abs=3)
    files = list(recorder.files.values())
    recorder.discard()
    assert all(file.closed for file in files)
    assert not recorder.states
    assert not list(tmp_path.iterdir())


def test_rerun_gets_a_recording(robot: DryRun, source: PlannerSource, tmp_path: Path):
    pytest.importorskip("rerun")
    target = tmp_path / "run.rrd"
    with opened(robot, source, Watching(rerun=str(target)), seconds=0.5) as run:
        list(run.episodes([Scene()]))
    assert target.stat().st_size > 1000


def test_rows_before_the_next_plan():
    assert rows_per_plan(12, 16) == 12
    assert rows_per_plan(30, 30) == 22, "some rows are left to bridge a late answer"
    assert rows_per_plan(1, 1) == 1


def test_without_a_terminal_there_are_no_keys():
    with open_terminal(io.StringIO("sq")) as terminal:
        assert terminal.keys() == ""


def test_a_terminal_gives_single_keys_and_gets_its_manners_back():
    master, slave = pty.openpty()
    with os.fdopen(slave, encoding="utf-8") as stream:
        before = termios.tcgetattr(slave)
        with contextlib.suppress(KeyboardInterrupt), open_terminal(stream) as terminal:
            assert terminal.keys() == ""
            assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO)
            found = ""
            for byte in "sq ü".encode():
                os.write(master, bytes([byte]))
                found += terminal.keys()
            assert found == "sq ü"
            raise KeyboardInterrupt
        assert termios.tcgetattr(slave) == before
    os.close(master)


def test_a_screen_shows_joints_plan_notes_and_what_is_typed(robot: DryRun, clock: VirtualClock):
    operator, counts, console = Operator(), Counts(), Console(width=110, record=True, file=io.StringIO())
    loop = make_loop(robot, punctual(clock, answer=back_to_swing), Diary())
    screen = Screen(robot.embodiment, loop.guard.limits.ranges, operator)
    console.print(screen)
    screen.begin("nano, pick 7", counts)
    loop.observers = [counts, screen]
    loop.run("pick up the [red] cube", until(clock, 1.0))
    screen.noted(1.0, "something happened")
    console.print(screen)
    for key in "ipush":
        operator.press(key)
    console.print(screen)
    text = console.export_text()
    for expected in ("nano, pick 7", "pick up the [red] cube", "full", "shoulder_pan", "latency 100 ms", "plans/s"):
        assert expected in text
    assert "1.0 s  something happened" in text
    assert "Escape does not): push_" in text


def test_a_joint_is_drawn_where_it_is():
    assert bar(0.0, 10.0, 0.0, 10.0) == "|" + "·" * 22 + "o"
    assert bar(5.0, 5.0, 0.0, 10.0).count("|") == 1
    assert bar(-99.0, np.nan, 0.0, 10.0)[0] == "|"
    assert "|" not in bar(np.nan, 3.0, 0.0, 10.0)


def test_notes_are_printed_where_there_is_no_terminal():
    file = io.StringIO()
    Printer(Console(file=file)).noted(12.34, "the [arm] holds")
    assert file.getvalue() == "   12.3 s  the [arm] holds\n"


def test_what_cannot_be_sent_is_not(robot: DryRun, clock: VirtualClock):
    """A server takes finite numbers and notes of moderate length; in shadow there are notes alone."""
    sent: list[Telemetry] = []
    reporter = Reporter(sent.append, 6)
    loop = make_loop(robot, punctual(clock), Diary(), mode=Mode.SHADOW)
    loop.observers = [reporter]
    reporter.noted(0.0, "x" * 9999)
    loop.run("swing", until(clock, 1.0))
    assert sent[0].executed.shape == (0, 6)
    full = make_loop(FeelsNothing(robot, from_s=1.5), punctual(clock), Diary())
    full.observers = [reporter]
    full.run("swing", until(clock, 2.0))
    assert sum(len(telemetry.times) for telemetry in sent) > 5
    for telemetry in sent:
        decode(encode(telemetry), Limits())


class FeelsNothing(RobotInTrouble):
    """Joints that are not numbers."""

    def read(self) -> Reading:
        reading = self.robot.read()
        return replace(reading, state=reading.state * np.float32(np.nan if self.is_wrong else 1.0))
