"""How far decoded depth is from the truth, in metres."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from molmoact2.data import LeRobotDataset
from molmoact2.data.errors import require
from molmoact2.depth.codec import DepthCodec
from molmoact2.depth.sources import ExpectedDepth
from molmoact2.evaluation.depth_sources import choose_source
from molmoact2.types import DepthReasoning


@dataclass(frozen=True, kw_only=True)
class DepthTruth:
    """True depth of one image, and what codes say of it."""

    truth: NDArray[np.float32]
    """[height, width] metres; beyond the codec's scale, the end of the scale."""
    estimate: NDArray[np.float32]
    """[height, width] metres, decoded from the codes that are judged."""
    best: NDArray[np.float32]
    """[height, width] metres, decoded from the codes of the truth itself: the best that codes can say."""
    picture: NDArray[np.uint8]
    """[height, width, 3] the truth in the colours of decoded maps."""

    @property
    def error_mm(self) -> float:
        """Mean absolute error of the estimate, in millimetres."""
        return mean_error_mm(self.estimate, self.truth)

    @property
    def best_error_mm(self) -> float:
        """Mean absolute error of the best that codes can say, in millimetres."""
        return mean_error_mm(self.best, self.truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeTruth:
    """True depth of one camera in one episode, for codes of a codec."""

    codec: DepthCodec
    depth: NDArray[np.float32]
    """[frames, height, width] metres"""

    def __post_init__(self) -> None:
        unit = self.codec.config.unit
        require(
            unit == "m",
            f"The codec speaks of relative inverse depth ({unit}), so an error in millimetres has no meaning. "
            "Leave out the true depth, or use a codec that was fitted to metres.",
        )

    def of(self, frame: int, codes: NDArray[np.int64]) -> DepthTruth:
        """The truth of a frame beside codes [cells] of it."""
        low, high = self.limits[frame]
        truth = np.clip(self.depth[frame], low, high)
        return DepthTruth(
            truth=truth,
            estimate=self.decoded(frame, codes),
            best=self.decoded(frame, self.codes[frame]),
            picture=self.codec.coloured((truth - low) / (high - low)),
        )

    def decoded(self, frame: int, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Codes [cells] as depth [height, width] in metres, on the scale of a frame."""
        values = self.codec.to_depth(self.codec.decode(codes[None]), self.limits[[frame]])[0]
        size = self.depth.shape[1:]
        return np.asarray(PillowImage.fromarray(values).resize(size[::-1], PillowImage.Resampling.BILINEAR))

    @cached_property
    def limits(self) -> NDArray[np.float32]:
        """[frames, 2] ends of the codec's scale in metres."""
        return self.codec.config.scale.limits(self.depth)

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """[frames, cells] of the truth itself."""
        return self.codec.encode(self.depth)


def open_truth(words: str, dataset: LeRobotDataset, episode: int, camera: str, codec: DepthCodec) -> EpisodeTruth:
    """True depth of a camera in an episode, from the source that `words` name.

    Raises ValueError for sources and codecs that are not in metres, and for depth that does not fit the images.
    """
    check_episode(dataset, episode)
    choice = choose_source(words, dataset, (camera,), "cpu")
    require(choice.unit == "m", f"True depth is in metres, the source {choice.name!r} knows it only relatively.")
    record = dataset.episodes[episode]
    expected = ExpectedDepth(
        source=choice.name,
        unit=choice.unit,
        episode_index=episode,
        camera=camera,
        num_frames=record.length,
        size=dataset.image_size(camera),
    )
    return EpisodeTruth(codec=codec, depth=expected.check(choice.open(dataset).episode(dataset, record, camera)))


@runtime_checkable
class DepthCamera(Protocol):
    """An environment that knows the depth of its images."""

    def observe_depth(self, camera: str) -> NDArray[np.float32]:
        """[height, width] metres along the camera's axis."""
        ...


def judge_by(environment: object, codec: DepthCodec | None) -> Callable[[str, DepthReasoning], float] | None:
    """What tells the mean error, in millimetres, of a thought about what a camera of a simulator sees now.

    None where that cannot be known: without a codec in metres, for one whose scale is that of a whole episode, which is
    not over yet, and in environments that do not know depth.
    """
    is_known = codec is not None and codec.config.unit == "m" and codec.config.scale.kind != "episode"
    if codec is None or not is_known or not isinstance(environment, DepthCamera):
        return None

    def judge(camera: str, thought: DepthReasoning) -> float:
        truth = EpisodeTruth(codec=codec, depth=environment.observe_depth(camera)[None])
        return truth.of(0, thought.codes).error_mm

    return judge


def check_episode(dataset: LeRobotDataset, episode: int) -> None:
    """ValueError unless the dataset has this episode."""
    count = len(dataset.episodes)
    require(0 <= episode < count, f"There is no episode {episode}; the dataset has the episodes 0 to {count - 1}.")


def mean_error_mm(estimate: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Mean absolute difference of two depth maps in metres, in millimetres."""
    return 1000 * float(np.abs(estimate.astype(np.float64) - truth).mean())
