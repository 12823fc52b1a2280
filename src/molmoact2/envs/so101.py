# pyright: reportAttributeAccessIssue=false
"""A simulated SO-101 on a tabletop with coloured cubes and a plate: `So101Env`.

Units are those of a real SO-101 driven through LeRobot: joints in degrees, the gripper in percent of its range (0
closed, 100 open). Positions are in metres in the robot's base frame: x forward, y to the robot's left, z up, the table
top at z = 0.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.envs import so101_tasks
from molmoact2.envs.headless import mujoco
from molmoact2.envs.labels import THINGS
from molmoact2.envs.so101_kinematics import Kinematics
from molmoact2.envs.so101_labels import ScenePoint, project
from molmoact2.envs.so101_layout import TASKS, Layout, apply_layout
from molmoact2.envs.so101_scatter import scatter
from molmoact2.envs.so101_scene import CONTROL_HZ, FIXED_SIDE, MOVING_SIDE, PHYSICS_STEPS_PER_CONTROL_STEP, build_model
from molmoact2.envs.so101_variations import draw_varied_layout
from molmoact2.envs.so101_views import Views
from molmoact2.envs.variations import NOMINAL, Variations
from molmoact2.registry import unknown
from molmoact2.types import Observation, Outcome

JOINTS = 6
GRIPPER_PERCENT = 100.0


class So101Env:
    """One SO-101, two or three cubes of different colours, sometimes a plate; implements `Environment`.

    Tasks: "pick" (lift the named cube), "plate" (put it on the plate), "push" (slide it to the robot's left or right).

    Args:
        image_size: height and width of the observed images, in pixels.
        cameras: which cameras `observe` renders: "front", "wrist", "overview".
        max_steps: control steps after which an episode counts as failed.
        variations: how far scenes are from those of the recordings; not at all by default.

    Raises:
        ValueError: an unknown camera or an image size that is not positive.
        ImportError: a package or a graphics library is missing.
    """

    embodiment = SO101_TABLETOP.tag
    control_hz = CONTROL_HZ
    tasks: tuple[str, ...] = TASKS
    things: tuple[str, ...] = THINGS

    def __init__(
        self,
        *,
        image_size: tuple[int, int] = (128, 128),
        cameras: Sequence[str] = SO101_TABLETOP.cameras,
        max_steps: int = 150,
        variations: Variations = NOMINAL,
    ) -> None:
        self.variations = variations
        self.model = build_model(with_distractors=variations.distractors > 0)
        self.data = mujoco.MjData(self.model)
        self.cameras = tuple(cameras)
        self.image_size = image_size
        self.max_steps = max_steps
        self.views = Views(self.model, self.data)
        for camera in self.cameras:
            self.views.check(camera, *image_size)
        self.low_rad, self.high_rad = self.model.jnt_range[:JOINTS].T.copy()
        self.kinematics = Kinematics(self.model)
        self.layout: Layout | None = None
        self.start: dict[str, so101_tasks.CubeState] = {}
        self.steady_steps = 0
        fingers = {self.model.geom(name).id: 0 for name in FIXED_SIDE}
        self.finger_sides = fingers | {self.model.geom(name).id: 1 for name in MOVING_SIDE}

    @property
    def instruction(self) -> str:
        """The current task in words, for instance "put the green cube on the plate"."""
        return so101_tasks.instruction(self.scene)

    @property
    def scene(self) -> Layout:
        """How the current scene was laid out.

        Raises:
            RuntimeError: the environment was not reset yet.
        """
        if self.layout is None:
            raise RuntimeError("The environment has no scene yet: call reset(seed=..., task=...) first.")
        return self.layout

    def reset(self, *, seed: int, task: str) -> None:
        """Lay out the scene of this seed and task. The same seed and task always give the same scene.

        Raises:
            ValueError: a task that is not in `tasks`, or a negative seed.
        """
        if task not in self.tasks:
            raise unknown("task", task, self.tasks)
        if seed < 0:
            raise ValueError(f"A seed is a non-negative integer; got {seed}.")
        self.set_layout(draw_varied_layout(seed, task, self.variations))

    def set_layout(self, layout: Layout) -> None:
        """Lay out a scene made by hand; ValueError for distractors in an environment that was made without them."""
        apply_layout(self.model, self.data, layout)
        self.layout = layout
        self.start = self.cubes()
        self.steady_steps = 0

    def observe(self) -> Observation:
        """Render the cameras (uint8 [height, width, 3]) and read the joints (float32 [6], degrees and percent)."""
        images = {camera: self.views.policy_view(camera, *self.image_size) for camera in self.cameras}
        return Observation(images=images, state=self.joint_state(), instruction=self.instruction)

    def observe_depth(self, camera: str) -> NDArray[np.float32]:
        """True depth of one camera's observed image: [height, width] metres along the camera's axis.

        Raises:
            ValueError: an unknown camera.
        """
        return self.views.depth_view(camera, *self.image_size)

    def joint_state(self) -> NDArray[np.float32]:
        """[6] joint positions: five in degrees, the gripper in percent."""
        return self.to_units(self.data.qpos[:JOINTS])

    def to_units(self, joints_rad: NDArray[np.floating]) -> NDArray[np.float32]:
        """Model joint angles [6] in radians -> robot units [6]."""
        units = np.degrees(joints_rad)
        low, high = self.low_rad[-1], self.high_rad[-1]
        units[-1] = GRIPPER_PERCENT * (joints_rad[-1] - low) / (high - low)
        return units.astype(np.float32)

    def to_radians(self, units: NDArray[np.floating]) -> NDArray[np.float64]:
        """Robot units [6] -> model joint angles [6] in radians."""
        joints_rad = np.radians(np.asarray(units, dtype=np.float64))
        low, high = self.low_rad[-1], self.high_rad[-1]
        joints_rad[-1] = low + float(units[-1]) / GRIPPER_PERCENT * (high - low)
        return joints_rad

    def step(self, action: NDArray[np.floating], /) -> Outcome:
        """Hold joint targets [6] (five in degrees, the gripper in percent) for one control period of 1/15 s.

        The motors clamp a target beyond a joint's range to the range, as the real servos do.

        Raises:
            ValueError: not six finite numbers. The scene is then unchanged.
        """
        self.data.ctrl[:] = self.to_radians(checked_action(action))
        mujoco.mj_step(self.model, self.data, nstep=PHYSICS_STEPS_PER_CONTROL_STEP)
        self.forward()
        return self.judge()

    def forward(self) -> None:
        """Bring positions, contacts and cameras up to date with the joints; needed after setting `data` by hand."""
        mujoco.mj_forward(self.model, self.data)

    def judge(self) -> Outcome:
        """How the episode stands, counting this moment as one more control step."""
        verdict = so101_tasks.judge(self.scene, self.start, self.cubes())
        self.steady_steps = self.steady_steps + 1 if verdict.achieved else 0
        return Outcome(success=self.steady_steps >= so101_tasks.STEADY_STEPS, failure=verdict.failure)

    def cubes(self) -> dict[str, so101_tasks.CubeState]:
        """Colour -> where that cube is now, for the cubes in the scene."""
        return {colour: self.cube(colour) for colour in self.scene.cubes}

    def cube(self, colour: str) -> so101_tasks.CubeState:
        """Where a cube is now."""
        position = self.data.body(colour).xpos.copy()
        half_m = self.scene.cubes[colour].half_m
        down = np.abs(self.data.body(colour).xmat[6:]).sum() * half_m
        velocity = self.data.joint(colour).qvel
        return so101_tasks.CubeState(
            position_m=position,
            lowest_m=float(position[2] - down),
            speed_m_per_s=math.hypot(*velocity[:3]),
            touched=bool(self.touching_sides(colour)),
        )

    def touching_sides(self, colour: str) -> set[int]:
        """Which fingers touch a cube: 0 the fixed one, 1 the moving one."""
        cube = self.model.geom(colour).id
        pairs = self.data.contact.geom
        partners = np.where(pairs[:, :1] == cube, pairs[:, 1:], pairs[:, :1])[(pairs == cube).any(axis=1), 0]
        return {self.finger_sides[geom] for geom in partners.tolist() if geom in self.finger_sides}

    def scene_points(self) -> tuple[ScenePoint, ...]:
        """Exact position of every cube, of the plate's centre and of the gripper's tip, and where cameras see them.

        Pixels are those of an image of `image_size`; see `ScenePoint`.
        """
        places = {f"{colour} cube": self.data.body(colour).xpos for colour in self.scene.cubes}
        if self.scene.plate_m is not None:
            places["plate"] = self.data.body("plate").xpos
        places["gripper"] = self.data.site("pinch").xpos
        return tuple(
            ScenePoint(
                name=name,
                position_m=position.copy(),
                pixels={c: project(self.model, self.data, c, position, self.image_size) for c in self.cameras},
            )
            for name, position in places.items()
        )

    def scatter(self, rng: np.random.Generator) -> None:
        """Put the arm in a random plausible pose, without physics, for a varied picture of the present scene.

        The gripper is anywhere above the table, over a cube, or holding a cube; judging starts afresh from there.
        """
        scatter(self.model, self.data, self.scene, self.kinematics, rng)
        self.start = self.cubes()
        self.steady_steps = 0

    def render(self, camera: str = "overview", height: int = 360, width: int = 480) -> NDArray[np.uint8]:
        """A picture for people [height, width, 3]: smooth edges and shadows, any camera, any size.

        Raises:
            ValueError: an unknown camera or a size that is not positive.
        """
        return self.views.fine_view(camera, height, width)

    def close(self) -> None:
        """Free the renderers."""
        self.views.close()


def checked_action(action: NDArray[np.floating]) -> NDArray[np.float64]:
    """The action as six finite numbers, or a ValueError that says what is wrong with it."""
    action = np.asarray(action, dtype=np.float64)
    if action.shape != (JOINTS,):
        raise ValueError(
            f"An action is {JOINTS} numbers ({', '.join(SO101_TABLETOP.action_names)}); got shape {action.shape}."
        )
    if not np.isfinite(action).all():
        wrong = ", ".join(
            f"{name}={value}"
            for name, value in zip(SO101_TABLETOP.action_names, action, strict=True)
            if not math.isfinite(value)
        )
        raise ValueError(f"An action is finite joint targets in degrees and percent; got {wrong}.")
    return action
