"""Where depth comes from: one interface for simulators, depth cameras, estimators and functions of your own.

A depth map is float32 [frames, height, width], as large as the camera's images, in the unit of its source: metres along
the camera's axis, farther is larger; or relative inverse depth, nearer is larger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Unit: TypeAlias = Literal["m", "inverse"]
"""Metres along the camera's axis, or relative inverse depth."""
LOWEST: dict[Unit, float] = {"m": 0.0, "inverse": -np.inf}
"""Smallest value that each unit allows."""

Dataset = TypeVar("Dataset", contravariant=True)
Record = TypeVar("Record", contravariant=True)


class DepthSource(Protocol[Dataset, Record]):
    """Knows the depth of an episode's images. `Dataset` and `Record` say what it needs of a dataset and an episode."""

    @property
    def name(self) -> str:
        """What it is called in the labels and in errors."""
        ...

    @property
    def unit(self) -> Unit:
        """Unit of its depth maps."""
        ...

    def episode(self, dataset: Dataset, record: Record, camera: str) -> NDArray[np.float32]:
        """Depth [frames, height, width] of all frames of one camera in one episode of an open dataset."""
        ...


@runtime_checkable
class Pictured(Protocol):
    """A dataset, as far as a source needs it that looks at images only."""

    def episode_images(self, episode_index: int, camera: str, /) -> NDArray[np.uint8]:
        """All images [frames, height, width, 3] of one camera in an episode."""
        ...


@runtime_checkable
class Numbered(Protocol):
    """An episode, as far as a source needs it that looks at images only."""

    @property
    def episode_index(self) -> int:
        """Its number in the dataset."""
        ...


@dataclass(frozen=True, kw_only=True)
class CallableDepth:
    """Any function as a source. To label with several workers it must be picklable."""

    function: Callable[[Any, Any, str], NDArray[np.floating]]
    """Called with the dataset, the record of an episode and the camera; returns depth [frames, height, width]."""
    unit: Unit
    name: str

    def episode(self, dataset: Any, record: Any, camera: str) -> NDArray[np.float32]:
        """What the function says."""
        return np.asarray(self.function(dataset, record, camera))


@dataclass(frozen=True, kw_only=True)
class ExpectedDepth:
    """What depth maps of one episode must be like."""

    source: str
    unit: Unit
    episode_index: int
    camera: str
    num_frames: int
    size: tuple[int, int]
    """(height, width) of the camera's images, in pixels."""

    def check(self, depth: NDArray[Any]) -> NDArray[np.float32]:
        """Return `depth` as float32.

        Raises ValueError, naming source, episode and frame, unless it is finite numbers [num_frames, *size], and none
        of them negative where they are metres.
        """
        shape = [self.num_frames, *self.size]
        self._require(depth.ndim == 3, f"has {depth.ndim} dimensions, not 3: [frames, height, width]", "Reshape it")
        count = f"has {len(depth)} frames, the episode has {self.num_frames}"
        self._require(len(depth) == self.num_frames, count, "Give one map per frame")
        size = f"is {list(depth.shape[1:])} in size, the images of the camera are {shape[1:]} (height, width)"
        self._require(list(depth.shape) == shape, size, "Align and resize it to them")
        self._require(depth.dtype.kind in "fiu", f"is {depth.dtype}, not numbers", "Convert it to float32")
        values = depth.astype(np.float32, copy=False)
        for name, is_right in (
            ("NaN or infinity", np.isfinite(values)),
            ("negative metres", values >= LOWEST[self.unit]),
        ):
            wrong = np.flatnonzero(~is_right.all(axis=(1, 2)))
            where = f"holds {name} in {len(wrong)} frames, the first of them frame {[*wrong, -1][0]}"
            self._require(not len(wrong), where, "Fill what was not measured, or leave the episode out")
        return values

    def _require(self, is_right: bool, problem: str, fix: str) -> None:
        if not is_right:
            place = f"depth of camera {self.camera!r} in episode {self.episode_index}"
            raise ValueError(f"Source {self.source!r}: the {place} {problem}. {fix}.")
