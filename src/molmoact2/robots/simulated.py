# pyright: reportAttributeAccessIssue=false
"""The simulated SO-101 behind the interface of a real one.

Its world follows its clock. On the wall clock the physics catches up with the time that has passed whenever the robot
is asked or told something, so a late control loop finds an arm that has moved on; on a virtual clock the same happens
without waiting, and a run is exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.clock import WallClock
from molmoact2.control.robot import Clock, Frame, Reading
from molmoact2.embodiments import SO101_TABLETOP, Embodiment
from molmoact2.envs.headless import mujoco
from molmoact2.envs.so101 import JOINTS, So101Env, checked_action
from molmoact2.envs.so101_scene import CONTROL_HZ, PHYSICS_STEPS_PER_CONTROL_STEP
from molmoact2.types import Outcome

PHYSICS_HZ = CONTROL_HZ * PHYSICS_STEPS_PER_CONTROL_STEP
GRIPPER = JOINTS - 1
ROUNDING_STEPS = 1e-3
"""How much of a physics step may be missing from a moment for the step to count as due: sums of periods are inexact."""


@dataclass(frozen=True, kw_only=True)
class SimulatedSettings:
    """What is simulated."""

    image_height: int = 128
    image_width: int = 128
    command_hz: float = CONTROL_HZ
    """How often it wants a target."""


class SimulatedSo101:
    """A `So101Env` that is driven like an arm; implements `Robot`.

    The scene is judged once per control period, as the environment's own `step` does, and the arm follows its last
    target until it is given another. Effort is the share of each motor's largest torque.
    """

    embodiment: Embodiment = SO101_TABLETOP

    def __init__(self, environment: So101Env, clock: Clock, *, command_hz: float = CONTROL_HZ) -> None:
        self.environment = environment
        self.command_hz = command_hz
        self._clock = clock
        self.largest_torque_nm = environment.model.actuator_forcerange[:JOINTS, 1].copy()
        self._forget()

    @property
    def clock(self) -> Clock:
        """The clock that it was made with; its world stands still while nobody asks."""
        return self._clock

    def begin(self, *, task: str, seed: int) -> None:
        """Lay out the scene of an episode, which begins now; ValueError as `So101Env.reset`."""
        self.environment.reset(seed=seed, task=task)
        self._forget()

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it can be asked to do."""
        return self.environment.tasks

    @property
    def max_steps(self) -> int:
        """Control periods after which an episode counts as failed."""
        return self.environment.max_steps

    @property
    def instruction(self) -> str:
        """The task of the episode, in words."""
        return self.environment.instruction

    @property
    def outcome(self) -> Outcome:
        """How the episode stands by now: success once reached stays, and so does a failure."""
        self._catch_up()
        return self._outcome

    @property
    def control_steps(self) -> int:
        """Whole control periods since the episode began."""
        self._catch_up()
        return self._physics_steps // PHYSICS_STEPS_PER_CONTROL_STEP

    def read(self) -> Reading:
        """The joints now."""
        self._catch_up()
        data = self.environment.data
        return Reading(
            time_s=self.clock.now(),
            state=self.environment.joint_state(),
            effort=(data.actuator_force[:JOINTS] / self.largest_torque_nm).astype(np.float32),
        )

    def look(self) -> Mapping[str, Frame]:
        """Render every camera as it sees the scene now."""
        self._catch_up()
        now = self.clock.now()
        images = self.environment.observe().images
        assert isinstance(images, Mapping), "the environment names its cameras"
        return {name: Frame(image=image, time_s=now) for name, image in images.items()}

    def command(self, target: NDArray[np.float32], /) -> None:
        """Follow `target` [6], degrees and percent; ValueError for anything but six finite numbers."""
        wanted = self.environment.to_radians(checked_action(target))
        self._catch_up()
        self.environment.data.ctrl[:] = wanted

    def hold(self) -> None:
        """Stop where the joints are. The gripper keeps its last target, so that it does not drop what it holds."""
        self._catch_up()
        data = self.environment.data
        data.ctrl[:GRIPPER] = data.qpos[:GRIPPER]

    def close(self) -> None:
        """Free the environment."""
        self.environment.close()

    def _forget(self) -> None:
        self._began_s = self.clock.now()
        self._physics_steps = 0
        self._outcome = Outcome()

    def _catch_up(self) -> None:
        """Let the physics run until now, and judge at the end of every control period."""
        data, elapsed_s = self.environment.data, self.clock.now() - self._began_s
        due = int(elapsed_s * PHYSICS_HZ + ROUNDING_STEPS)
        while self._physics_steps < due:
            into_period = self._physics_steps % PHYSICS_STEPS_PER_CONTROL_STEP
            count = min(PHYSICS_STEPS_PER_CONTROL_STEP - into_period, due - self._physics_steps)
            mujoco.mj_step(self.environment.model, data, nstep=count)
            self._physics_steps += count
            self.environment.forward()
            if into_period + count == PHYSICS_STEPS_PER_CONTROL_STEP:
                self._judge()

    def _judge(self) -> None:
        verdict = self.environment.judge()
        self._outcome = self._outcome if self._outcome.done else verdict


def open_simulated(settings: SimulatedSettings, clock: Clock | None = None) -> SimulatedSo101:
    """A simulated arm with the scene of the first episode before it; ImportError where the simulator is missing."""
    environment = So101Env(image_size=(settings.image_height, settings.image_width))
    robot = SimulatedSo101(environment, clock or WallClock(), command_hz=settings.command_hz)
    robot.begin(task=environment.tasks[0], seed=0)
    return robot
