"""A flight that a server recorded comes out the same to the bit, and what does not is found."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from live_server import LiveServer, live_server
from made_up_flights import is_same

from molmoact2.cli.main import run
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.inference import load_policy
from molmoact2.serving.exchange import Exchange
from molmoact2.serving.flight import FlightLog, FlightRecorder, identify
from molmoact2.serving.flight.events import gap_of
from molmoact2.serving.flight.replay import FORGOTTEN, INCOMPLETE, batches, replay
from molmoact2.testing import fake_observation, tiny_checkpoint
from molmoact2.types import Observation
from molmoact2.wire.messages import Ask, Reset

NUM_ROBOTS = 2
NUM_LOOKS = 4
COUNT = NUM_ROBOTS * NUM_LOOKS


def look(seed: int) -> Observation:
    """A grey scene in which something small is elsewhere at every look."""
    images = {name: np.full((64, 64, 3), 90, np.uint8) for name in ("front", "wrist")}
    for image in images.values():
        image[7 * (seed % 8) :, 20:28] = 220
    return replace(fake_observation(seed=seed), images=images)


def fly(checkpoint: str, folder: Path, **options: object) -> None:
    """Record robots that ask at the same time, each with a reset in the middle."""
    policy = load_policy(checkpoint)
    with (
        FlightRecorder(folder, identify(policy, checkpoint)) as recorder,
        live_server(policy, watchers=[recorder]) as server,
        ThreadPoolExecutor(NUM_ROBOTS) as robots,
    ):
        list(robots.map(lambda robot: drive(server, robot, options), range(NUM_ROBOTS)))


def drive(server: LiveServer, number: int, options: dict) -> None:
    """One robot's episodes."""
    with server.robot() as robot:
        for step in range(NUM_LOOKS):
            if step == 2:
                robot.say(Reset(seed=number))
            robot.ask(Ask(id=step, observation=look(10 * number + step), observed_at=float(step), **options))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("policies") / "tiny")


@pytest.fixture(scope="module")
def recorded(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flights") / "tiny"
    fly(str(checkpoint), folder)
    return folder


@pytest.fixture(scope="module")
def thoughtful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flights") / "think"
    fly("nano-think", folder, think=True)
    return folder


def rewritten(folder: Path, to: Path, change: Callable[[Exchange], Exchange | None]) -> Path:
    """The log with other exchanges in it; one that becomes None is missing, and counted as such."""
    (flight,) = FlightLog(folder).flights
    with FlightRecorder(to, flight.policy) as recorder:
        for event in flight.events():
            if isinstance(event, Exchange):
                changed = change(event)
                if changed is None:
                    recorder._backlog.miss(gap_of(event, "it was taken out"))
                else:
                    recorder.exchanged(changed)
    return to


def test_every_answer_is_the_same_to_the_bit(recorded: Path, capsys: pytest.CaptureFixture[str]):
    run("replay", str(recorded))
    assert f"{COUNT} of {COUNT} answers are the same to the bit" in capsys.readouterr().out


def test_thoughts_and_memories_are_the_same_too(thoughtful: Path):
    (flight,) = FlightLog(thoughtful).flights
    answers = list(replay(flight, load_policy("nano-think")))
    assert len(answers) == COUNT
    assert all(answer.is_same and answer.doubt is None for answer in answers)
    chunks = [answer.exchange.chunk for answer in answers]
    kept = [chunk.depth.changed.mean() for chunk in chunks if chunk is not None and chunk.depth is not None]
    assert min(kept) < 1, "no answer depended on what its session remembered"
    assert {one.episode for one in flight.exchanges()} == {0, 1}


def test_exchanges_that_were_together_are_asked_together(recorded: Path):
    (flight,) = FlightLog(recorded).flights
    found = list(batches(flight))
    assert all(isinstance(batch, list) and len(batch) == batch[0].together for batch in found)
    assert sum(map(len, found)) == COUNT  # pyright: ignore[reportArgumentType]


def test_one_action_that_was_changed_is_found(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def tamper(exchange: Exchange) -> Exchange:
        if exchange.number != 5 or exchange.chunk is None:
            return exchange
        actions = exchange.chunk.actions.copy()
        actions[2, 3] = np.nextafter(actions[2, 3], np.float32(np.inf))
        return replace(exchange, chunk=replace(exchange.chunk, actions=actions))

    with pytest.raises(SystemExit) as end:
        run("replay", str(rewritten(recorded, tmp_path, tamper)))
    assert end.value.code == 1
    said = capsys.readouterr().out
    assert f"{COUNT - 1} of {COUNT}" in said
    assert "answer 5 of session" in said
    assert "1 numbers, the first in row 2, joint 3" in said


def test_another_thought_is_found(thoughtful: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def tamper(exchange: Exchange) -> Exchange:
        if exchange.number != 2 or exchange.chunk is None or exchange.chunk.depth is None:
            return exchange
        depth = replace(exchange.chunk.depth, codes=exchange.chunk.depth.codes[::-1].copy())
        return replace(exchange, chunk=replace(exchange.chunk, depth=depth))

    with pytest.raises(SystemExit):
        run("replay", str(rewritten(thoughtful, tmp_path, tamper)))
    assert "the depth map is not" in capsys.readouterr().out


@pytest.mark.slow
def test_what_depends_on_a_gap_is_in_doubt_until_the_next_episode(thoughtful: Path, tmp_path: Path):
    (whole,) = FlightLog(thoughtful).flights
    lost = next(one for one in whole.exchanges() if one.number >= 1)
    log = rewritten(thoughtful, tmp_path, lambda one: None if one.number == lost.number else one)
    (flight,) = FlightLog(log).flights
    for answer in replay(flight, load_policy("nano-think")):
        exchange = answer.exchange
        is_later = exchange.number > lost.number
        follows = is_later and (exchange.session, exchange.episode) == (lost.session, lost.episode)
        together = exchange.batch == lost.batch
        assert answer.is_same or answer.doubt is not None
        assert (answer.doubt == FORGOTTEN) >= follows
        if together and not follows:
            assert answer.doubt in (INCOMPLETE, FORGOTTEN)


@pytest.mark.slow
def test_a_flight_without_its_beginning_is_in_doubt_where_it_thinks(thoughtful: Path, recorded: Path):
    for folder, doubts in ((thoughtful, {FORGOTTEN, None}), (recorded, {None})):
        (flight,) = FlightLog(folder).flights
        cut = replace(flight, has_beginning=False)
        found = {answer.doubt for answer in replay(cut, load_policy(flight.policy.name))}
        assert found == doubts


def test_one_session_can_be_reported_on(recorded: Path, capsys: pytest.CaptureFixture[str]):
    (flight,) = FlightLog(recorded).flights
    session = next(flight.exchanges()).session
    run("replay", str(recorded), "--session", session)
    assert f"{NUM_LOOKS} of {NUM_LOOKS} answers" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no answers of session nobody"):
        run("replay", str(recorded), "--session", "nobody")


def test_another_checkpoint_is_compared(
    recorded: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other, page = tiny_checkpoint(tmp_path / "other", seed=1), tmp_path / "replay.html"
    run("replay", str(recorded), "--policy", str(other), "--html", str(page))
    said = capsys.readouterr().out
    assert "shoulder_pan" in said
    text = page.read_text()
    assert text.count("<img") == 6 * 2
    assert "http" not in text.replace("http://www.w3.org", "")
    run("replay", str(recorded), "--policy", str(shutil.copytree(checkpoint, tmp_path / "copy")))
    assert "the same to the bit" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_think_is_asked_without(thoughtful: Path, capsys: pytest.CaptureFixture[str]):
    run("replay", str(thoughtful), "--policy", "nano-so101")
    assert "Difference for so101_tabletop" in capsys.readouterr().out


def test_a_checkpoint_of_another_robot_is_refused(recorded: Path, tmp_path: Path):
    other = tiny_checkpoint(tmp_path / "droid", embodiments=(EMBODIMENTS["franka_droid"],))
    with pytest.raises(ValueError, match=r"Unknown embodiment 'so101_tabletop'"):
        run("replay", str(recorded), "--policy", str(other))


def test_a_checkpoint_that_changed_or_went_is_refused(checkpoint: Path, tmp_path: Path):
    mine = shutil.copytree(checkpoint, tmp_path / "mine")
    policy = load_policy(mine)
    with FlightRecorder(tmp_path / "flights", identify(policy, str(mine))):
        pass
    (mine / "notes.txt").write_text("one more file")
    with pytest.raises(ValueError, match="is not what it was"):
        run("replay", str(tmp_path / "flights"))
    shutil.rmtree(mine)
    with pytest.raises(ValueError, match=r"is not there.*--policy"):
        run("replay", str(tmp_path / "flights"))


@pytest.mark.parametrize(("flight", "message"), [("3", "1 flights"), ("-2", "1 flights")])
def test_a_flight_that_is_not_there_is_refused(recorded: Path, flight: str, message: str):
    with pytest.raises(ValueError, match=message):
        run("replay", str(recorded), f"--flight={flight}")


def test_rewriting_a_log_changes_nothing(recorded: Path, tmp_path: Path):
    (before,), (after,) = FlightLog(recorded).flights, FlightLog(rewritten(recorded, tmp_path, lambda one: one)).flights
    assert all(is_same(one, other) for one, other in zip(before.exchanges(), after.exchanges(), strict=True))
