"""How good a depth codec is, on episodes that it has not seen: errors, use of its codes, and flicker.

Flicker is the share of cells that get another code from one frame to the next although nothing happened in them. Two
definitions of nothing are counted side by side: the change map of depth reasoning sees no change in the camera's images
(`depth/change.py`), and no true depth of the cell moved by more than `STILL_M`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from molmoact2.depth.change import changed_cells
from molmoact2.depth.codec import BATCH, DepthCodec
from molmoact2.depth.fit import CodeUsage, code_usage
from molmoact2.depth.scale import resized

STILL = {"m": 0.001, "inverse": 0.01}
"""A cell is still when no depth in it moved by more than this, in the unit of the source."""
IN_FRONT = {"m": 0.01, "inverse": 0.1}
"""A pixel shows something that moves when it is this much nearer than it is at its farthest in the episode."""
EVERY = 8
"""Of the pixels of a map, the median is taken over each so-manieth row and column."""

Depth = Float32[np.ndarray, "n h w"]


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One episode to measure on."""

    depth: Depth
    images: UInt8[np.ndarray, "n h2 w2 3"] | None = None
    """What the camera saw; without, nothing is said about flicker where the images are unchanged."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The unit in which a codec is judged, where that is not its own."""

    unit: Literal["m", "inverse"]
    """Of the depth that is given to `measure_codec`."""
    within: tuple[float, float]
    """Between which depths errors count."""
    seen: Callable[[Depth], Depth]
    """From that unit to the codec's."""
    meant: Callable[[Depth], Depth]
    """Back."""


@dataclass(kw_only=True)
class Share:
    """A count of cases and in how many something was so."""

    hits: int = 0
    total: int = 0

    def add(self, is_case: Bool[np.ndarray, "*n"], is_hit: Bool[np.ndarray, "*n"]) -> None:
        """Count the cases and the hits among them."""
        self.hits += int((is_case & is_hit).sum())
        self.total += int(is_case.sum())

    @property
    def value(self) -> float:
        """Hits per case; NaN without cases."""
        return self.hits / self.total if self.total else np.nan


@dataclass(kw_only=True)
class Errors:
    """Absolute errors of reconstructed depth."""

    total: float = 0.0
    num_pixels: int = 0
    samples: list[np.ndarray] = field(default_factory=list, repr=False)

    def add(self, errors: Depth, counts: Bool[np.ndarray, "n h w"]) -> None:
        """Take in the errors of some pixels."""
        self.total += float(errors[counts].sum(dtype=np.float64))
        self.num_pixels += int(counts.sum())
        thin = (slice(None), slice(EVERY // 2, None, EVERY), slice(EVERY // 2, None, EVERY))
        self.samples.append(errors[thin][counts[thin]])

    @property
    def mean(self) -> float:
        """Mean absolute error; NaN without pixels."""
        return self.total / self.num_pixels if self.num_pixels else np.nan

    @property
    def median(self) -> float:
        """Median absolute error of every `EVERY`-th row and column; NaN without pixels."""
        pixels = np.concatenate(self.samples) if self.samples else np.empty(0)
        return float(np.median(pixels)) if pixels.size else np.nan


@dataclass(kw_only=True)
class CodecQuality:
    """What was measured, in the unit of the codec (or that of `Judged`)."""

    num_codes: int
    codes: list[np.ndarray] = field(default_factory=list, repr=False)
    errors: Errors = field(default_factory=Errors)
    """All pixels within the limits of a fixed scale; without one, all pixels. Or those that `Judged` counts."""
    moving_errors: Errors = field(default_factory=Errors)
    """Those of them that show something that moves, such as the arm and what it carries."""
    unchanged_flicker: Share = field(default_factory=Share)
    """Cells whose images are unchanged -> whose code changes all the same."""
    still_flicker: Share = field(default_factory=Share)
    """Cells whose true depth is still -> whose code changes all the same."""
    changes: Share = field(default_factory=Share)
    """All cells -> whose code changes."""

    @property
    def usage(self) -> CodeUsage:
        """How evenly the codes were used."""
        return code_usage(np.concatenate(self.codes), self.num_codes)

    @property
    def num_frames(self) -> int:
        """Frames measured on."""
        return sum(map(len, self.codes))

    def as_json(self) -> dict[str, float]:
        """The numbers by name."""
        usage = self.usage
        return {
            "num_frames": self.num_frames,
            "num_codes": self.num_codes,
            "codes_used": usage.num_used,
            "perplexity": usage.perplexity,
            "bits_per_cell": usage.bits,
            "mean_error": self.errors.mean,
            "median_error": self.errors.median,
            "moving_mean_error": self.moving_errors.mean,
            "moving_median_error": self.moving_errors.median,
            "flicker_unchanged_images": self.unchanged_flicker.value,
            "flicker_still_depth": self.still_flicker.value,
            "code_changes": self.changes.value,
        }


def measure_codec(codec: DepthCodec, episodes: Iterable[HeldOut], *, judged: Judged | None = None) -> CodecQuality:
    """Encode and decode episodes and compare. Memory is bounded by one episode's depth and a batch of maps."""
    judged = judged or own_judgement(codec)
    quality = CodecQuality(num_codes=codec.config.num_codes)
    for episode in episodes:
        codes = codec.encode(judged.seen(episode.depth))
        quality.codes.append(codes)
        _add_errors(quality, codec, episode.depth, codes, judged)
        _add_flicker(quality, codec, episode, codes, judged.unit)
    return quality


def own_judgement(codec: DepthCodec) -> Judged:
    """In the codec's own unit, within the limits of its scale."""
    scale = codec.config.scale
    ends = ((scale.low, -np.inf), (scale.high, np.inf))
    low, high = (end if limit is None else limit for limit, end in ends)
    return Judged(unit=codec.config.unit, within=(low, high), seen=_same, meant=_same)


def _same(depth: Depth) -> Depth:
    return depth


def reconstructed(codec: DepthCodec, depth: Depth, codes: Int64[np.ndarray, "n cells"]) -> Depth:
    """What the codes of whole episodes say, in the unit of the source."""
    return codec.to_depth(codec.decode(codes), codec.config.scale.limits(depth))


def _add_errors(
    quality: CodecQuality, codec: DepthCodec, depth: Depth, codes: Int64[np.ndarray, "n cells"], judged: Judged
) -> None:
    config, seen = codec.config, judged.seen(depth)
    limits = config.scale.limits(seen)
    is_moving = in_front(depth, judged.unit)
    low, high = judged.within
    is_inside = (depth >= low) & (depth <= high)
    for block in _blocks(len(depth)):
        said = judged.meant(codec.to_depth(codec.decode(codes[block]), limits[block]))
        errors = np.abs(said - resized(depth[block], config.image_size))
        inside = resized(is_inside[block], config.image_size)
        quality.errors.add(errors, inside)
        quality.moving_errors.add(errors, inside & resized(is_moving[block], config.image_size))


def in_front(depth: Depth, unit: str) -> Bool[np.ndarray, "n h w"]:
    """Pixels in front of what they show at their farthest in the episode."""
    margin = IN_FRONT[unit]
    return {"m": depth < depth.max(axis=0) - margin, "inverse": depth > depth.min(axis=0) + margin}[unit]


def _add_flicker(
    quality: CodecQuality, codec: DepthCodec, episode: HeldOut, codes: Int64[np.ndarray, "n cells"], unit: str
) -> None:
    is_other = codes[1:] != codes[:-1]
    quality.changes.add(np.ones_like(is_other), is_other)
    quality.still_flicker.add(still_cells(codec, episode.depth, STILL[unit]), is_other)
    images = [] if episode.images is None else episode.images
    unchanged = [~changed_cells(before, after, side=codec.config.side) for before, after in pairwise(images)]
    is_unchanged = np.array(unchanged, bool).reshape(-1, codec.config.num_cells)
    quality.unchanged_flicker.add(is_unchanged, is_other[: len(unchanged)])


def still_cells(codec: DepthCodec, depth: Depth, most: float) -> Bool[np.ndarray, "n_minus_1 cells"]:
    """For each frame but the first: cells in which no depth moved by more than `most` since the frame before."""
    side, cell = codec.config.side, codec.config.pixels_per_cell
    moved = np.abs(np.diff(depth, axis=0)) > most
    grids = [resized(moved[block], codec.config.image_size) for block in _blocks(len(moved))]
    still = [~grid.reshape(-1, side, cell, side, cell).any(axis=(2, 4)).reshape(len(grid), -1) for grid in grids]
    return np.concatenate([np.empty((0, codec.config.num_cells), bool), *still])


def _blocks(length: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, length, BATCH))
