"""How depth labels were made, and of which dataset: `meta/depth.json` of a companion dataset."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from molmoact2.data.errors import require
from molmoact2.data.files import read_json
from molmoact2.data.schema import ExtraColumn
from molmoact2.tokens.reading import read_field, read_list

CODEC_FOLDER = "codec"
"""Folder of a companion dataset with the codec that made it, so that its codes can be seen and what learns them too."""
RUN_PATH = "meta/depth.json"
PARTS = {"codes": "int64", "buffer_codes": "int64", "updated": "bool"}
"""What is stored of each camera -> its type."""
TEXTS, COUNTS = ("dataset", "source", "unit", "codec"), ("num_episodes", "num_frames", "num_codes", "side")
"""Fields of `LabelRun` by type."""


@dataclass(frozen=True, kw_only=True)
class LabelRun:
    """All that makes a difference to the labels of one shard."""

    dataset: str
    """Fingerprint of the labelled dataset."""
    num_episodes: int
    """Of the whole labelled dataset."""
    num_frames: int
    source: str
    """Name of the depth source."""
    unit: str
    """Of its depth: "m" or "inverse"."""
    cameras: tuple[str, ...]
    codec: str
    """Fingerprint of the codec."""
    num_codes: int
    """Size of its codebook."""
    side: int
    """Cells along a side of the map."""
    scale: Mapping[str, Any]
    """What the codec's levels stand for: kind, low and high."""
    shard: tuple[int, int] = (0, 1)
    """Which shard, from 0, of how many."""

    def __post_init__(self) -> None:
        index, count = self.shard
        is_shard = 0 <= index < count <= max(self.num_episodes, 1)
        allowed = f"from 0/N to N-1/N with N at most the {self.num_episodes} episodes of the dataset"
        require(is_shard, f"A shard is its number and how many there are, {allowed}; got {index}/{count}.")
        is_named = len(self.cameras) > 0 and len(set(self.cameras)) == len(self.cameras)
        require(is_named, f"Depth labels need at least one camera, each of them once, got {list(self.cameras)}.")

    @property
    def episodes(self) -> range:
        """Episodes of the dataset that this shard labels."""
        index, count = self.shard
        return range(index * self.num_episodes // count, (index + 1) * self.num_episodes // count)

    @property
    def num_cells(self) -> int:
        """Codes of one frame of one camera."""
        return self.side**2

    def place(self, folder: Path) -> Path:
        """Where this shard is in the companion dataset `folder`; one that is not split is the folder itself."""
        index, count = self.shard
        return folder / f"shard-{index}-of-{count}" if count > 1 else folder

    def columns(self) -> dict[str, ExtraColumn]:
        """The columns of all labelled cameras."""
        cells = tuple(f"row {row} column {column}" for row in range(self.side) for column in range(self.side))
        return {
            column_name(camera, part): ExtraColumn(dtype=dtype, names=cells)
            for camera in self.cameras
            for part, dtype in PARTS.items()
        }

    def as_json(self) -> dict[str, Any]:
        """What `read_run` reads."""
        return asdict(self) | {"cameras": list(self.cameras), "scale": dict(self.scale), "shard": list(self.shard)}


def read_run(root: Path) -> LabelRun:
    """Read how the companion dataset at `root` was made; ValueError, naming the file, when that is malformed."""
    path = root / RUN_PATH
    document, file = read_json(path), str(path)
    shard = read_list(document, "shard", int, file)
    require(len(shard) == 2, f"{path}: 'shard' must be two numbers, got {list(shard)}.")
    counts = {name: read_field(document, name, int, file) for name in COUNTS}
    require(min(counts.values()) > 0, f"{path}: these must be positive: {counts}.")
    return LabelRun(
        **{name: read_field(document, name, str, file) for name in TEXTS},  # type: ignore[arg-type]
        **counts,  # type: ignore[arg-type]
        cameras=read_list(document, "cameras", str, file),
        scale=read_field(document, "scale", dict, file),
        shard=(shard[0], shard[1]),
    )


def column_name(camera: str, part: str) -> str:
    """The column of one part of a camera's labels."""
    return f"depth.{camera}.{part}"
