"""The simulated arm behind the interface of a real one, against the environment that it is made of."""

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from molmoact2.control.clock import VirtualClock
from molmoact2.control.executor import Executor
from molmoact2.control.plan import Plan, PlanRequest
from molmoact2.control.planners import PunctualPlanner, answers_of
from molmoact2.control.strategies import make_strategy
from molmoact2.envs.so101 import So101Env
from molmoact2.evaluation.experts import make_expert
from molmoact2.evaluation.rollout import run_episode
from molmoact2.robots.catalog import ROBOTS, entry_of, open_robot
from molmoact2.robots.simulated import SimulatedSettings, SimulatedSo101, open_simulated
from molmoact2.types import ActionChunk, Observation, Outcome

HZ = 15.0


@pytest.fixture(scope="module")
def environment() -> Iterator[So101Env]:
    environment = So101Env(image_size=(32, 32))
    yield environment
    environment.close()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def arm(environment: So101Env, clock: VirtualClock) -> SimulatedSo101:
    clock.sleep_until(5.0)
    arm = SimulatedSo101(environment, clock)
    arm.begin(task="pick", seed=0)
    return arm


def test_time_alone_moves_it(arm: SimulatedSo101, clock: VirtualClock):
    start = arm.read().state
    arm.command(start + np.array([10, 0, 0, 0, 0, 0], np.float32))
    assert np.array_equal(arm.read().state, start), "no time has passed"
    clock.sleep_until(clock.now() + 1.0)
    assert arm.read().state[0] == pytest.approx(start[0] + 10, abs=0.5)
    assert arm.control_steps == 15


def test_its_physics_does_not_depend_on_how_often_it_is_asked(environment: So101Env):
    ends = []
    for moments in (np.arange(1, 31) / HZ, np.arange(1, 301) / (10 * HZ), [2.0]):
        clock = VirtualClock()
        arm = SimulatedSo101(environment, clock)
        arm.begin(task="pick", seed=0)
        arm.command(arm.read().state + np.float32(8))
        for moment in moments:
            clock.sleep_until(moment)
            arm.read()
        assert arm.control_steps == 30
        ends.append(arm.read().state)
    assert np.allclose(ends[0], ends[1], atol=1e-3)
    assert np.allclose(ends[0], ends[2], atol=1e-3)


def test_holds_where_it_is_and_keeps_its_grip(arm: SimulatedSo101, clock: VirtualClock):
    start = arm.read().state
    arm.command(start + np.array([40, 0, 0, 0, 0, 50], np.float32))
    clock.sleep_until(clock.now() + 0.1)
    arm.hold()
    middle = arm.read().state
    assert 1 < middle[0] - start[0] < 35
    clock.sleep_until(clock.now() + 1.0)
    end = arm.read().state
    assert abs(end[0] - middle[0]) < 8, "it stops, by its own inertia a little later"
    assert end[5] == pytest.approx(start[5] + 50, abs=3), "the gripper goes on to its target"


def test_refuses_what_is_not_a_target(arm: SimulatedSo101, clock: VirtualClock):
    before = arm.read().state
    for wrong in (np.full(6, np.nan), np.zeros(5), np.array([0, 0, 0, np.inf, 0, 0])):
        with pytest.raises(ValueError, match=r"An action is"):
            arm.command(wrong.astype(np.float32))
    clock.sleep_until(clock.now() + 0.5)
    assert np.abs(arm.read().state - before).max() < 0.5


def test_sees_and_feels_now(arm: SimulatedSo101, clock: VirtualClock):
    reading, frames = arm.read(), arm.look()
    assert reading.time_s == clock.now()
    assert reading.effort is not None
    assert (np.abs(reading.effort) <= 1).all()
    assert list(frames) == ["front", "wrist"]
    assert all(frame.time_s == clock.now() and frame.image.dtype == np.uint8 for frame in frames.values())
    images = arm.environment.observe().images
    assert isinstance(images, Mapping)
    assert np.array_equal(frames["front"].image, images["front"])


def test_an_episode_is_that_of_the_evaluation_to_the_last_bit(environment: So101Env):
    """The plain loop, which waits for the policy, is the slow twin of a clock on which planning takes no time."""
    expert = make_expert("so101", environment)
    plain = run_episode(environment, expert, task="push", seed=5)
    truth = environment.data.qpos.copy()

    clock = VirtualClock()
    arm = SimulatedSo101(environment, clock)
    arm.begin(task="push", seed=5)
    executor = Executor(make_strategy("replan", every=1), 6, HZ)
    planner = PunctualPlanner(answers_of(make_expert("so101", environment)), clock, period_s=1 / HZ)
    step = 0
    while not arm.outcome.done and arm.control_steps < arm.max_steps:
        planner.ask(request_of(arm, step))
        for plan in planner.poll():
            assert isinstance(plan, Plan)
            assert executor.take(plan, clock.now()) is None
        target = executor.target(clock.now())
        assert target is not None
        arm.command(target.astype(np.float32))
        step += 1
        clock.sleep_until(step / HZ)
    assert (arm.outcome.success, step) == (plain.success, plain.num_steps)
    assert plain.success
    assert np.array_equal(environment.data.qpos, truth)


def request_of(arm: SimulatedSo101, step: int) -> PlanRequest:
    """Everything that is to be known about a moment."""
    images = {name: frame.image for name, frame in arm.look().items()}
    reading = arm.read()
    observation = Observation(images=images, state=reading.state, instruction=arm.instruction)
    remaining = np.zeros((0, 6), np.float32)
    return PlanRequest(
        observation=observation, observed_at_s=reading.time_s, sequence=step, remaining=remaining, delay=0
    )


def test_the_first_verdict_stays(arm: SimulatedSo101, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch):
    verdicts = iter([Outcome(failure="wrong object"), Outcome(success=True)])
    monkeypatch.setattr(arm.environment, "judge", lambda: next(verdicts))
    assert not arm.outcome.done
    clock.sleep_until(clock.now() + 2 / HZ)
    assert arm.outcome == Outcome(failure="wrong object")


def test_robots_are_opened_by_name(tmp_path):
    assert {name for name, entry in ROBOTS.items() if entry.is_real} == {"so101", "yam", "droid"}
    settings = tmp_path / "robot.toml"
    settings.write_text("image_height = 24\nimage_width = 32\ncommand_hz = 30\n")
    robot = open_robot("so101-sim", settings, VirtualClock())
    assert robot.command_hz == 30
    assert robot.look()["front"].image.shape == (24, 32, 3)
    robot.close()
    with pytest.raises(ValueError, match=r"Did you mean 'so101'"):
        entry_of("so10")
    with pytest.raises(ValueError, match="lacks calibration, port"):
        open_robot("so101")
    dry = open_robot("dry-run", None, VirtualClock())
    assert dry.read().state.shape == (6,)


def test_opens_with_a_scene():
    robot = open_simulated(SimulatedSettings(image_height=16, image_width=16), VirtualClock())
    assert robot.instruction
    assert robot.tasks == ("pick", "plate", "push")
    robot.close()


def test_its_policy_may_be_anything(arm: SimulatedSo101):
    """`answers_of` shows a policy the observation of a request and nothing else."""
    seen = []

    class Watcher:
        def act(self, observation: Observation, /) -> ActionChunk:
            seen.append(observation)
            return ActionChunk(actions=np.zeros((1, 6), np.float32))

    request = request_of(arm, 0)
    answers_of(Watcher())(request)
    assert seen == [request.observation]
