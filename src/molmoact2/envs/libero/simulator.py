# pyright: reportAttributeAccessIssue=false
"""One task of LIBERO in the simulator, without pictures: `Simulation`.

robosuite reads its sensors at a moment of its own in each control step, a few milliseconds before the step's end, and
that is what policies were trained on. The simulation keeps where everything stood at that moment, so that a picture can
be made later, when somebody looks, and still is the one that robosuite's own camera sensor would have given.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.libero.quiet import ControlEnv, Observable, RandomizationError, mujoco, sensor

Made = TypeVar("Made")

SNAPSHOT = "snapshot"
FINGERS = (
    ("gripper0_finger1_collision", "gripper0_finger1_pad_collision"),
    ("gripper0_finger2_collision", "gripper0_finger2_pad_collision"),
)
"""Solid parts of each."""
SIGNS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
"""[8, 3] corners of a cube."""
MOST_DRAWS = 100
"""A scene whose things stand in each other's way is drawn again, at most this often."""


class Simulation:
    """One task, with the arm on its mount and every thing of the task's description.

    Args:
        description: the task's BDDL file.
        control_hz: control steps per simulated second.
    """

    def __init__(self, description: Path, *, control_hz: int) -> None:
        with seeded(0):
            make = partial(
                ControlEnv,
                bddl_file_name=str(description),
                control_freq=control_hz,
                has_offscreen_renderer=False,
                use_camera_obs=False,
                hard_reset=False,
                ignore_done=True,
            )
            self.control = drawn(make)
        self.world = self.control.env
        self.robot = self.world.robots[0]
        self.sensed: Mapping[str, Any] = {}
        """What robosuite's sensors said last."""
        take = sensor(modality=SNAPSHOT)(lambda _cache: snapshot(self.data))
        self.world.add_observable(Observable(SNAPSHOT, take, sampling_rate=control_hz))

    @property
    def model(self) -> mujoco.MjModel:
        """MuJoCo's description of the scene."""
        return self.control.sim.model._model

    @property
    def data(self) -> mujoco.MjData:
        """MuJoCo's present state."""
        return self.control.sim.data._data

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of what the task is about, for instance "milk_1" and "basket_1"."""
        return tuple(self.control.obj_of_interest)

    def restart(self, seed: int) -> NDArray[np.float64]:
        """Draw a scene from the task's placement samplers; return its state [1 + positions + velocities].

        The arm stands as its designers left it. The same seed always draws the same scene.
        """
        with seeded(seed):
            self.sensed = drawn(self.world.reset)
        # A new robot would start from here; a reset one would go on with the gripper command of the last episode.
        self.robot.gripper.current_action = np.zeros(self.robot.gripper.dof)
        return np.array(self.control.get_sim_state())

    def set_state(self, state: NDArray[np.float64]) -> None:
        """Continue from `state` [1 + positions + velocities]."""
        self.sensed = self.control.set_init_state(state)

    def step(self, action: NDArray[np.floating]) -> bool:
        """Execute `action` [7] for one control period; return whether the goal is reached."""
        self.sensed, _, _, _ = self.control.step(action)
        return bool(self.control.check_success())

    def arm_positions(self) -> NDArray[np.int64]:
        """[7] where the arm's joints are in MuJoCo's positions."""
        return np.array(self.robot._ref_joint_pos_indexes)

    def place_m(self, thing: str) -> NDArray[np.float64]:
        """[3] where a movable thing is now, in the world's frame."""
        return self.data.xpos[self.world.obj_body_id[thing]].copy()

    def corners_m(self, thing: str) -> NDArray[np.float64]:
        """[n, 3] corners of the boxes around a movable thing's solid parts, in the world's frame."""
        model, data = self.model, self.data
        parts = np.flatnonzero((model.geom_bodyid == self.world.obj_body_id[thing]) & (model.geom_contype > 0))
        centres, halves = model.geom_aabb[parts, None, :3], model.geom_aabb[parts, None, 3:]
        turns = data.geom_xmat[parts].reshape(-1, 3, 3)
        corners = (centres + SIGNS * halves) @ turns.transpose(0, 2, 1) + data.geom_xpos[parts, None]
        return corners.reshape(-1, 3)

    def fingers_on(self, thing: str) -> int:
        """How many fingers touch a movable thing: 0, 1 or 2."""
        pairs = self.data.contact.geom
        touching = pairs[(self.model.geom_bodyid[pairs] == self.world.obj_body_id[thing]).any(axis=1)]
        fingers = [[self.model.geom(part).id for part in parts] for parts in FINGERS]
        return sum(bool(np.isin(touching, parts).any()) for parts in fingers)

    def fingers(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """[2] positions [m] of the finger joints and [2] their speeds [m/s]."""
        robot, data = self.robot, self.data
        return data.qpos[robot._ref_gripper_joint_pos_indexes], data.qvel[robot._ref_gripper_joint_vel_indexes]

    def grip_m(self) -> NDArray[np.float64]:
        """[3] the point between the fingertips, in the world's frame."""
        return self.data.site_xpos[self.robot.eef_site_id].copy()

    def grip_turn(self) -> NDArray[np.float64]:
        """[3, 3] how the gripper is turned: the first axis goes from finger to finger, the third out of the hand."""
        return self.data.site_xmat[self.robot.eef_site_id].reshape(3, 3).copy()

    def close(self) -> None:
        """Free the simulator."""
        self.control.close()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global random numbers, which LIBERO draws from, and put them back afterwards."""
    before = np.random.get_state()  # noqa: NPY002 (theirs)
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def drawn(draw: Callable[[], Made]) -> Made:
    """What `draw` returns once the things that it places at random have found room.

    Raises:
        RuntimeError: they never do.
    """
    for _ in range(MOST_DRAWS):
        with contextlib.suppress(RandomizationError):
            return draw()
    raise RuntimeError(f"The things of this scene found no room in {MOST_DRAWS} draws: is its description right?")


def seen(data: mujoco.MjData) -> tuple[NDArray[np.float64], ...]:
    """The arrays of MuJoCo's state that a picture is made from."""
    return (
        *(data.geom_xpos, data.geom_xmat, data.site_xpos, data.site_xmat),
        *(data.cam_xpos, data.cam_xmat, data.light_xpos, data.light_xdir),
    )


def snapshot(data: mujoco.MjData) -> NDArray[np.float64]:
    """A copy of all that a picture is made from, flat."""
    return np.concatenate([array.ravel() for array in seen(data)])


@contextlib.contextmanager
def as_it_was(data: mujoco.MjData, moment: NDArray[np.float64]) -> Iterator[None]:
    """Show MuJoCo's renderer the scene of an earlier `snapshot`, and put the present back afterwards."""
    now = snapshot(data)
    _show(data, moment)
    try:
        yield
    finally:
        _show(data, now)


def _show(data: mujoco.MjData, moment: NDArray[np.float64]) -> None:
    arrays = seen(data)
    ends = np.cumsum([array.size for array in arrays])
    for array, part in zip(arrays, np.split(moment, ends[:-1]), strict=True):
        array[...] = part.reshape(array.shape)
