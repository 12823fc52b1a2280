"""Recorded depth of a dataset as a depth source: a column, 16-bit pictures or a lossless 16-bit video.

Whole numbers are millimetres, as depth cameras record them; fractions are metres. Where a camera measured nothing it
writes 0, which stays 0: the codec learns what such holes look like.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from av.error import FFmpegError
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from molmoact2.data.episodes import EpisodeRecord
from molmoact2.data.errors import expect, malformed, require
from molmoact2.data.files import read_table
from molmoact2.data.metadata import is_numeric
from molmoact2.data.pictures import video_path
from molmoact2.data.reader import LeRobotDataset
from molmoact2.depth.sources import Unit
from molmoact2.registry import unknown

M_PER_MM = 1e-3
CAMERA = "{camera}"
"""In the name of a feature: stands for the camera that is labelled."""
LOSSLESS = ("gray16le", "gray16be")
"""Pixel formats of depth videos that hold 16-bit numbers as they are."""
DEPTH_MODES = ("I;16", "I;16B", "I")
"""Kinds of pictures that hold 16-bit numbers as they are."""
ONE_CHANNEL = {3: (), 4: (1, 3)}
"""Dimensions of depth as stored -> axes that may be its one channel."""
NEAR_S = 2e-3
"""How far the time of a video's frame may be from that of its row; containers round to a millisecond."""
READABLE = "Readable are columns of the shape [height, width], 16-bit PNG, and gray16 video without loss."


@dataclass(frozen=True, kw_only=True)
class FeatureDepth:
    """Depth that was recorded beside the images."""

    feature: str
    """Name of the feature; `{camera}` in it stands for the camera."""
    unit: Unit = "m"

    @property
    def name(self) -> str:
        """For instance "feature:observation.depth"."""
        return f"feature:{self.feature}"

    def check(self, dataset: LeRobotDataset, cameras: Sequence[str]) -> None:
        """Raise ValueError unless the dataset has a readable depth feature for each of these cameras."""
        is_clear = CAMERA in self.feature or len(cameras) == 1
        require(is_clear, f"One feature cannot be the depth of {len(cameras)} cameras. Write {CAMERA} in its name.")
        for camera in cameras:
            _kind(dataset, self.feature.replace(CAMERA, camera))

    def episode(self, dataset: LeRobotDataset, record: EpisodeRecord, camera: str) -> NDArray[np.float32]:
        """Depth [frames, height, width] in metres."""
        feature = self.feature.replace(CAMERA, camera)
        depth = READERS[_kind(dataset, feature)](dataset, record, feature)
        depth = depth.squeeze(axis=tuple(axis for axis in ONE_CHANNEL[depth.ndim] if depth.shape[axis] == 1))
        return depth.astype(np.float32) * np.float32({"f": 1.0}.get(depth.dtype.kind, M_PER_MM))


def _kind(dataset: LeRobotDataset, feature: str) -> str:
    """How a feature is stored; ValueError for one that cannot be depth."""
    if feature not in dataset.features:
        raise unknown("feature", feature, dataset.features)
    described = dataset.features[feature]
    kind, shape = "column" if is_numeric(described) else described["dtype"], described["shape"]
    is_map = kind in READERS and (len(shape) == 2 or (len(shape) == 3 and 1 in (shape[0], shape[2])))
    found = f"it is {described['dtype']} of the shape {shape}"
    require(is_map, f"The feature {feature!r} of {dataset.root} is no depth map: {found}. {READABLE}")
    return kind


def _column(dataset: LeRobotDataset, record: EpisodeRecord, feature: str) -> NDArray[Any]:
    """A column of numbers."""
    return dataset.column(feature)[record.from_index : record.to_index]


def _pictures(dataset: LeRobotDataset, record: EpisodeRecord, feature: str) -> NDArray[Any]:
    """16-bit PNG in a data file."""
    path = dataset.root / record.data_shard.path(dataset.info["data_path"])
    rows = _stored_pictures(path, feature)
    contents = rows.filter(pc.field("episode_index") == record.episode_index)[feature].to_pylist()
    return np.stack([_decoded(path, content or {}, feature, index) for index, content in enumerate(contents)])


@lru_cache(maxsize=1)
def _stored_pictures(path: Path, feature: str) -> pa.Table:
    """The pictures in one data file, not decoded; the file that was used last stays in memory."""
    table = read_table(path, columns=("episode_index", feature))
    is_right = {"episode_index", feature} <= set(table.column_names) and pa.types.is_struct(table[feature].type)
    expect(is_right, path, f"the column {feature!r} holds no pictures (a struct with bytes)")
    return table


def _decoded(path: Path, content: Mapping[str, Any], feature: str, frame: int) -> NDArray[Any]:
    place = f"the picture {feature!r} of frame {frame} of an episode"
    try:
        with Image.open(BytesIO(content.get("bytes") or b""), formats=("PNG",)) as image:
            expect(image.mode in DEPTH_MODES, path, f"{place} has the mode {image.mode}, not 16 bits. {READABLE}")
            return np.array(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise malformed(path, f"{place} is no readable PNG ({error})") from error


def _video(dataset: LeRobotDataset, record: EpisodeRecord, feature: str) -> NDArray[Any]:
    """The frames of a 16-bit video that are shown at the times of the episode."""
    path = video_path(dataset.root, dataset.info, feature, record)
    expect(path.is_file(), path, f"the video of episode {record.episode_index} is missing")
    times_s = dataset.column("timestamp")[record.from_index : record.to_index] + record.videos[feature].from_s
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            expect(stream.format.name in LOSSLESS, path, f"its pixels are {stream.format.name}. {READABLE}")
            container.seek(max(0, int(times_s[0] / (stream.time_base or 1))), stream=stream)
            frames = _shown(container.decode(stream), float(times_s[0]), float(times_s[-1]))
            found = {frame.time: frame.to_ndarray(format="gray16le") for frame in frames}
    except (FFmpegError, IndexError) as error:
        raise malformed(path, f"it is cut off, and holds no readable video ({error})") from error
    is_right = len(found) == len(times_s) and np.allclose(list(found), times_s, rtol=0, atol=NEAR_S)
    expect(is_right, path, f"it has {len(found)} frames for the {len(times_s)} of episode {record.episode_index}")
    return np.stack(list(found.values()))


def _shown(frames: Iterable[av.VideoFrame], first_s: float, last_s: float) -> Iterator[av.VideoFrame]:
    """The frames from one time to another."""
    started = dropwhile(lambda frame: frame.time < first_s - NEAR_S, frames)
    return takewhile(lambda frame: frame.time <= last_s + NEAR_S, started)


READERS: dict[str, Callable[[LeRobotDataset, EpisodeRecord, str], NDArray[Any]]] = {
    "column": _column,
    "image": _pictures,
    "video": _video,
}
"""Kind of feature -> what reads the depth of an episode, [frames, height, width] and perhaps an axis of one channel."""
