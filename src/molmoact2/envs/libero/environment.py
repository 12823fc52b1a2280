"""LIBERO as an `Environment`: `LiberoEnv("libero_object")`.

State: position of the point between the fingertips [m] in the world's frame, orientation of the hand as axis times
angle [rad], positions of the two finger joints [m]. Action: seven numbers in [-1, 1], three of translation (1 asks the
controller for 5 cm), three of rotation (1 asks for 0.5 rad), and the gripper (1 closes, -1 opens); the controller clips
what is beyond.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.envs.labels import GRIPPER
from molmoact2.envs.libero.protocol import PAPER, LiberoProtocol
from molmoact2.envs.libero.rotation import axis_angle
from molmoact2.envs.libero.simulator import Simulation
from molmoact2.envs.libero.suites import LiberoTask, base_suite, read_suite, words_of_things
from molmoact2.envs.libero.views import CAMERAS, OVERVIEW, Views, resampled
from molmoact2.envs.so101_labels import ScenePoint
from molmoact2.envs.variations import NOMINAL, Variations
from molmoact2.registry import unknown
from molmoact2.types import Observation, Outcome

LIBERO = EMBODIMENTS["libero"]
ARM_NOISE_RAD = 0.02
"""Standard deviation of the arm's joints in the official initial states."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The task that is being done, and where it is done."""

    task: LiberoTask
    simulation: Simulation
    views: Views


class LiberoEnv:
    """One suite of LIBERO or LIBERO-PRO; implements `Environment`.

    The simulator of one task takes more than a gigabyte, so only that of the current task is kept.

    Args:
        suite: "libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90", or one of LIBERO-PRO's.
        protocol: under which rules; those of the published MolmoAct2 numbers by default.
        tasks: the tasks to offer, by name; all of the suite by default, in its order.
        variations: must be `NOMINAL`; LIBERO's scenes cannot be varied yet.

    Raises:
        ValueError: an unknown suite or task, or variations.
        FileNotFoundError: the installed package lacks files of the suite.
        ImportError: a package or a graphics library is missing.
    """

    embodiment = LIBERO.tag
    cameras: tuple[str, ...] = tuple(CAMERAS)

    def __init__(
        self,
        suite: str,
        *,
        protocol: LiberoProtocol = PAPER,
        tasks: Sequence[str] = (),
        variations: Variations = NOMINAL,
    ) -> None:
        if variations.active:
            raise ValueError(f"The scenes of LIBERO cannot be varied; got {variations.active}. Leave variations out.")
        self.suite = read_suite(suite)
        for task in tasks:
            if task not in self.suite:
                raise unknown("task", task, self.suite)
        self.tasks: tuple[str, ...] = tuple(tasks) or tuple(self.suite)
        self.protocol = protocol
        self.max_steps = protocol.max_steps[base_suite(suite)]
        self.control_hz = float(protocol.control_hz)
        self.image_size = (protocol.delivered_px, protocol.delivered_px)
        self.words = words_of_things({task: self.suite[task] for task in self.tasks})
        self.things: tuple[str, ...] = (*sorted(self.words.values()), GRIPPER)
        self.open_scene: Scene | None = None

    @property
    def scene(self) -> Scene:
        """The task that was reset to last, its simulator and its cameras.

        Raises:
            RuntimeError: the environment was not reset yet.
        """
        if self.open_scene is None:
            raise RuntimeError("The environment has no scene yet: call reset(seed=..., task=...) first.")
        return self.open_scene

    @property
    def instruction(self) -> str:
        """The current task in words."""
        return self.scene.task.instruction

    def reset(self, *, seed: int, task: str) -> None:
        """Set the scene of this seed and task, and let it settle.

        With official initial states, seed n starts from the one numbered n modulo their count. The order is LIBERO's:
        seed the simulator, reset it, set the initial state, then settle.

        Raises:
            ValueError: a task that is not in `tasks`, or a negative seed.
        """
        if task not in self.tasks:
            raise unknown("task", task, self.tasks)
        if seed < 0:
            raise ValueError(f"A seed is a non-negative integer; got {seed}.")
        simulation = self.opened(task).simulation
        simulation.set_state(self.initial_state(seed))
        for _ in range(self.protocol.settle_steps):
            simulation.step(np.array(self.protocol.settle_action))

    def opened(self, task: str) -> Scene:
        """The scene of a task; its simulator is made unless it is there already."""
        if self.open_scene is None or self.open_scene.task is not self.suite[task]:
            self.close()
            simulation = Simulation(self.suite[task].description, control_hz=self.protocol.control_hz)
            self.open_scene = Scene(task=self.suite[task], simulation=simulation, views=Views(simulation))
        return self.open_scene

    def initial_state(self, seed: int) -> NDArray[np.float64]:
        """Reset the simulator; return the state [1 + positions + velocities] that the episode of `seed` starts from."""
        simulation = self.scene.simulation
        if self.protocol.initial_states == "fresh":
            state, arm = simulation.restart(seed), simulation.arm_positions()
            state[1 + arm] += ARM_NOISE_RAD * np.random.default_rng(seed).normal(size=len(arm))
            return state
        states = self.scene.task.official_states()
        number = seed % len(states)
        simulation.restart(self.protocol.simulator_seed + number * self.protocol.seed_advances)
        return states[number]

    def observe(self) -> Observation:
        """Render the cameras (uint8 [pixels, pixels, 3]) and read the arm (float32 [8])."""
        views, protocol = self.scene.views, self.protocol
        images = {
            camera: resampled(
                views.policy_view(camera, protocol.rendered_px, half_turn=protocol.half_turn), protocol.delivered_px
            )
            for camera in self.cameras
        }
        return Observation(images=images, state=self.joint_state(), instruction=self.instruction)

    def joint_state(self) -> NDArray[np.float32]:
        """[8] what robosuite's sensors said last of the arm: position, axis times angle, finger joints."""
        sensed = self.scene.simulation.sensed
        rotation = axis_angle(np.asarray(sensed["robot0_eef_quat"]), fold=self.protocol.fold_rotation)
        parts = (sensed["robot0_eef_pos"], rotation, sensed["robot0_gripper_qpos"])
        return np.concatenate(parts).astype(np.float32)

    def step(self, action: NDArray[np.floating], /) -> Outcome:
        """Execute `action` [7] for one control period.

        Raises:
            ValueError: not seven finite numbers. The scene is then unchanged.
        """
        checked = checked_action(action)
        if self.protocol.gripper == "sign":
            checked[-1] = np.where(checked[-1] < 0, -1.0, 1.0)
        return Outcome(success=self.scene.simulation.step(checked))

    def scene_points(self) -> tuple[ScenePoint, ...]:
        """Exact position of every movable thing and of the gripper, in the world's frame, and where cameras see them.

        Pixels are those of an observed image.
        """
        simulation = self.scene.simulation
        places = {self.words[thing]: simulation.place_m(thing) for thing in self.scene.task.objects()}
        places[GRIPPER] = simulation.grip_m()
        return tuple(self.scene_point(name, position) for name, position in places.items())

    def scene_point(self, name: str, position_m: NDArray[np.float64]) -> ScenePoint:
        """A point [3] of the world and where the cameras see it."""
        views, pixels, turn = self.scene.views, self.protocol.delivered_px, self.protocol.half_turn
        seen = {camera: views.pixel(camera, position_m, pixels, half_turn=turn) for camera in self.cameras}
        return ScenePoint(name=name, position_m=position_m, pixels=seen)

    def render(self, camera: str = OVERVIEW, height: int = 360, width: int = 480) -> NDArray[np.uint8]:
        """A picture for people [height, width, 3], neither turned nor mirrored.

        Raises:
            ValueError: an unknown camera or a size that is not positive.
        """
        return self.scene.views.picture(camera, height, width)

    def close(self) -> None:
        """Free the simulator and the renderers."""
        if self.open_scene is None:
            return
        self.open_scene.views.close()
        self.open_scene.simulation.close()
        self.open_scene = None
        # robosuite's objects refer to one another in circles; a gigabyte should not wait for the collector's turn.
        gc.collect()


def checked_action(action: NDArray[np.floating]) -> NDArray[np.float64]:
    """The action as seven finite numbers, or a ValueError that says what is wrong with it."""
    numbers = np.array(action, dtype=np.float64)
    if numbers.shape != (len(LIBERO.action_names),):
        names = ", ".join(LIBERO.action_names)
        raise ValueError(f"An action is {len(LIBERO.action_names)} numbers ({names}); got shape {numbers.shape}.")
    if not np.isfinite(numbers).all():
        raise ValueError(f"An action is finite numbers in [-1, 1]; got {numbers.tolist()}.")
    return numbers
