"""Exact statistics of columns and of pixels.

Every number is over all frames, not a sample: quantiles of vectors come from the whole column, quantiles of images from
histograms of the 256 levels, which add up over episodes and lose nothing. Quantiles between two values are interpolated
linearly, as `numpy.quantile` does.
"""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
LEVELS = 256

Statistics: TypeAlias = dict[str, NDArray[Any]]
"""Name of a statistic (min, max, mean, std, count, q01, q10, q50, q90, q99) -> its values; `count` is [1] frames."""


def column_statistics(column: NDArray[Any]) -> Statistics:
    """Statistics of a column [frames] or [frames, d]: `count` [1], the others [1] or [d].

    `min` and `max` have the dtype of the column, the others are float64.
    """
    rows = column.reshape(len(column), -1)
    values = rows.astype(np.float64)
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([len(values)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


def pixel_histogram(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count how often each level occurs in each channel of `images` [..., 3]; returns [3, 256]."""
    channels = images.reshape(-1, 3).T
    return np.stack([np.bincount(channel, minlength=LEVELS) for channel in channels]).astype(np.int64)


def image_statistics(histogram: NDArray[np.int64], num_frames: int) -> Statistics:
    """Statistics of pixels scaled to [0, 1], from a histogram [3, 256]: `count` [1], the others [3, 1, 1] float64."""
    levels = np.arange(LEVELS) / (LEVELS - 1)
    num_pixels = histogram.sum(axis=1)
    mean = histogram @ levels / num_pixels
    deviation = levels[None] - mean[:, None]
    per_channel = {
        "min": _order_statistic(histogram, np.zeros(3, np.int64)),
        "max": _order_statistic(histogram, num_pixels - 1),
        "mean": mean,
        "std": np.sqrt((histogram * deviation**2).sum(axis=1) / num_pixels),
        **{name: _quantile(histogram, q) for name, q in QUANTILES.items()},
    }
    return {name: value.reshape(3, 1, 1) for name, value in per_channel.items()} | {"count": np.array([num_frames])}


def _quantile(histogram: NDArray[np.int64], q: float) -> NDArray[np.float64]:
    """Quantile `q` of each channel, between the two pixels around it."""
    position = q * (histogram.sum(axis=1) - 1)
    below = np.floor(position).astype(np.int64)
    low, high = (_order_statistic(histogram, rank) for rank in (below, np.ceil(position).astype(np.int64)))
    return low + (high - low) * (position - below)


def _order_statistic(histogram: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.float64]:
    """The pixel, in [0, 1], that stands at `rank` [3] (from 0) when each channel is sorted."""
    return (histogram.cumsum(axis=1) <= rank[:, None]).sum(axis=1) / (LEVELS - 1)
