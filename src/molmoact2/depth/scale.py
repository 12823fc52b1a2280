"""From depth to the 256 levels that a codec sees, and back.

    level = trunc((depth - low) / (high - low + 1e-8) · 255)

The reference takes low and high from each map by itself (training.md G), so that the codes of a still scene change when
one far pixel does. `DepthScale` offers the limits of a whole episode and fixed ones as well.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8

from molmoact2.tokens.reading import require

KINDS = ("frame", "episode", "fixed")
TOP = 255
"""The highest level."""
NOT_ZERO = 1e-8
"""Keeps a map of one depth from dividing by zero; as in the reference."""


@dataclass(frozen=True, kw_only=True)
class DepthScale:
    """Which depths the lowest and the highest level stand for."""

    kind: Literal["frame", "episode", "fixed"] = "frame"
    """Least and greatest depth of each map (the reference), of all maps given together, or `low` and `high`."""
    low: float | None = None
    """Lower limit of kind "fixed", in the unit of the depth source."""
    high: float | None = None
    """Upper limit of kind "fixed", in the unit of the depth source."""

    def __post_init__(self) -> None:
        require(self.kind in KINDS, f"The kind of a depth scale must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        has_limits = self.low is not None and self.high is not None
        has_none = self.low is None and self.high is None
        require(
            has_limits if self.kind == "fixed" else has_none,
            f'A depth scale has both limits when it is "fixed" and none otherwise; got {self}.',
        )
        low, high = self.low or 0.0, self.high or 1.0
        require(
            has_none or -np.inf < low < high < np.inf,
            f"The lower limit of a depth scale must be below the upper one, got {self.low} and {self.high}.",
        )

    def limits(self, depth: Float32[np.ndarray, "n h w"]) -> Float32[np.ndarray, "n 2"]:
        """The depth of the lowest and of the highest level, for each map.

        For kind "episode" the maps must be those of one episode, all of them.
        """
        each = np.stack([depth.min(axis=(1, 2)), depth.max(axis=(1, 2))], axis=1)
        together = (each[:, 0].min(initial=np.inf), each[:, 1].max(initial=-np.inf))
        return np.float32({"frame": each, "episode": together, "fixed": (self.low, self.high)}[self.kind]) + np.zeros(
            (len(depth), 2), np.float32
        )


def check_depth(depth: np.ndarray) -> None:
    """Raise ValueError, naming the frame, unless these are depth maps: float32 [n, h, w], all finite."""
    good = depth.ndim == 3 and depth.dtype == np.float32 and depth.size > 0
    require(
        good,
        "Depth maps must be one float32 array [frames, height, width] that is not empty, got "
        f"{list(depth.shape)} of {depth.dtype}.",
    )
    is_bad = ~np.isfinite(depth).all(axis=(1, 2))
    require(
        not is_bad.any(),
        f"Frame {is_bad.argmax()} of the depth has {(~np.isfinite(depth[is_bad.argmax()])).sum()} pixels that are NaN "
        f"or infinite ({is_bad.sum()} of {len(depth)} frames have some). Fill them before, for instance with the depth "
        "of the background.",
    )


def levels_of(depth: Float32[np.ndarray, "n h w"], limits: Float32[np.ndarray, "n 2"]) -> UInt8[np.ndarray, "n h w"]:
    """The level of every pixel, 0 to 255; depth outside the limits (of kind "fixed") gets the end's level."""
    low, high = limits[:, :1, None], limits[:, 1:, None]
    scaled = (depth - low) / (high - low + np.float32(NOT_ZERO)) * np.float32(TOP)
    return np.clip(scaled, 0, TOP).astype(np.uint8)


def resized(maps: Shaped[np.ndarray, "n h w"], size: int) -> Shaped[np.ndarray, "n size size"]:
    """Nearest pixel as OpenCV's INTER_NEAREST takes it: output i is input floor(i · length / size)."""
    rows, columns = (nearest_pixels(length, size) for length in maps.shape[1:])
    return maps[:, rows[:, None], columns]


def nearest_pixels(length: int, size: int) -> np.ndarray:
    """Which of `length` pixels each of `size` is taken from; with OpenCV's rounding of the ratio."""
    ratio = 1.0 / (size / length)
    return np.minimum(np.floor(np.arange(size) * ratio).astype(np.int64), length - 1)


def depth_of(values: Float[np.ndarray, "n h w"], limits: Float32[np.ndarray, "n 2"]) -> Float32[np.ndarray, "n h w"]:
    """Depth that values in [0, 1] stand for, in the unit of the limits.

    A level is what is left when the fraction was cut off, so the middle of what it can have been is half a level above.
    """
    low, high = limits[:, :1, None], limits[:, 1:, None]
    middle = np.minimum(np.float32(values) + np.float32(0.5 / TOP), 1)
    return low + middle * (high - low)
