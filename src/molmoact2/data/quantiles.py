"""Exact statistics of several datasets together, in bounded memory.

Quantiles of a whole are not averages of the quantiles of its parts. So the values at the ranks that a quantile lies
between are looked up: floating-point numbers sort like whole numbers of as many bits, of which 16 are fixed at a time
by counting. Every 16 bits take one pass over the data, so float32 takes two, and the result is what `numpy.quantile`
says about everything at once, to the last bit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import require
from molmoact2.data.statistics import QUANTILES, Statistics

DIGIT_BITS = 16
NUM_DIGITS = 1 << DIGIT_BITS


class StatesAndActions(Protocol):
    """What has statistics: a dataset, or a source of training examples."""

    @property
    def states(self) -> NDArray[np.float32]:
        """[frames, state_dim]"""
        ...

    @property
    def actions(self) -> NDArray[np.float32]:
        """[frames, action_dim]"""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """States and actions of one dataset, and the names of their dimensions."""

    source: str
    """Where they are from, for messages."""
    names: Mapping[str, tuple[str, ...]]
    """ "state" and "action" -> a name per dimension."""
    states: NDArray[np.float32]
    """[frames, state_dim]"""
    actions: NDArray[np.float32]
    """[frames, action_dim]"""


def pooled_statistics(datasets: Sequence[StatesAndActions]) -> dict[str, Statistics]:
    """ "state" and "action" -> exact statistics over all frames of all datasets.

    Raises:
        ValueError: there are no frames, numbers that are not finite, or datasets of different widths.
    """
    return {
        "state": pooled([dataset.states for dataset in datasets]),
        "action": pooled([dataset.actions for dataset in datasets]),
    }


def pooled(parts: Iterable[NDArray[np.floating]]) -> Statistics:
    """Statistics of the rows of all parts [n, d] together: `count` [1], the others [d] float64.

    The parts are gone through three times (five times for float64), one at a time: give an object that reads them anew
    in each `iter` where they do not fit in memory together.

    Raises:
        ValueError: there are no rows, numbers that are not finite, or parts of different widths.
    """
    count, moments, dtype = _moments(parts)
    position = (count - 1) * np.array(list(QUANTILES.values()))
    below = np.floor(position).astype(np.int64)
    ranks = np.concatenate((below, np.minimum(below + 1, count - 1)))
    low, high = np.split(order_statistics(parts, ranks, dtype).astype(np.float64), 2)
    fraction = (position - below)[:, None]
    near_low, near_high = low + (high - low) * fraction, high - (high - low) * (1 - fraction)
    quantiles = np.where(fraction < 0.5, near_low, near_high)  # as numpy.quantile rounds
    return {**moments, "count": np.array([count]), **dict(zip(QUANTILES, quantiles, strict=True))}


def order_statistics(
    parts: Iterable[NDArray[np.floating]], ranks: NDArray[np.int64], dtype: np.dtype
) -> NDArray[np.floating]:
    """The values [k, d] that stand at `ranks` [k] (from 0) when each dimension of all parts [n, d] together is sorted.

    `dtype` is float32 or float64 and must hold the values without loss.
    """
    width = next(iter(parts)).shape[1]
    found = np.zeros((len(ranks), width), np.uint64)
    remaining = np.repeat(ranks[:, None], width, axis=1)
    for shift in range(8 * dtype.itemsize - DIGIT_BITS, -1, -DIGIT_BITS):
        for column, of_prefix in enumerate(_digit_counts(parts, found, shift, dtype)):
            for i, prefix in enumerate(found[:, column].tolist()):
                below = np.concatenate(([0], of_prefix[prefix].cumsum()))
                digit = int(np.searchsorted(below, remaining[i, column], side="right")) - 1
                remaining[i, column] -= below[digit]
                found[i, column] = (prefix << DIGIT_BITS) | digit
    return _values(found, dtype)


def averaging_error(parts: Sequence[Statistics], exact: Statistics) -> dict[str, NDArray[np.float64]]:
    """How far count-weighted averages of the parts' quantiles are from the exact ones: quantile -> [d].

    As a fraction of the exact q99 - q01; 0 where that is 0. The reference implementation averages (training.md C.3).
    """
    counts = np.array([part["count"][0] for part in parts], np.float64)
    width = exact["q99"] - exact["q01"]
    averages = {name: counts @ np.stack([part[name] for part in parts]) / counts.sum() for name in QUANTILES}
    return {
        name: np.divide(np.abs(average - exact[name]), width, out=np.zeros_like(width), where=width > 0)
        for name, average in averages.items()
    }


def _moments(parts: Iterable[NDArray[np.floating]]) -> tuple[int, Statistics, np.dtype]:
    """Number of rows, min, max, mean and std, and the dtype that holds every value."""
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    low, high = np.array([np.inf]), np.array([-np.inf])
    widths, dtype = set[int](), np.dtype(np.float32)
    for part in parts:
        widths.add(part.shape[1])
        require(len(widths) == 1, f"Pooled data must have the same number of dimensions, got {sorted(widths)}.")
        require(bool(np.isfinite(part).all()), "Statistics need finite numbers, but the data hold NaN or infinity.")
        dtype = np.result_type(dtype, part.dtype)
        rows = part.astype(np.float64)
        total = count + len(rows)
        own_mean = rows.sum(axis=0) / max(len(rows), 1)
        apart, share = own_mean - mean, len(rows) / max(total, 1)
        squares = squares + ((rows - own_mean) ** 2).sum(axis=0) + apart**2 * count * share
        mean, count = mean + apart * share, total
        low, high = (
            np.minimum(low, rows.min(axis=0, initial=np.inf)),
            np.maximum(high, rows.max(axis=0, initial=-np.inf)),
        )
    require(count > 0, "There are no frames to take statistics of.")
    return count, {"min": low, "max": high, "mean": mean, "std": np.sqrt(squares / count)}, dtype


def _digit_counts(
    parts: Iterable[NDArray[np.floating]], found: NDArray[np.uint64], shift: int, dtype: np.dtype
) -> list[dict[int, NDArray[np.int64]]]:
    """Per dimension: leading bits that were found -> how often each value of the next 16 bits follows them."""
    prefixes = [sorted(set(column)) for column in found.T.tolist()]
    counts: list[dict[int, NDArray[np.int64]]] = [
        {prefix: np.zeros(NUM_DIGITS, np.int64) for prefix in known} for known in prefixes
    ]
    for part in parts:
        for column, of_prefix in enumerate(counts):
            keys = _keys(part[:, column].astype(dtype)) >> np.uint64(shift)
            digits, leading = (keys & np.uint64(NUM_DIGITS - 1)).astype(np.int64), keys >> np.uint64(DIGIT_BITS)
            for prefix, total in of_prefix.items():
                total += np.bincount(digits[leading == np.uint64(prefix)], minlength=NUM_DIGITS)
    return counts


def _keys(values: NDArray[np.floating]) -> NDArray[np.uint64]:
    """Whole numbers that sort as the values do: negative numbers have all their bits turned, others the sign only."""
    bits = values.view(f"u{values.itemsize}").astype(np.uint64)
    sign, every = _masks(values.dtype)
    return np.where(bits & sign, bits ^ every, bits ^ sign)


def _values(keys: NDArray[np.uint64], dtype: np.dtype) -> NDArray[np.floating]:
    """The values that have these keys."""
    sign, every = _masks(dtype)
    bits = np.where(keys & sign, keys ^ sign, keys ^ every)
    return bits.astype(f"u{dtype.itemsize}").view(dtype)


def _masks(dtype: np.dtype) -> tuple[np.uint64, np.uint64]:
    num_bits = 8 * dtype.itemsize
    return np.uint64(1 << (num_bits - 1)), np.uint64((1 << num_bits) - 1)
