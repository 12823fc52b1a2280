"""Whose turn it is: which source example `number` is from, how often that source had its turn before, and which of its
frames comes then. All of it in closed form, so that no state has to be kept, passed on or stored.

    number -> source   the point (number · step + start) mod 2⁴⁸ falls into the source's share of that range. The step
                       is the golden ratio's, so that every source comes round evenly, not by the luck of draws
    number -> visit    how many earlier points fell into that share: a sum of floors, found in about 40 steps
    visit  -> frame    visits count epochs of the source, each with a permutation of its frames of its own: a Feistel
                       network, walked along until it lands inside; every frame comes once per epoch
"""

import bisect
import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import require

RANGE = 1 << 48
STEP = 173961102589771
"""The odd number next to 2⁴⁸ / golden ratio."""
ROUNDS = 4


class Turns:
    """Which source has its turn, in given shares."""

    def __init__(self, rates: Sequence[float], *, seed: int) -> None:
        """Share the numbers by `rates`, which need not sum to 1. Raises ValueError for rates that are not above 0."""
        shares = np.asarray(rates, np.float64)
        is_right = len(shares) > 0 and bool((np.isfinite(shares) & (shares > 0)).all())
        require(is_right, f"Every source needs a rate above 0, got {list(rates)}.")
        self.rates: NDArray[np.float64] = shares / shares.sum()
        """[sources] expected share of each."""
        self._edges = [0, *np.rint(self.rates.cumsum()[:-1] * RANGE).astype(np.int64).tolist(), RANGE]
        self._start = key_of("start", seed) % RANGE

    def at(self, number: int) -> tuple[int, int]:
        """Index of the source whose turn number `number` is, and how many turns it had before."""
        require(number >= 0, f"Examples are numbered from 0, got {number}.")
        source = bisect.bisect_right(self._edges, (number * STEP + self._start) % RANGE) - 1
        low, high = self._edges[source : source + 2]
        return source, self._points_below(high, number) - self._points_below(low, number)

    def _points_below(self, edge: int, count: int) -> int:
        """How many of the first `count` points are below `edge`."""
        return floor_sum(count, RANGE, STEP, self._start) - floor_sum(count, RANGE, STEP, self._start - edge)


def numbers_of(
    *, start: int = 0, rank: int = 0, num_ranks: int = 1, worker: int = 0, num_workers: int = 1
) -> Iterator[int]:
    """The numbers from `start` on that one worker of one rank takes.

    Taking turns among the ranks, and within a rank among its workers, gives all numbers in order.
    """
    return itertools.count(start + rank + num_ranks * worker, num_ranks * num_workers)


def floor_sum(n: int, modulus: int, a: int, b: int) -> int:
    """The sum of floor((a · i + b) / modulus) for i = 0 … n - 1, exactly, in as many steps as Euclid's algorithm."""
    total = 0
    while n > 0:
        total += (n - 1) * n // 2 * (a // modulus) + n * (b // modulus)
        a, b = a % modulus, b % modulus
        n, b = divmod(a * n + b, modulus)
        modulus, a = a, modulus
    return total


def permuted(index: int, size: int, key: int) -> int:
    """Where `index` of 0 … size - 1 goes in a permutation that `key` chooses."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(ROUNDS):
            left, right = right, left ^ (_mixed(right, key + turn) & mask)
        index = left << half | right
        if index < size:
            return index


def _mixed(value: int, key: int) -> int:
    """64 bits that look random (the finaliser of SplitMix64)."""
    z = (value * 0x9E3779B97F4A7C15 + key) & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)


def key_of(*parts: str | int) -> int:
    """64 bits from words and numbers, as training.md E.4 makes them for the order of cameras."""
    return int.from_bytes(hashlib.sha256("\n".join(map(str, parts)).encode()).digest()[:8], "little")
