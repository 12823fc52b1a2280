"""Paired comparisons: cases known in closed form, and whether the intervals hold what they promise."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from molmoact2.evaluation.pairs import Pairs, pair

COUNTS = st.integers(0, 60)


def pairs(both: int, only_first: int, only_second: int, neither: int) -> Pairs:
    return Pairs(both=both, only_first=only_first, only_second=only_second, neither=neither)


def record(task: str, seed: int, success: bool) -> dict:
    return {"task": task, "seed": seed, "success": success}


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [(0, 0, 1), (1, 0, 1), (0, 5, 2 / 32), (5, 0, 2 / 32), (1, 9, 22 / 1024), (4, 4, 1), (10, 10, 1)],
)
def test_p_values_known_by_counting(only_first: int, only_second: int, p_value: float):
    assert pairs(30, only_first, only_second, 7).p_value == pytest.approx(p_value)


def test_without_correlation_the_interval_is_the_one_of_two_rates():
    """Half of each row and column: phi is 0, and Newcombe's interval is the square-and-add of Wilson's."""
    low, high = pairs(25, 25, 25, 25).interval
    half = (0.5962 - 0.5) * 2**0.5
    assert (low, high) == (pytest.approx(-half, abs=1e-3), pytest.approx(half, abs=1e-3))


def test_scenes_that_go_together_narrow_the_interval():
    together, apart = pairs(45, 5, 5, 45), pairs(25, 25, 25, 25)
    assert together.difference == apart.difference == 0
    assert together.interval[1] < 0.6 * apart.interval[1]


def test_nothing_but_failures_is_no_certainty():
    low, high = pairs(0, 0, 0, 20).interval
    assert low == pytest.approx(-high)
    assert 0.1 < high < 0.3


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_swapping_the_policies_swaps_the_sign(both: int, only_first: int, only_second: int, neither: int):
    assume(both + only_first + only_second + neither > 0)
    here, there = pairs(both, only_first, only_second, neither), pairs(both, only_second, only_first, neither)
    assert here.difference == -there.difference
    assert here.p_value == there.p_value
    assert here.interval == (pytest.approx(-there.interval[1]), pytest.approx(-there.interval[0]))
    assert -1 - 1e-9 <= here.interval[0] <= here.difference <= here.interval[1] <= 1 + 1e-9
    assert 0 < here.p_value <= 1


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, truth = np.random.default_rng(0), np.array((0.5, 0.1, 0.25, 0.15))
    drawn = rng.multinomial(100, truth, size=2000)
    intervals = np.array([pairs(*row).interval for row in drawn.tolist()])
    covered = (intervals[:, 0] <= 0.15) & (intervals[:, 1] >= 0.15)
    assert 0.935 < covered.mean() < 0.975


def test_episodes_are_paired_by_task_and_seed():
    first = [record("pick", 1, True), record("pick", 2, True), record("push", 1, False), record("push", 9, True)]
    second = [record("push", 1, True), record("pick", 2, True), record("pick", 1, False), record("pick", 9, True)]
    assert pair(first, second) == pairs(1, 1, 1, 0)


def test_runs_without_a_common_scene_are_refused():
    with pytest.raises(ValueError, match="no episode in common"):
        pair([record("pick", 1, True)], [record("push", 1, True)])
