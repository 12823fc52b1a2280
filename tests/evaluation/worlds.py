"""A world small enough to know by heart: a point on a line that has to reach the goal of its task."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.labels import THINGS
from molmoact2.evaluation.policies import PolicySource
from molmoact2.types import ActionChunk, Environment, Observation, Outcome

GOAL = {"left": -1.0, "right": 1.0}


@dataclass(frozen=True, kw_only=True)
class Pixel:
    u: float
    v: float
    inside: bool


@dataclass(frozen=True, kw_only=True)
class ScenePoint:
    name: str
    position_m: NDArray[np.float64]
    pixels: Mapping[str, Pixel]


class LineWorld:
    """Six joints; the first is the point's place. A task is done at its goal, and lost at the other one."""

    embodiment = "so101_tabletop"
    control_hz = 10.0
    tasks = ("left", "right")
    max_steps = 30
    cameras = ("front", "wrist")
    things = THINGS
    image_size = (16, 16)

    def __init__(self) -> None:
        self.place = np.zeros(6)
        self.looks = 0
        self.task = ""
        self.seed = -1

    @property
    def instruction(self) -> str:
        return f"go {self.task}"

    def reset(self, *, seed: int, task: str) -> None:
        self.seed, self.task, self.looks = seed, task, 0
        self.place = np.zeros(6)
        self.place[0] = 0.2 * np.random.default_rng(seed).uniform(-1, 1)

    def observe(self) -> Observation:
        self.looks += 1
        image = np.full((*self.image_size, 3), int(100 + 50 * self.place[0]), np.uint8)
        images = dict.fromkeys(self.cameras, image)
        return Observation(images=images, state=self.joint_state(), instruction=self.instruction)

    def joint_state(self) -> NDArray[np.floating]:
        return self.place.copy()

    def scene_points(self) -> tuple[ScenePoint, ...]:
        place = self.place[:3].copy()
        pixels = {"front": Pixel(u=4.0, v=8.0, inside=True), "wrist": Pixel(u=float("nan"), v=0.0, inside=False)}
        return (ScenePoint(name="gripper", position_m=place, pixels=pixels),)

    def step(self, action: NDArray[np.floating], /) -> Outcome:
        self.place += np.clip(np.asarray(action) - self.place, -0.1, 0.1)
        if abs(self.place[0] - GOAL[self.task]) < 0.01:
            return Outcome(success=True)
        wrong = abs(self.place[0] + GOAL[self.task]) < 0.01
        return Outcome(failure="wrong object" if wrong else None)

    def render(self, camera: str, *, height: int, width: int) -> NDArray[np.uint8]:
        assert camera == "overview"
        picture = np.full((height, width, 3), 230, np.uint8)
        column = int(np.clip((self.place[0] + 1.2) / 2.4, 0, 0.98) * width)
        picture[height // 3 : 2 * height // 3, column : column + 8] = (200, 60, 40)
        return picture

    def close(self) -> None:
        """Nothing is held."""


class Walker:
    """Plans `horizon` rows towards a goal."""

    def __init__(self, goal: float, *, horizon: int = 6) -> None:
        self.goal = goal
        self.horizon = horizon

    def act(self, observation: Observation, /) -> ActionChunk:
        place = observation.state[0]
        reach = 0.1 * np.arange(1, self.horizon + 1)
        rows = place + np.clip(self.goal - place, -reach, reach)
        actions = np.tile(observation.state, (self.horizon, 1)).astype(np.float32)
        actions[:, 0] = rows
        return ActionChunk(actions=actions, timing={"encode": 0.002, "plan": 0.004})


class ListeningWalker(Walker):
    """Goes where it is told; in every fifth seed, to the other goal."""

    def __init__(self, seed: int) -> None:
        super().__init__(0.0)
        self.errs = seed % 5 == 0

    def act(self, observation: Observation, /) -> ActionChunk:
        goal = GOAL[observation.instruction.removeprefix("go ")]
        self.goal = -goal if self.errs else goal
        return super().act(observation)


def open_walker(_environment: Environment) -> PolicySource:
    """A policy source whose policies walk."""
    return PolicySource(start=ListeningWalker, num_action_steps=3)


class LineExpert:
    """Plans one row towards the goal that the world asks for; in every fifth seed, towards the other."""

    delicate = False

    def __init__(self, world: LineWorld) -> None:
        self.world = world

    def act(self, observation: Observation, /) -> ActionChunk:
        walker = ListeningWalker(self.world.seed)
        return ActionChunk(actions=walker.act(observation).actions[:1])


class Nudge:
    """Executes a little less than was asked for."""

    def __init__(self, seed: int) -> None:
        self.size = 0.003 * (1 + seed % 3)

    def disturb(self, action: NDArray[np.floating], *, delicate: bool) -> NDArray[np.floating]:
        assert delicate is False
        return action - self.size
