"""The loop, over a robot that pretends and a clock that nobody waits for."""

import numpy as np
import pytest

from molmoact2.control.back_off import BackOff
from molmoact2.control.clock import VirtualClock, WallClock
from molmoact2.control.guard import Mode
from molmoact2.control.plan import Trouble
from molmoact2.control.planners import LocalPlanner, PunctualPlanner
from molmoact2.robots.dry_run import DryRun, DryRunSettings
from molmoact2.robots.faults import LostPlans, Unplugged
from molmoact2.types import NoActionError
from molmoact2.wire.messages import Control
from swinging import HZ, Diary, back_to_swing, make_loop, pose, punctual, swing, until


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def robot(clock: VirtualClock) -> DryRun:
    return DryRun(DryRunSettings(lag_s=0.0, image_width=32, image_height=32), clock, pose(0.0).astype(np.float32))


def is_still(diary: Diary, last: int = 5) -> bool:
    states = [tick.reading.state for tick in diary.ticks[-last:] if tick.reading]
    return len(states) == last and bool((np.ptp(states, axis=0) == 0).all())


def test_without_latency_every_row_is_executed_when_it_is_due(robot: DryRun, clock: VirtualClock):
    diary = Diary()
    reason = make_loop(robot, punctual(clock, 0.0), diary).run("swing", until(clock, 3.0))
    assert reason == "time is up"
    for tick in diary.ticks[:-3]:
        assert tick.verdict.command == pytest.approx(pose(tick.time_s), abs=1e-3)
    assert [tick.time_s for tick in diary.ticks] == pytest.approx([n / HZ for n in range(len(diary.ticks))])
    assert not any(tick.is_late for tick in diary.ticks)


@pytest.mark.parametrize("latency_s", [0.1, 0.21, 0.4])
def test_latency_delays_the_first_motion_and_no_other(robot: DryRun, clock: VirtualClock, latency_s: float):
    diary = Diary()
    make_loop(robot, punctual(clock, latency_s), diary).run("swing", until(clock, 4.0))
    moving = [tick for tick in diary.ticks if tick.wanted is not None]
    assert moving[0].time_s == pytest.approx(np.ceil(latency_s * HZ - 1e-9) / HZ)
    assert np.allclose(np.diff([tick.time_s for tick in moving]), 1 / HZ), "no gap between plans"
    # The first plan begins when it arrives; from the second on, rows are due when they were made for.
    settled = [tick for tick in moving if tick.time_s > diary.plans[1].arrived_at_s + 0.3]
    for tick in settled[:-3]:
        assert tick.wanted == pytest.approx(pose(tick.time_s), abs=0.3)


def test_a_request_says_what_will_be_executed_meanwhile(robot: DryRun, clock: VirtualClock):
    diary = Diary()
    make_loop(robot, punctual(clock, 0.2), diary).run("swing", until(clock, 3.0))
    first, *others = diary.requests
    assert first.remaining.shape == (0, 6)
    assert first.delay == 0
    for request in others[1:]:
        assert request.delay == 3
        due = [pose(request.observed_at_s + row / HZ) for row in range(len(request.remaining))]
        assert np.allclose(request.remaining, due, atol=0.5)
    assert [request.sequence for request in diary.requests] == list(range(len(diary.requests)))


def test_ends_at_rest_and_held(robot: DryRun, clock: VirtualClock):
    diary = Diary()
    loop = make_loop(robot, punctual(clock), diary)
    loop.run("swing", until(clock, 1.0))
    assert loop.guard.stopping_time_s == 0
    before = robot.read().state
    clock.sleep_until(clock.now() + 1)
    assert np.array_equal(robot.read().state, before)


def test_ctrl_c_holds(robot: DryRun, clock: VirtualClock):
    def interrupted() -> str | None:
        if clock.now() > 1.0:
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        make_loop(robot, punctual(clock), Diary()).run("swing", interrupted)
    before = robot.read().state
    clock.sleep_until(clock.now() + 1)
    assert np.array_equal(robot.read().state, before)


def test_shadow_commands_nothing(robot: DryRun, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch):
    for forbidden in ("command", "hold"):
        monkeypatch.setattr(DryRun, forbidden, lambda *_: pytest.fail("a robot in shadow was commanded"))
    diary = Diary()
    make_loop(robot, punctual(clock), diary, mode=Mode.SHADOW).run("swing", until(clock, 1.0))
    assert any(tick.verdict.proposal is not None for tick in diary.ticks)
    assert len(diary.plans) > 0


def test_operators_hold_resume_and_stop(robot: DryRun, clock: VirtualClock):
    schedule = [(1.0, Control(command="hold")), (2.0, Control(command="resume")), (4.0, Control(command="stop"))]

    def wishes() -> list[Control]:
        due = [wish for time_s, wish in schedule if time_s <= clock.now()]
        schedule[:] = schedule[len(due) :]
        return due

    diary = Diary()
    reason = make_loop(robot, punctual(clock), diary, wishes=wishes).run("swing")
    assert reason == "stopped by the operator"
    held = [tick for tick in diary.ticks if 1.3 < tick.time_s < 2.0]
    assert held
    assert all(tick.waits_for_resume and tick.wanted is None for tick in held)
    assert len({tuple(tick.verdict.command) for tick in held if tick.verdict.command is not None}) == 1
    assert not any(1.0 <= request.observed_at_s < 2.0 for request in diary.requests), "nobody plans while it is held"
    assert any(2.2 < tick.time_s < 4.0 and tick.wanted is not None for tick in diary.ticks)


def test_a_new_instruction_is_asked_about_at_once(robot: DryRun, clock: VirtualClock):
    wishes = [Control(instruction="stop swinging")]

    def late() -> list[Control]:
        return [wishes.pop()] if wishes and clock.now() > 0.9 else []

    diary = Diary()
    make_loop(robot, punctual(clock, 0.0), diary, wishes=late).run("swing", until(clock, 1.2))
    texts = {request.observation.instruction for request in diary.requests if request.observed_at_s > 0.9}
    assert texts == {"stop swinging"}
    assert "stop swinging" in diary.text
    assert all(plan.observed_at_s > 0.9 for plan in diary.plans if plan.arrived_at_s > 1.0)


def test_asks_again_less_and_less_often(robot: DryRun, clock: VirtualClock):
    def nothing(_request: object):
        raise NoActionError("it says nothing")

    diary = Diary()
    planner = PunctualPlanner(nothing, clock, period_s=1 / HZ)
    make_loop(robot, planner, diary).run("swing", until(clock, 10.0))
    gaps = np.diff([request.observed_at_s for request in diary.requests])
    assert 4 < len(gaps) < 15
    assert gaps[-1] == pytest.approx(2.0)
    assert diary.text.count("it says nothing") == 1, "said once"
    assert is_still(diary)


def test_a_planner_that_cannot_go_on_ends_the_run(robot: DryRun, clock: VirtualClock):
    def unable(_request: object):
        raise ValueError("a camera is missing")

    diary = Diary()
    planner = PunctualPlanner(unable, clock, period_s=1 / HZ)
    reason = make_loop(robot, planner, diary).run("swing", until(clock, 5.0))
    assert "a camera is missing" in reason
    assert clock.now() < 1.0


def test_goes_on_after_a_lost_answer(robot: DryRun, clock: VirtualClock):
    diary = Diary()
    planner = LostPlans(punctual(clock, answer=back_to_swing), clock, lambda sequence: sequence == 2, timeout_s=1.0)
    make_loop(robot, planner, diary).run("swing", until(clock, 6.0))
    assert "there was no answer within 1 s" in diary.text
    assert diary.ticks[-5].wanted is not None
    assert 2 not in {plan.sequence for plan in diary.plans}


def test_holds_while_the_robot_does_not_answer_and_goes_on_after(robot: DryRun, clock: VirtualClock):
    diary = Diary()
    make_loop(Unplugged(robot, from_s=1.0, to_s=2.0), punctual(clock, answer=back_to_swing), diary).run(
        "swing", until(clock, 4.0)
    )
    silent = [tick for tick in diary.ticks if tick.reading is None]
    assert len(silent) == pytest.approx(HZ, abs=1)
    assert "the cable is unplugged" in diary.text
    assert any(tick.wanted is not None for tick in diary.ticks[-10:])


def test_late_turns_are_counted_and_commands_left_out(robot: DryRun, clock: VirtualClock):
    class Sleepy(Diary):
        def ticked(self, tick, /) -> None:
            super().ticked(tick)
            if 0.99 < tick.time_s < 1.05:
                clock.sleep_until(clock.now() + 0.25)

    diary = Sleepy()
    make_loop(robot, punctual(clock), diary).run("swing", until(clock, 2.0))
    assert sum(tick.is_late for tick in diary.ticks) == 1
    gaps = np.diff([tick.time_s for tick in diary.ticks])
    assert max(gaps) == pytest.approx(4 / HZ), "and the beat is kept"


def test_waits_out_its_back_off():
    back_off = BackOff(first_s=1.0, longest_s=3.0)
    moments = []
    for _ in range(4):
        back_off.failed(10.0)
        moments.append(back_off.not_before_s - 10.0)
    assert moments == [1.0, 2.0, 3.0, 3.0]
    back_off.succeeded()
    assert back_off.not_before_s == 0.0


def finished(planner: LocalPlanner) -> list:
    """What a planner in a thread says, waited for."""
    assert planner.pending is not None
    planner.pending[1].exception()
    return list(planner.poll())


def test_a_planner_beside_the_loop_says_what_it_said_to(robot: DryRun):
    diary, clock = Diary(), VirtualClock()
    make_loop(robot, punctual(clock), diary)
    request = a_request()
    planner = LocalPlanner(swing, WallClock(), period_s=1 / HZ)
    assert planner.is_free
    planner.ask(request)
    assert not planner.is_free
    (plan,) = finished(planner)
    assert planner.is_free
    assert np.array_equal(plan.actions, swing(request).actions)
    assert (plan.observed_at_s, plan.sequence) == (request.observed_at_s, request.sequence)
    planner.close()


def test_a_planner_holds_plans_back_as_long_as_it_is_told(clock: VirtualClock):
    planner = LocalPlanner(swing, clock, period_s=1 / HZ, added_latency_s=0.5)
    planner.ask(a_request())
    assert finished(planner) == []
    clock.sleep_until(0.49)
    assert planner.poll() == ()
    clock.sleep_until(0.5)
    assert len(planner.poll()) == 1
    planner.close()


@pytest.mark.parametrize(("error", "is_final"), [(NoActionError("x"), False), (ValueError("x"), True)])
def test_a_planner_says_what_went_wrong(error: Exception, is_final: bool):
    def broken(_request: object):
        raise error

    planner = LocalPlanner(broken, WallClock(), period_s=1 / HZ)
    planner.ask(a_request())
    (trouble,) = finished(planner)
    assert isinstance(trouble, Trouble)
    assert trouble.is_final is is_final
    assert trouble.sequence == 7
    planner.close()


def a_request():
    """One that is not the first."""
    from molmoact2.control.plan import PlanRequest
    from molmoact2.types import Observation

    observation = Observation(images={}, state=np.zeros(6, np.float32), instruction="swing")
    return PlanRequest(
        observation=observation, observed_at_s=0.25, sequence=7, remaining=np.zeros((0, 6), np.float32), delay=0
    )


def test_clocks():
    virtual = VirtualClock()
    virtual.sleep_until(2.0)
    virtual.sleep_until(1.0)
    assert virtual.now() == 2.0
    wall = WallClock()
    wall.sleep_until(wall.now() + 0.01)
    assert wall.now() >= 0.01
