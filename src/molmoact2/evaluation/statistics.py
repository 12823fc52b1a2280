"""How sure a success rate is.

A rate from n episodes is an estimate. Its Wilson interval is the set of true rates that the observed one does not
contradict; unlike the textbook interval it stays inside [0, 1] and is right for few episodes and for 0 or n successes.
"""

from math import sqrt
from statistics import NormalDist


def wilson_interval(successes: int, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the lowest and highest true rate that `successes` out of `trials` is compatible with.

    Without trials every rate is possible: (0, 1). The bounds solve (rate - p)² = z² p (1 - p) / trials for p.
    """
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be between 0 and trials, got {successes} of {trials}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, for instance 0.95, got {confidence}.")
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = successes / trials
    shrink = 1 + z**2 / trials
    centre = (rate + z**2 / (2 * trials)) / shrink
    half_width = z * sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2)) / shrink
    return max(0.0, centre - half_width), min(1.0, centre + half_width)
