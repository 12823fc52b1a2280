"""What the rules of a check look at: the numbers of a dataset as arrays, and a bounded sample of its images.

Rules see no files. A `Material` is made from an opened dataset, or in tests from arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.embodiments import Embodiment

SLACK = 0.05
"""How far beyond a limit a value may be, as a fraction of the allowed range."""
GRIPPER_LIMITS = {"fraction": (0.0, 1.0), "percent": (0.0, 100.0)}
ABSOLUTE_LIMITS = {"deg": (-270.0, 270.0), "rad": (-4.8, 4.8), "m": (-3.0, 3.0), **GRIPPER_LIMITS}
"""Unit -> the widest range that a position of a usual arm has."""
DELTA_LIMITS = {"m": (-0.25, 0.25), "rad": (-1.6, 1.6), **GRIPPER_LIMITS}
"""Unit -> the widest range of a change within one step; a gripper's command is a position all the same."""
UNLIMITED = (np.nan, np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Vector:
    """The state or the action of all frames."""

    kind: str
    """ "state" or "action"."""
    raw: NDArray[np.floating]
    """[frames, d] as stored, in robot units."""
    names: tuple[str, ...]
    """Of the dimensions; numbered where the dataset does not name them."""
    units: tuple[str, ...]
    """Of the dimensions, as in `Embodiment.action_units`; "" where unknown."""
    limits: NDArray[np.float64]
    """[d, 2] lowest and highest value that is possible; NaN where unknown."""

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """[frames, d] with what is not finite replaced by the last finite value before it, or by 0."""
        is_good = np.isfinite(self.raw)
        rows = np.where(is_good, np.arange(len(self.raw))[:, None], -1)
        last = np.maximum.accumulate(rows, axis=0)
        filled = np.take_along_axis(self.raw, np.maximum(last, 0), axis=0)
        return np.where(last < 0, 0.0, filled).astype(np.float64)

    @cached_property
    def quantiles(self) -> NDArray[np.float64]:
        """[5, d] min, q01, median, q99 and max."""
        return np.quantile(self.values, [0, 0.01, 0.5, 0.99, 1], axis=0)

    @property
    def span(self) -> NDArray[np.float64]:
        """[d] distance from the 1st to the 99th percentile."""
        return self.quantiles[3] - self.quantiles[1]

    @property
    def range(self) -> NDArray[np.float64]:
        """[d] distance from the lowest to the highest value."""
        return self.quantiles[4] - self.quantiles[0]

    @cached_property
    def clipped(self) -> NDArray[np.float64]:
        """[d] share of the values that the q01/q99 normalisation clips."""
        return ((self.values < self.quantiles[1]) | (self.values > self.quantiles[3])).mean(axis=0)

    def label(self, dimension: int | np.integer) -> str:
        """For instance "action gripper"."""
        return f"{self.kind} {self.names[dimension]}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Some images of one camera in one episode."""

    camera: str
    episode: int
    frames: NDArray[np.int64]
    """[n] frames since the start of the episode, rising."""
    images: NDArray[np.uint8]
    """[n, height, width, 3] RGB."""
    problem: str = ""
    """Why there are no images, where the video could not be read."""


@dataclass(frozen=True, kw_only=True)
class VideoLength:
    """How long the video of one episode is, and how long it should be."""

    camera: str
    episode: int
    promised_frames: float
    """What the table of episodes says about the video."""
    stored_frames: float
    """Frames that the file holds from the start of the episode on; NaN where the file does not say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """A dataset, laid out for inspection. Frames of all episodes stand one after the other."""

    source: str
    fps: float
    state: Vector
    action: Vector
    timestamps: NDArray[np.floating]
    """[frames] seconds since the start of the episode."""
    starts: NDArray[np.int64]
    """[episodes] first frame of each; the first is 0."""
    instructions: tuple[str, ...]
    """Of each episode."""
    cameras: tuple[str, ...] = ()
    embodiment: Embodiment | None = None
    has_names: bool = True
    """Whether the dataset itself names all its dimensions."""
    samples: tuple[Sample, ...] = ()
    video_lengths: tuple[VideoLength, ...] = ()
    missing_videos: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Path of a video that is not there -> the episodes in it."""
    has_images: bool = False
    """Whether images were looked at."""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vectors(self) -> tuple[Vector, Vector]:
        """State and action."""
        return self.state, self.action

    @property
    def num_frames(self) -> int:
        """Frames of all episodes."""
        return len(self.timestamps)

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.starts)

    @property
    def robot(self) -> Embodiment:
        """The embodiment, for rules that need it and so are not asked without."""
        assert self.embodiment is not None
        return self.embodiment

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """[episodes] frames of each."""
        return np.diff(np.append(self.starts, self.num_frames))

    @cached_property
    def episode_of(self) -> NDArray[np.int64]:
        """[frames] the episode of each frame."""
        return np.repeat(np.arange(self.num_episodes), self.lengths)

    @cached_property
    def frame_of(self) -> NDArray[np.int64]:
        """[frames] frames since the start of the episode."""
        return np.arange(self.num_frames) - self.starts[self.episode_of]

    @cached_property
    def is_inner(self) -> NDArray[np.bool_]:
        """[frames - 1] whether frame i + 1 belongs to the same episode as frame i."""
        return np.diff(self.episode_of) == 0

    @property
    def is_absolute(self) -> bool:
        """Whether an action says where to be, not by how much to move. Assumed where no embodiment is known."""
        return self.embodiment is None or "absolute" in self.embodiment.control_mode

    @cached_property
    def shared(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """State dimensions and the action dimensions of the same name."""
        pairs = [
            (row, self.action.names.index(name))
            for row, name in enumerate(self.state.names)
            if name in self.action.names
        ]
        states, actions = np.array(pairs, np.int64).reshape(-1, 2).T
        return states, actions

    @property
    def gaps(self) -> dict[str, str]:
        """What this material lacks -> why; rules that need it cannot look."""
        lacking = {
            "embodiment": (self.embodiment is None, "the robot is unknown: name it with --embodiment"),
            "absolute": (not self.is_absolute, "actions of this robot are changes, not positions"),
            "shared": (not len(self.shared[0]), "no dimension of the state has the name of one of the action"),
            "images": (not self.has_images, "images were not looked at"),
            "cameras": (not self.cameras, "there are no cameras"),
        }
        return {name: reason for name, (is_lacking, reason) in lacking.items() if is_lacking}

    def per_episode(self, ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """[episodes, …] `values` [frames, …] reduced over each episode, for instance with `np.maximum`."""
        return ufunc.reduceat(values, self.starts, axis=0)


def make_vector(kind: str, values: NDArray[np.floating], names: Sequence[str], embodiment: Embodiment | None) -> Vector:
    """A state or action with what the embodiment says about dimensions of these names."""
    names = tuple(names) or tuple(f"{index}" for index in range(values.shape[1]))
    units, limits = ("",) * len(names), [UNLIMITED] * len(names)
    if embodiment:
        by_name = {canonical(name): index for index, name in enumerate(embodiment.action_names)}
        is_position = kind == "state" or "absolute" in embodiment.control_mode
        table = ABSOLUTE_LIMITS if is_position else DELTA_LIMITS
        widest = tuple(table.get(unit, UNLIMITED) for unit in embodiment.action_units)
        exact = embodiment.action_limits or widest
        where = [by_name.get(canonical(name)) for name in names]
        units = tuple("" if index is None else embodiment.action_units[index] for index in where)
        limits = [UNLIMITED if index is None else exact[index] for index in where]
    return Vector(kind=kind, raw=values, names=names, units=units, limits=np.array(limits, np.float64).reshape(-1, 2))


def canonical(name: str) -> str:
    """A dimension's name without what recorders put around it: "main_shoulder_pan.pos" is "shoulder_pan"."""
    return name.strip().lower().removeprefix("main_").removesuffix(".pos")
