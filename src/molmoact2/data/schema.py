"""What a dataset holds, and one episode of it.

`DatasetSchema` is the description that a recording starts from; `Episode` is what is added to it and read back.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import require
from molmoact2.embodiments import Embodiment

STATE = "observation.state"
ACTION = "action"
CAMERA_PREFIX = "observation.images."
INDEX_COLUMNS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""Columns of every dataset, one number per frame; `timestamp` is in seconds since the start of the episode."""
EXTRA_DTYPES = ("float32", "float64", "int64", "bool")


@dataclass(frozen=True, kw_only=True)
class ExtraColumn:
    """A numeric column beyond state and action, for instance a reward or the true poses of a simulation."""

    dtype: str = "float32"
    """One of float32, float64, int64, bool."""
    names: tuple[str, ...] = ("value",)
    """One name per dimension; a column of one dimension may be given as [T] or [T, 1]."""

    def __post_init__(self) -> None:
        require(
            self.dtype in EXTRA_DTYPES and len(self.names) > 0,
            f"An extra column needs a dtype among {', '.join(EXTRA_DTYPES)} and at least one name, "
            f"got dtype {self.dtype!r} and names {self.names!r}.",
        )


@dataclass(frozen=True, kw_only=True)
class DatasetSchema:
    """The robot, its cameras and the columns of a dataset."""

    fps: int
    """Frames per second, of states, actions and video alike."""
    robot_type: str
    """What the robot is; we use the embodiment's tag."""
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    image_sizes: Mapping[str, tuple[int, int]]
    """Camera -> (height, width) in pixels, both even; the order is the order in which a policy sees them."""
    extras: Mapping[str, ExtraColumn] = field(default_factory=dict)
    """Name -> further numeric columns."""

    def __post_init__(self) -> None:
        require(isinstance(self.fps, int) and self.fps > 0, f"fps must be an int of at least 1, got {self.fps!r}.")
        require(bool(self.state_names and self.action_names), "A dataset needs at least one state and one action name.")
        for camera, size in self.image_sizes.items():
            require(
                re.fullmatch(r"\w[\w.-]*", camera) is not None,
                f"A camera's name is made of letters, digits, '_', '-' and '.', got {camera!r}.",
            )
            require(
                len(size) == 2 and all(side > 0 and side % 2 == 0 for side in size),
                f"Camera {camera!r}: the image size must be (height, width), both even because video stores colour at "
                f"half resolution, got {size}. Resize or crop the images first.",
            )
        taken = {STATE, ACTION, *INDEX_COLUMNS, "task"}
        wrong = [name for name in self.extras if name in taken or name.startswith(CAMERA_PREFIX) or "/" in name]
        require(not wrong, f"Extra columns may not be called {wrong}: the names mean something else in a dataset.")

    @classmethod
    def for_embodiment(
        cls,
        embodiment: Embodiment,
        *,
        image_size: tuple[int, int],
        cameras: Sequence[str] = (),
        extras: Mapping[str, ExtraColumn] | None = None,
    ) -> "DatasetSchema":
        """The schema of a robot of the table, at its control rate, every camera giving images of one size.

        Args:
            embodiment: the robot.
            image_size: (height, width) in pixels.
            cameras: the cameras, where the embodiment leaves them open; otherwise its own.
            extras: further numeric columns.

        Raises:
            ValueError: when no cameras are known, or the control rate is not a whole number.
        """
        cameras = tuple(cameras) or embodiment.cameras
        tag, rate_hz = embodiment.tag, embodiment.control_hz
        require(bool(cameras), f"Embodiment {tag!r} has no cameras of its own. Name them with cameras=(...).")
        require(rate_hz.is_integer(), f"Embodiment {tag!r} runs at {rate_hz} Hz, but video needs whole fps.")
        return cls(
            fps=int(rate_hz),
            robot_type=tag,
            state_names=embodiment.state_names,
            action_names=embodiment.action_names,
            image_sizes=dict.fromkeys(cameras, image_size),
            extras=extras or {},
        )

    def vector_features(self) -> dict[str, dict[str, Any]]:
        """The numeric columns as `info.json` describes them, without the index columns."""
        columns = {
            STATE: ExtraColumn(names=self.state_names),
            ACTION: ExtraColumn(names=self.action_names),
            **self.extras,
        }
        return {
            name: {"dtype": column.dtype, "shape": [len(column.names)], "names": list(column.names)}
            for name, column in columns.items()
        }

    def check(self, episode: "Episode") -> None:
        """Raise ValueError unless the arrays of `episode` are as this schema says."""
        length = len(episode.action)
        require(length > 0, "An episode needs at least one frame, got none.")
        require(bool(episode.task.strip()), "An episode needs a task in words, got an empty one.")
        _check_names("camera", episode.images, self.image_sizes)
        _check_names("extra column", episode.extras, self.extras)
        for camera, images in episode.images.items():
            _check_array(f"Images of {camera!r}", images, (length, *self.image_sizes[camera], 3), np.uint8)
        for name, feature in self.vector_features().items():
            array = episode.columns()[name]
            plain = (length,) if array.ndim == 1 and feature["shape"] == [1] else (length, *feature["shape"])
            _check_array(f"Column {name!r}", array, plain, feature["dtype"])


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One demonstration: T frames taken at a steady rate."""

    images: Mapping[str, NDArray[np.uint8]]
    """Camera -> [T, height, width, 3] RGB."""
    state: NDArray[np.float32]
    """[T, state_dim] in robot units."""
    action: NDArray[np.float32]
    """[T, action_dim] in robot units: what was commanded after the frame of the same row was seen."""
    task: str
    """The instruction."""
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Further columns, [T] or [T, d]."""

    def columns(self) -> dict[str, NDArray[Any]]:
        """The numeric arrays under the names they have on disk."""
        return {STATE: self.state, ACTION: self.action, **self.extras}


def _check_names(what: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    is_right = set(given) == set(expected)
    require(is_right, f"Expected exactly the {what}s {sorted(expected)}, got {sorted(given)}.")


def _check_array(what: str, array: NDArray[Any], shape: tuple[int, ...], dtype: Any) -> None:
    require(
        array.shape == shape and array.dtype == np.dtype(dtype),
        f"{what} must be {np.dtype(dtype)} of shape {list(shape)}, got {array.dtype} of shape {list(array.shape)}. "
        "Convert or reshape it before adding the episode.",
    )
    is_finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
    require(is_finite, f"{what} must be finite, but holds NaN or infinity. Drop or repair the episode.")
