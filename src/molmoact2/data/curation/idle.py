"""When a robot does nothing, and the spans in which it does something.

A frame is idle when no dimension of the state moves faster than a threshold, and the action does not change either.
Speeds are taken over a short window, so that the last digit of an encoder is no motion. Kept are contiguous spans
without idle frames of at least a second, as for DROID (paper section 1); pauses shorter than `shortest_pause_s` are
part of a motion. The paper says neither thresholds nor how long a pause may be: those numbers are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import require
from molmoact2.data.quality.material import Material

SLOWEST_PER_S = {"deg": 2.0, "rad": 0.035, "m": 0.005, "percent": 4.0, "fraction": 0.04}
"""Unit -> the speed, per second, below which a dimension stands still."""
POSE_UNITS = ("deg", "rad", "m")
"""Of dimensions that are changes where a robot is told changes; the command of a gripper is a position all the same."""


@dataclass(frozen=True, kw_only=True)
class IdleRule:
    """What counts as idle, and what is kept between."""

    slowest_per_s: dict[str, float] = field(default_factory=lambda: dict(SLOWEST_PER_S))
    """Unit, or name of a dimension -> speed per second below which it stands still; the name wins."""
    slowest_fraction_per_s: float = 0.02
    """Where neither is known: as a fraction of the distance from the 1st to the 99th percentile, per second."""
    window_s: float = 0.2
    """Time over which a speed is taken."""
    shortest_pause_s: float = 0.5
    """A pause shorter than this is kept."""
    shortest_span_s: float = 1.0
    """A span shorter than this is dropped."""

    def __post_init__(self) -> None:
        numbers = [*self.slowest_per_s.values(), self.slowest_fraction_per_s, self.window_s]
        numbers += [self.shortest_pause_s, self.shortest_span_s]
        require(all(0 <= n < np.inf for n in numbers), f"The numbers of an idle rule must be 0 or more, got {self}.")

    def thresholds(
        self, names: Sequence[str], units: Sequence[str], spread: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """[d] the speed below which each dimension stands still.

        Args:
            names: of the dimensions.
            units: of the dimensions, "" where unknown.
            spread: [d] distance from the 1st to the 99th percentile, for dimensions of unknown unit.
        """
        known = self.slowest_per_s
        unknown = self.slowest_fraction_per_s * spread
        return np.array(
            [known.get(n, known.get(u, s)) for n, u, s in zip(names, units, unknown, strict=True)], np.float64
        )


class Span(NamedTuple):
    """Frames of one episode that are kept."""

    episode: int
    first: int
    """Frame since the start of the episode."""
    last: int
    """Inclusive."""


def speeds(
    values: NDArray[np.floating], starts: NDArray[np.int64], *, fps: float, window_s: float
) -> NDArray[np.float64]:
    """[frames, d] speed per second around each frame, over at most `window_s`, never across episodes.

    Args:
        values: [frames, d] of all episodes, one after the other.
        starts: [episodes] first frame of each.
        fps: frames per second.
        window_s: seconds; at least one frame before and one after are used where the episode has them.
    """
    rows = np.arange(len(values))
    ends = np.append(starts[1:], len(values))
    episode = np.searchsorted(starts, rows, side="right") - 1
    reach = max(1, round(window_s * fps / 2))
    before, after = np.maximum(rows - reach, starts[episode]), np.minimum(rows + reach, ends[episode] - 1)
    return np.abs(values[after] - values[before]) * fps / np.maximum(after - before, 1)[:, None]


def idle_frames(material: Material, rule: IdleRule) -> NDArray[np.bool_]:
    """[frames] True where the state stands still, and the action neither changes nor, in delta control, asks for it."""
    is_idle = np.ones(material.num_frames, bool)
    for vector in material.vectors:
        speed = speeds(vector.values, material.starts, fps=material.fps, window_s=rule.window_s)
        is_idle &= (speed <= rule.thresholds(vector.names, vector.units, vector.span)).all(axis=1)
    action = material.action
    slowest = rule.thresholds(action.names, action.units, action.span) / material.fps
    asks = ((np.abs(action.values) > slowest) & np.isin(action.units, POSE_UNITS)).any(axis=1)
    return is_idle & (material.is_absolute | ~asks)


def moving_spans(is_idle: NDArray[np.bool_], starts: NDArray[np.int64], *, fps: float, rule: IdleRule) -> list[Span]:
    """The spans to keep, in order: no pause of `shortest_pause_s` or more inside, at least `shortest_span_s` long.

    Args:
        is_idle: [frames] of all episodes, one after the other.
        starts: [episodes] first frame of each.
        fps: frames per second.
        rule: how long pauses and spans are.
    """
    first, length, episode = runs(is_idle, starts)
    is_pause = is_idle[first] & (length >= rule.shortest_pause_s * fps)
    moving = np.repeat(~is_pause, length)
    first, length, episode = runs(moving, starts)
    kept = moving[first] & (length >= rule.shortest_span_s * fps)
    begin = (first - starts[episode])[kept].tolist()
    return [Span(e, b, b + n - 1) for e, b, n in zip(episode[kept].tolist(), begin, length[kept].tolist(), strict=True)]


def runs(
    values: NDArray[np.bool_], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Runs of equal values that do not cross episodes: [n] first row, length and episode of each."""
    is_new = np.zeros(len(values), bool)
    is_new[starts] = True
    is_new[1:] |= values[1:] != values[:-1]
    first = np.flatnonzero(is_new)
    return first, np.diff(np.append(first, len(values))), np.searchsorted(starts, first, side="right") - 1
