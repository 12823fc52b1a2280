"""Whatever goes wrong, the simulated arm ends holding still within its limits, and somebody was told why.

What is asserted is what MuJoCo's own joints do, not what anybody reads or reports.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from molmoact2.control.clock import VirtualClock
from molmoact2.control.plan import Plan, Planner
from molmoact2.control.robot import Reading, Robot
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs.so101 import So101Env
from molmoact2.robots.faults import (
    FrozenCamera,
    FrozenJoints,
    LatePlans,
    LostPlans,
    RobotInTrouble,
    SpoiltPlans,
    StaleCamera,
    SwappedCameras,
    Unplugged,
)
from molmoact2.robots.simulated import SimulatedSo101
from molmoact2.types import NoActionError
from molmoact2.wire.messages import Control
from swinging import HZ, Diary, back_to_swing, make_loop, pose, punctual, until

STRIKES_S, ENDS_S = 2.0, 6.0
STILL_DEG_PER_S = 1.0
OVERSHOOT = 3.0
"""Degrees or percent that a servo may pass its command by."""


class Watched(SimulatedSo101):
    """The simulated arm, and where its joints truly were at every tick."""

    def __init__(self, environment: So101Env, clock: VirtualClock) -> None:
        super().__init__(environment, clock)
        self.truth: list[np.ndarray] = []
        self.speeds_deg_per_s: list[float] = []

    def command(self, target, /) -> None:
        super().command(target)
        self.truth.append(self.environment.joint_state())
        self.speeds_deg_per_s.append(float(np.degrees(np.abs(self.environment.data.qvel[:5])).max()))


@pytest.fixture(scope="module")
def environment() -> Iterator[So101Env]:
    environment = So101Env(image_size=(64, 64))
    yield environment
    environment.close()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def arm(environment: So101Env, clock: VirtualClock) -> Watched:
    environment.reset(seed=3, task="pick")
    arm = Watched(environment, clock)
    environment.data.qpos[:6] = environment.data.ctrl[:6] = environment.to_radians(pose(0.0))
    environment.forward()
    return arm


def nan_rows(plan: Plan) -> np.ndarray:
    """A plan with one NaN in it, once it has gone wrong."""
    actions = plan.actions.copy()
    actions[3, 1] = np.nan if plan.observed_at_s >= STRIKES_S else actions[3, 1]
    return actions


def far_rows(plan: Plan) -> np.ndarray:
    """A plan to somewhere else, once it has gone wrong."""
    return plan.actions + np.float32(80.0 * (plan.observed_at_s >= STRIKES_S))


def assert_still_and_within_limits(arm: Watched) -> None:
    """When it was told to hold and the servos have had a moment for it, and in range all the way."""
    arm.clock.sleep_until(arm.clock.now() + 0.3)
    arm.read()
    low, high = np.array(SO101_TABLETOP.action_limits).T
    truth = np.array(arm.truth)
    assert (truth >= low - OVERSHOOT).all()
    assert (truth <= high + OVERSHOOT).all()
    assert np.degrees(np.abs(arm.environment.data.qvel[:5])).max() < STILL_DEG_PER_S
    before = arm.environment.joint_state()
    arm.clock.sleep_until(arm.clock.now() + 1.0)
    assert np.abs(arm.read().state - before)[:5].max() < 1.0, "it goes on holding"


def assert_was_moving(arm: Watched) -> None:
    assert max(arm.speeds_deg_per_s[: int(STRIKES_S * HZ)]) > 20


class NotANumber(RobotInTrouble):
    """Joints that cannot be read, and say so in numbers."""

    def read(self) -> Reading:
        reading = self.robot.read()
        return replace(reading, state=reading.state * np.float32(np.nan if self.is_wrong else 1.0))


ROBOTS: dict[str, tuple[Callable[[Robot], Robot], str]] = {
    "frozen front camera": (lambda arm: FrozenCamera(arm, "front", from_s=STRIKES_S), "front"),
    "frozen wrist camera": (lambda arm: FrozenCamera(arm, "wrist", from_s=STRIKES_S), "wrist"),
    "stale camera": (lambda arm: StaleCamera(arm, "wrist", from_s=STRIKES_S), "wrist"),
    "frozen joints": (lambda arm: FrozenJoints(arm, from_s=STRIKES_S), "No joint reading has changed"),
    "swapped cameras": (lambda arm: SwappedCameras(arm, "front", "wrist", from_s=STRIKES_S), "swapped"),
    "joints that are not numbers": (lambda arm: NotANumber(arm, from_s=STRIKES_S), "the joints read [nan"),
    "unplugged": (lambda arm: Unplugged(arm, from_s=STRIKES_S, to_s=1e9), "the cable is unplugged"),
}


@pytest.mark.parametrize("fault", ROBOTS)
def test_a_robot_in_trouble_holds_still(arm: Watched, clock: VirtualClock, fault: str):
    spoil, reason = ROBOTS[fault]
    diary = Diary()
    make_loop(spoil(arm), punctual(clock, answer=back_to_swing), diary).run("swing", until(clock, ENDS_S))
    assert_was_moving(arm)
    assert reason in diary.text
    assert all(tick.wanted is None or tick.verdict.is_holding for tick in diary.ticks[-15:])
    assert_still_and_within_limits(arm)


def dead(planner: Planner, clock: VirtualClock) -> Planner:
    """Nobody answers any more, and the client notices."""
    return LostPlans(planner, clock, lambda _: clock.now() >= STRIKES_S, timeout_s=0.5)


PLANNERS: dict[str, tuple[Callable[[Planner, VirtualClock], Planner], str]] = {
    "dead server": (dead, "there was no answer"),
    "NaN actions": (lambda planner, _clock: SpoiltPlans(planner, nan_rows), "not finite"),
    "wild actions": (lambda planner, _clock: SpoiltPlans(planner, far_rows), "refused"),
    "latency for ever": (
        lambda planner, clock: LatePlans(planner, clock, lambda _: 3.0 * (clock.now() >= STRIKES_S)),
        "all its rows have passed",
    ),
}


@pytest.mark.parametrize("fault", PLANNERS)
def test_without_a_plan_that_may_be_executed_it_holds_still(arm: Watched, clock: VirtualClock, fault: str):
    spoil, reason = PLANNERS[fault]
    diary = Diary()
    planner = spoil(punctual(clock, answer=back_to_swing), clock)
    make_loop(arm, planner, diary).run("swing", until(clock, ENDS_S))
    assert_was_moving(arm)
    assert reason in diary.text
    assert_still_and_within_limits(arm)


@pytest.mark.parametrize("execution", ["open-loop", "replan", "ensemble", "blend", "real-time"])
def test_spikes_drops_and_disorder_are_survived(arm: Watched, clock: VirtualClock, execution: str):
    """Latencies from nothing to a second, one answer in five lost, answers that overtake one another."""
    rng = np.random.default_rng(0)
    delays = rng.choice([0.0, 0.05, 0.3, 1.0], size=400, p=[0.4, 0.3, 0.2, 0.1])
    lost = rng.random(400) < 0.2
    late = LatePlans(punctual(clock, answer=back_to_swing), clock, lambda sequence: float(delays[sequence]))
    planner = LostPlans(late, clock, lambda sequence: bool(lost[sequence]), timeout_s=0.4)
    diary = Diary()
    make_loop(arm, planner, diary, execution=execution).run("swing", until(clock, 12.0))
    arrived = [plan.sequence for plan in diary.plans]
    assert arrived != sorted(arrived), "some did overtake others"
    taken = [plan for plan in diary.plans if plan.sequence not in {r.sequence for r in diary.refusals}]
    assert [plan.sequence for plan in taken] == sorted(plan.sequence for plan in taken)
    assert max(arm.speeds_deg_per_s) < 300, "as fast as the guard allows at most"
    assert_still_and_within_limits(arm)


def test_a_person_lets_it_go_on_after_a_swap_was_mended(arm: Watched, clock: VirtualClock):
    class Mended(SwappedCameras):
        @property
        def is_wrong(self) -> bool:
            return STRIKES_S <= self.clock.now() < STRIKES_S + 1

    diary, resumed = Diary(), [Control(command="resume")]

    def wishes() -> list[Control]:
        return [resumed.pop()] if resumed and clock.now() > STRIKES_S + 2 else []

    robot = Mended(arm, "front", "wrist", from_s=STRIKES_S)
    make_loop(robot, punctual(clock, answer=back_to_swing), diary, wishes=wishes).run("swing", until(clock, ENDS_S))
    held = [tick for tick in diary.ticks if STRIKES_S + 0.5 < tick.time_s < STRIKES_S + 2]
    assert all(tick.waits_for_resume for tick in held)
    assert any(tick.wanted is not None and not tick.verdict.is_holding for tick in diary.ticks[-20:])
    assert_still_and_within_limits(arm)


def test_a_policy_that_finds_no_action_keeps_the_arm_still(arm: Watched, clock: VirtualClock):
    def silent(request):
        if request.observed_at_s >= STRIKES_S:
            raise NoActionError("the tokens are not whole")
        return back_to_swing(request)

    diary = Diary()
    make_loop(arm, punctual(clock, answer=silent), diary).run("swing", until(clock, ENDS_S))
    assert "the tokens are not whole" in diary.text
    assert_still_and_within_limits(arm)


def test_faults_leave_a_robot_alone_before_their_time(arm: Watched, clock: VirtualClock):
    never = 1e9
    robot: Robot = FrozenCamera(FrozenJoints(arm, from_s=never), "front", from_s=never)
    robot = StaleCamera(SwappedCameras(robot, "front", "wrist", from_s=never), "wrist", from_s=never)
    diary = Diary()
    make_loop(robot, punctual(clock, answer=back_to_swing), diary).run("swing", until(clock, 2.0))
    assert not [tick for tick in diary.ticks[5:-5] if tick.verdict.is_holding]
    assert robot.look().keys() == {"front", "wrist"}
    assert replace(robot.read(), effort=None).time_s == clock.now()
