"""The pictures of a dataset, found by episode and frame: in video files, or as PNG or JPEG in the data files.

Each picture is decoded when it is asked for, and only then. The files that were used last stay open.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from molmoact2.data.decoders import open_video
from molmoact2.data.episodes import EpisodeRecord
from molmoact2.data.errors import expect, malformed
from molmoact2.data.files import read_table
from molmoact2.data.metadata import picture_size
from molmoact2.data.video import TOLERANCE_S

MOST_OPEN_VIDEOS = 16
MOST_OPEN_COLUMNS = 4
"""Data files whose pictures are at hand; of each, one row group is in memory, still encoded."""
RGB_MODES = ("RGB", "L")
"""Kinds of pictures that are RGB, or become it without loss."""

T = TypeVar("T")


class Pictures:
    """Hands out the pictures of one dataset. A process that was forked or unpickled opens its own files."""

    def __init__(self, root: Path, info: Mapping[str, Any]) -> None:
        self._root, self._info = root, info
        self._videos = _Recent(open_video, most=MOST_OPEN_VIDEOS)
        self._columns = _Recent(_StoredPictures, most=MOST_OPEN_COLUMNS)

    def image(self, key: str, record: EpisodeRecord, frame_index: int, timestamp: np.floating) -> NDArray[np.uint8]:
        """The picture [height, width, 3] RGB of a camera at a frame of an episode, `timestamp` seconds from its start.

        Raises ValueError, naming the file, when it is missing, damaged or of another size than the features say.
        """
        if key in record.videos:
            path = video_path(self._root, self._info, key, record)
            expect(path.is_file(), path, f"the video of episode {record.episode_index} is missing")
            time_s, tolerance_s = (
                record.videos[key].from_s + float(timestamp),
                TOLERANCE_S + float(np.spacing(timestamp)),
            )
            image = self._videos.get(path).image_at(time_s, tolerance_s=tolerance_s)
        else:
            path = self._root / record.data_shard.path(self._info["data_path"])
            image = self._columns.get(path, key).image(record.episode_index, frame_index)
        shape = [*picture_size(self._info["features"][key]), 3]
        expect(list(image.shape) == shape, path, f"its images have the shape {list(image.shape)}, not {shape}")
        return image


def video_path(root: Path, info: Mapping[str, Any], key: str, record: EpisodeRecord) -> Path:
    """The file with the video of an episode."""
    return root / record.videos[key].shard.path(info["video_path"], video_key=key)


def decode_picture(content: bytes) -> NDArray[np.uint8]:
    """PNG or JPEG as [height, width, 3] RGB; ValueError, without a place, where it is neither."""
    try:
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
            mode = image.mode
            pixels = np.array(image.convert("RGB"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(f"a picture is no readable PNG or JPEG ({error})") from error
    if mode not in RGB_MODES:
        raise ValueError(f"a picture has the colour mode {mode}, not one of {', '.join(RGB_MODES)}")
    return pixels


class _StoredPictures:
    """The pictures of one camera in one data file: a column of structs with the bytes of a PNG or JPEG."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        rows = read_table(path, columns=("episode_index", "frame_index"))
        self._file = pq.ParquetFile(path)
        kind = dict(zip(self._file.schema_arrow.names, self._file.schema_arrow.types, strict=True)).get(key)
        is_right = kind is not None and pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        expect(is_right, path, f"the column {key!r} is {kind or 'missing'}, not pictures (a struct with bytes)")
        self._episodes, self._frames = (rows[name].to_numpy() for name in ("episode_index", "frame_index"))
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._group = -1
        self._pictures = pa.chunked_array([], kind)

    def image(self, episode_index: int, frame_index: int) -> NDArray[np.uint8]:
        """Decode one picture."""
        where = np.flatnonzero((self._episodes == episode_index) & (self._frames == frame_index))
        place = f"the picture {self._key!r} of frame {frame_index} of episode {episode_index}"
        expect(len(where) > 0, self._path, f"{place} is missing")
        group = int(np.searchsorted(self._starts, where[0], side="right")) - 1
        if group != self._group:
            self._pictures, self._group = self._read(group), group
        content = self._pictures[int(where[0] - self._starts[group])].as_py() or {}
        fix = "Embed the pictures in the data files with LeRobot, or restore this file from its source."
        expect(bool(content.get("bytes")), self._path, f"{place} has no bytes in it", fix)
        try:
            return decode_picture(content["bytes"])
        except ValueError as error:
            raise malformed(self._path, f"{place}: {error}") from error

    def _read(self, group: int) -> pa.ChunkedArray:
        try:
            return self._file.read_row_group(group, columns=[self._key])[self._key]
        except (pa.ArrowException, OSError) as error:
            raise malformed(self._path, f"it was cut off or altered, and cannot be read ({error})") from error


class _Recent(Generic[T]):
    """The things that were opened last, by the arguments that open them. Pickled or forked, it is empty."""

    def __init__(self, make: Callable[..., T], *, most: int) -> None:
        self._make, self._most = make, most
        self._things: OrderedDict[tuple[Any, ...], T] = OrderedDict()
        self._process = os.getpid()

    def get(self, *arguments: Any) -> T:
        if self._process != os.getpid():
            self._things, self._process = OrderedDict(), os.getpid()
        if arguments not in self._things:
            self._things[arguments] = self._make(*arguments)
            if len(self._things) > self._most:
                self._things.popitem(last=False)
        self._things.move_to_end(arguments)
        return self._things[arguments]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_things": OrderedDict(), "_process": -1}
