"""Pictures of scenes with exact answers to "where is ...": the data of embodied reasoning in small.

A pool is one file of arrays; `molmoact2.reasoning.scenes` renders it, the trainer samples it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.files import written_atomically

LABEL_COLUMNS = ("label.points", "label.points_present", "label.pixels", "label.pixels_inside")
"""What a recording says about where things are; see `molmoact2 record`."""


@dataclass(frozen=True, kw_only=True)
class ScenePool:
    """n scenes seen by v cameras, with o kinds of things; every kind is at most once in a scene."""

    things: NDArray[np.str_]
    """[o] such as "red cube"."""
    cameras: NDArray[np.str_]
    """[v]"""
    images: NDArray[np.uint8]
    """[n, v, height, width, 3]"""
    state: NDArray[np.float32]
    """[n, state_dim] in robot units."""
    place_m: NDArray[np.float32]
    """[n, o, 3] in the robot's base frame, 0 where the thing is absent."""
    is_present: NDArray[np.bool_]
    """[n, o]"""
    pixel: NDArray[np.float32]
    """[n, v, o, 2] fractions of the image's width and height, -1 where the camera does not see it."""

    def __post_init__(self) -> None:
        lengths = {len(vars(self)[name]) for name in ("images", "state", "place_m", "is_present", "pixel")}
        if len(lengths) != 1 or self.images.ndim != 5 or self.pixel.shape[1:3] != (len(self.cameras), len(self.things)):
            raise ValueError(
                f"A scene pool's arrays must agree, got { ({k: v.shape for k, v in vars(self).items()}) }."
            )

    def __len__(self) -> int:
        return len(self.images)

    def save(self, path: Path) -> None:
        """Write the pool; the file appears only when it is complete."""
        with written_atomically(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "ScenePool":
        """Read a pool.

        Raises:
            ValueError: the file is not a scene pool, or is truncated.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except (KeyError, OSError, EOFError, ValueError) as error:
            raise ValueError(f"{path} is not a complete scene pool ({error}). Delete it to render it again.") from error

    @classmethod
    def join(cls, pools: list["ScenePool"]) -> "ScenePool":
        """One pool of several with the same things and cameras."""
        arrays = {name: np.concatenate([vars(pool)[name] for pool in pools])
                  for name in ("images", "state", "place_m", "is_present", "pixel")}  # fmt: skip
        return cls(things=pools[0].things, cameras=pools[0].cameras, **arrays)


def unflatten_labels(labels: Mapping[str, NDArray], *, num_cameras: int, num_things: int) -> dict[str, NDArray]:
    """The fields `place_m`, `is_present` and `pixel` of n examples, from the label columns of a recording."""
    pixel = labels["label.pixels"].reshape(-1, num_cameras, num_things, 2).astype(np.float32)
    inside = labels["label.pixels_inside"].reshape(-1, num_cameras, num_things, 1).astype(bool)
    return {
        "place_m": labels["label.points"].reshape(-1, num_things, 3).astype(np.float32),
        "is_present": labels["label.points_present"].reshape(-1, num_things).astype(bool),
        "pixel": np.where(inside, pixel, np.float32(-1)),
    }
