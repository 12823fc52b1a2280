"""Two policies on the same scenes: which of them does what the other does not, and how sure the difference is.

Paired episodes say more than two rates: scenes that both policies find easy or hard cancel out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import comb, sqrt

from molmoact2.evaluation.ledger import Record
from molmoact2.evaluation.statistics import wilson_interval


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Scenes that two policies met, counted by who succeeded."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def num_scenes(self) -> int:
        """All of them."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Success rate of the second policy less that of the first."""
        return (self.only_second - self.only_first) / self.num_scenes

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the difference, from Wilson's of the two rates and how they go together.

        Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired data,
        Statistics in Medicine 17 (1998), method 10.
        """
        n, first, second = self.num_scenes, self.both + self.only_first, self.both + self.only_second
        first_low, first_high = wilson_interval(first, n)
        second_low, second_high = wilson_interval(second, n)
        below = first_high - first / n, second / n - second_low
        above = first / n - first_low, second_high - second / n
        return self.difference - self._length(below), self.difference + self._length(above)

    @property
    def p_value(self) -> float:
        """Exact McNemar test, two-sided: how likely so uneven a split of the scenes that only one of them did is."""
        uneven = self.only_first + self.only_second
        tail = sum(comb(uneven, k) for k in range(min(self.only_first, self.only_second) + 1))
        return min(1.0, 2 * tail / 2**uneven)

    def _length(self, sides: tuple[float, float]) -> float:
        """Length of the sum of two vectors at the angle whose cosine is minus the correlation."""
        x, y = sides
        return sqrt(max(0.0, x**2 + y**2 - 2 * self._correlation * x * y))

    @property
    def _correlation(self) -> float:
        """Phi coefficient, pulled towards 0 by half a scene where it is positive; 0 where a margin is empty."""
        n, first, second = self.num_scenes, self.both + self.only_first, self.both + self.only_second
        excess = self.both * self.neither - self.only_first * self.only_second
        excess = min(excess, max(0.0, excess - n / 2))
        return excess / sqrt(first * (n - first) * second * (n - second) or 1)


def pair(first: Iterable[Record], second: Iterable[Record]) -> Pairs:
    """Pair the episodes of two runs by task and seed; those that only one of them has so far are left out.

    Raises ValueError where they have no episode in common.
    """
    ours, theirs = ({(r["task"], r["seed"]): bool(r["success"]) for r in run} for run in (first, second))
    outcomes = [(ours[scene], theirs[scene]) for scene in ours.keys() & theirs.keys()]
    if not outcomes:
        raise ValueError("The two runs have no episode in common: they need the same tasks and seeds.")
    return Pairs(
        both=outcomes.count((True, True)),
        only_first=outcomes.count((True, False)),
        only_second=outcomes.count((False, True)),
        neither=outcomes.count((False, False)),
    )
