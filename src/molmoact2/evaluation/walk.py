"""A policy walks through a recorded episode in one session: what it sees, thinks and plans at every frame.

Nothing is executed; what happens next is what was recorded.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from molmoact2.data import LeRobotDataset
from molmoact2.data.errors import require
from molmoact2.data.reader import Frame
from molmoact2.evaluation.depth_truth import DepthTruth, EpisodeTruth, check_episode, open_truth
from molmoact2.evaluation.depth_view import DepthView, view_thought
from molmoact2.evaluation.film import named_images
from molmoact2.evaluation.rerun_log import TRUTH_NUMBERS, TRUTH_PICTURES, RerunLog, log_thought, numbered
from molmoact2.inference import MolmoAct2Policy
from molmoact2.inference.request import ActOptions
from molmoact2.processing import TagStats
from molmoact2.processing.observation import PREFIX, checked_images
from molmoact2.types import ActionChunk, DepthReasoning, Image, Observation


@dataclass(frozen=True, kw_only=True)
class Look:
    """A recorded frame, and what a policy made of it."""

    frame: Frame
    observation: Observation
    chunk: ActionChunk
    thought: DepthReasoning
    """Of the chunk."""
    truth: DepthTruth | None
    """Beside what was thought, where the true depth is known."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """How a policy walks through an episode."""

    policy: MolmoAct2Policy
    tag: TagStats
    dataset: LeRobotDataset
    episode: int
    every: int = 1
    """Frames from one look to the next."""
    instruction: str | None = None
    """In place of the recorded one."""
    options: ActOptions = field(default_factory=lambda: ActOptions())
    """For `act`. With a session in them, every look remembers the one before."""
    truth: EpisodeTruth | None = None
    """True depth of the main camera."""

    def __post_init__(self) -> None:
        check_episode(self.dataset, self.episode)
        require(self.every > 0, f"Frames from one look to the next must be at least 1, got {self.every}.")

    @property
    def num_moments(self) -> int:
        """Looks of the whole walk."""
        return -(-self.dataset.episodes[self.episode].length // self.every)

    @property
    def moments_per_second(self) -> float:
        """Looks per second of the robot's time."""
        return self.dataset.fps / self.every

    @property
    def viewer_paths(self) -> tuple[Sequence[str], Sequence[str]]:
        """Pictures and groups of numbers that get a view of their own in the viewer."""
        cameras, has_truth = [f"cameras/{name}" for name in self.dataset.cameras], self.truth is not None
        numbers = ["actions", "state", "cells", "gates", *TRUTH_NUMBERS * has_truth]
        return [*cameras, "depth", *TRUTH_PICTURES * has_truth], numbers

    def moments(self) -> Iterator[Look]:
        """Ask the policy at frame after frame; ValueError where it cannot think."""
        options: ActOptions = {**self.options, "think": True}
        for frame in islice(self.dataset.stream([self.episode]), 0, None, self.every):
            words = self.instruction or frame.task
            observation = Observation(images=frame.images, state=frame.state, instruction=words)
            chunk = self.policy.act(observation, self.tag.tag, **options)
            assert chunk.depth is not None
            truth = self.truth and self.truth.of(frame.frame_index, chunk.depth.codes)
            yield Look(frame=frame, observation=observation, chunk=chunk, thought=chunk.depth, truth=truth)

    def view(self, look: Look) -> DepthView:
        """A look as pictures."""
        time_s = look.frame.timestamp_s
        return view_observation(look.observation, look.thought, self.tag, time_s=time_s, truth=look.truth)

    def log(self, log: RerunLog, look: Look) -> None:
        """Log a look for the viewer; of the plan, the rows until the next look."""
        frame, period_s = look.frame, 1 / self.dataset.fps
        camera, _ = main_camera(look.observation, self.tag)
        log.at(frame.frame_index, frame.timestamp_s)
        for name, image in frame.images.items():
            log.image(f"cameras/{name}", image)
        log.cells(f"cameras/{camera}/renewed", look.thought.changed, frame.images[camera])
        log_thought(log, look.thought, look.truth)
        log.numbers("cells", ["passes"], np.array([look.thought.passes]))
        log.numbers("state", numbered(self.tag.state.names, len(frame.state)), frame.state)
        names = numbered(self.tag.action.names, len(frame.action))
        log.numbers("actions/recorded", names, frame.action)
        for later, row in enumerate(look.chunk.actions[: self.every]):
            log.at(frame.frame_index + later, frame.timestamp_s + later * period_s)
            log.numbers("actions/planned", names, row)


def main_camera(observation: Observation, tag: TagStats) -> tuple[str, Image]:
    """Name and image of the camera whose depth a policy thinks about."""
    image = checked_images(observation.images, tag.camera_keys)[0]
    return first_camera(tag, named_images(observation)), image


def first_camera(tag: TagStats, cameras: Iterable[str]) -> str:
    """Name of the first camera that a robot's policy sees; where it takes any, the first of `cameras`."""
    return [*tag.camera_keys, *cameras][0].removeprefix(PREFIX)


def truth_for(
    policy: MolmoAct2Policy, tag: TagStats, dataset: LeRobotDataset, episode: int, words: str
) -> EpisodeTruth:
    """True depth of what a policy thinks about in an episode, from the source that `words` name.

    Raises ValueError where the checkpoint has no depth codec, or as `open_truth` does.
    """
    codec = policy.depth_codec
    if codec is None:
        raise ValueError(
            "This checkpoint has no depth codec (a folder depth_codec) that says what its codes mean, so they cannot "
            "be compared with the truth. Leave out --true-depth."
        )
    return open_truth(words, dataset, episode, first_camera(tag, dataset.cameras), codec)


def view_observation(
    observation: Observation,
    thought: DepthReasoning,
    tag: TagStats,
    *,
    time_s: float = 0.0,
    truth: DepthTruth | None = None,
) -> DepthView:
    """What was seen beside what was thought."""
    camera, image = main_camera(observation, tag)
    headline = f"“{observation.instruction}”"
    return view_thought(image, thought, camera=camera, headline=headline, time_s=time_s, truth=truth)
