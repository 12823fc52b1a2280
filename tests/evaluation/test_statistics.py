"""Wilson intervals against published values and against the equation that defines them."""

from math import isclose
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.evaluation.statistics import wilson_interval

COUNTS = st.integers(1, 5000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), Table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (94, 100, 0.8752, 0.9722),
        (0, 0, 0.0, 1.0),
    ],
)
def test_known_values(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS, st.floats(0.5, 0.999))
def test_the_bounds_are_z_standard_errors_from_the_rate(counts, confidence):
    successes, trials = counts
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for bound in wilson_interval(successes, trials, confidence=confidence):
        distance = (successes / trials - bound) ** 2
        assert isclose(distance, z**2 * bound * (1 - bound) / trials, rel_tol=1e-6, abs_tol=1e-9)


@given(COUNTS)
def test_it_holds_the_rate_and_stays_between_zero_and_one(counts):
    low, high = wilson_interval(*counts)
    assert 0 <= low <= counts[0] / counts[1] + 1e-12
    assert counts[0] / counts[1] - 1e-12 <= high <= 1


@given(COUNTS)
def test_failures_mirror_successes(counts):
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert wilson_interval(trials - successes, trials) == pytest.approx((1 - high, 1 - low))


@given(COUNTS)
def test_more_episodes_of_the_same_rate_narrow_it(counts):
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    low_more, high_more = wilson_interval(3 * successes, 3 * trials)
    assert high_more - low_more < high - low


@pytest.mark.parametrize(("successes", "trials", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_impossible_counts_are_refused(successes, trials, confidence):
    with pytest.raises(ValueError, match="must be between"):
        wilson_interval(successes, trials, confidence=confidence)
