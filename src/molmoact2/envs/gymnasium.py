"""Any environment of this package as a Gymnasium environment: `GymnasiumEnv(make("so101"))`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.registry import unknown
from molmoact2.types import Environment

try:
    import gymnasium
except ModuleNotFoundError as error:
    raise ImportError('This wrapper needs gymnasium. Install it with: pip install "molmoact2[sim]"') from error

LARGEST_SEED = 2**31 - 1

GymObservation = dict[str, Any]
"""{"images": {camera: uint8 [height, width, 3]}, "state": float32 [state_dim]}, in robot units."""


class GymnasiumEnv(gymnasium.Env):
    """Reward 1 when the task succeeds and 0 otherwise; success and failure terminate, `max_steps` truncates.

    `info` holds the instruction, the task, and how the episode stands (`success`, `failure`).

    Args:
        environment: what to wrap; closing the wrapper closes it.
        task: the task of every episode, unless `reset(options={"task": ...})` says otherwise; None draws one.
        render_mode: "rgb_array" lets `render` return the cameras' last images side by side.

    Raises:
        ValueError: a task that the environment does not offer, or another render mode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, environment: Environment, *, task: str | None = None, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise unknown("render mode", str(render_mode), self.metadata["render_modes"])
        self.environment = environment
        self.render_mode = render_mode
        self.task = task
        self.metadata = {**self.metadata, "render_fps": environment.control_hz}
        embodiment = EMBODIMENTS[environment.embodiment]
        shape = (len(embodiment.action_names),)
        low, high = np.transpose(embodiment.action_limits or [(-np.inf, np.inf)] * shape[0])
        self.action_space = gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32), shape, np.float32)
        environment.reset(seed=0, task=self.checked_task(task or environment.tasks[0]))
        self.observation_space = observation_space(self.observe())
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[GymObservation, dict[str, Any]]:
        """Start an episode: the scene of `seed`, or a new one each time without it.

        Raises:
            ValueError: an option other than "task", or a task that the environment does not offer.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        drawn_task = str(self.np_random.choice(self.environment.tasks))
        drawn_seed = int(self.np_random.integers(LARGEST_SEED))
        task = self.checked_task(options.pop("task", None) or self.task or drawn_task)
        if options:
            raise unknown("reset option", next(iter(options)), ["task"])
        self.environment.reset(seed=drawn_seed if seed is None else seed, task=task)
        self.current_task, self.steps = task, 0
        return self.observe(), self.info(success=False, failure=None)

    def step(self, action: NDArray[np.floating]) -> tuple[GymObservation, float, bool, bool, dict[str, Any]]:
        """Hold `action` for one control period."""
        outcome = self.environment.step(action)
        self.steps += 1
        truncated = self.steps >= self.environment.max_steps and not outcome.done
        info = self.info(success=outcome.success, failure=outcome.failure)
        return self.observe(), float(outcome.success), outcome.done, truncated, info

    def observe(self) -> GymObservation:
        """What the robot senses now, in the shape of `observation_space`."""
        observation = self.environment.observe()
        assert isinstance(observation.images, Mapping)
        self.images = dict(observation.images)
        return {"images": self.images, "state": np.asarray(observation.state, dtype=np.float32)}

    def info(self, *, success: bool, failure: str | None) -> dict[str, Any]:
        """What is known besides the observation."""
        return {
            "instruction": self.environment.instruction,
            "task": self.current_task,
            "success": success,
            "failure": failure,
        }

    def checked_task(self, task: str) -> str:
        """The task, if the environment offers it."""
        if task not in self.environment.tasks:
            raise unknown("task", task, self.environment.tasks)
        return task

    def render(self) -> NDArray[np.uint8] | None:
        """The cameras' last images side by side; None without a render mode."""
        if self.render_mode is None:
            return None
        return np.concatenate(list(self.images.values()), axis=1)

    def close(self) -> None:
        """Close the wrapped environment."""
        self.environment.close()


def observation_space(example: GymObservation) -> gymnasium.spaces.Dict:
    """The space that an observation is from."""
    box = gymnasium.spaces.Box
    images: dict[str, gymnasium.Space] = {
        camera: box(0, 255, image.shape, np.uint8) for camera, image in example["images"].items()
    }
    state = box(-np.inf, np.inf, example["state"].shape, np.float32)
    return gymnasium.spaces.Dict({"images": gymnasium.spaces.Dict(images), "state": state})
