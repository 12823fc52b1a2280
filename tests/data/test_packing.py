"""Packing against what any packing must do, and against the best there is."""

import math
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.data.packing import pack

CAPACITY = 20
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=60)


@given(lengths=LENGTHS)
def test_every_example_is_in_one_row_and_no_row_is_too_long(lengths: list[int]):
    rows = pack(lengths, CAPACITY)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(row and sum(lengths[index] for index in row) <= CAPACITY for row in rows)


@given(lengths=LENGTHS)
def test_no_row_could_take_what_a_later_one_begins_with(lengths: list[int]):
    """First fit: an example opens a row only when it fits in none of those before."""
    rows = pack(lengths, CAPACITY)
    for number, row in enumerate(rows):
        opener = row[0]
        assert all(
            sum(lengths[index] for index in before if lengths[index] >= lengths[opener]) + lengths[opener] > CAPACITY
            for before in rows[:number]
        )


@given(lengths=LENGTHS)
def test_rows_are_few(lengths: list[int]):
    """Any two rows hold more than one row can, so there are less than twice as many as the tokens alone need."""
    num_rows, least = len(pack(lengths, CAPACITY)), math.ceil(sum(lengths) / CAPACITY)
    assert least <= num_rows <= max(2 * least - 1, 0)


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, CAPACITY), min_size=1, max_size=6))
def test_rows_are_at_most_the_bound_above_the_fewest_possible(lengths: list[int]):
    """11/9 of the fewest and 6/9 more (Dosa 2007)."""
    assert len(pack(lengths, CAPACITY)) <= 11 / 9 * fewest(lengths) + 6 / 9


def fewest(lengths: list[int]) -> int:
    """The best of all orders in which examples are put into the last row or a new one."""

    def num_rows(order: tuple[int, ...]) -> int:
        rows, left = 0, 0
        for length in order:
            rows, left = (rows, left - length) if length <= left else (rows + 1, CAPACITY - length)
        return rows

    return min(map(num_rows, permutations(lengths)))


def test_the_example_of_the_module():
    lengths = [6, 5, 4, 3, 2]
    assert [[lengths[index] for index in row] for row in pack(lengths, 10)] == [[6, 4], [5, 3, 2]]


def test_equal_lengths_keep_their_order():
    assert pack([5, 5, 5, 5], 10) == [[0, 1], [2, 3]]


def test_nothing_needs_no_row():
    assert pack([], 10) == []


@given(lengths=LENGTHS, excess=st.integers(1, 5))
def test_an_example_that_is_longer_than_a_row_is_refused(lengths: list[int], excess: int):
    with pytest.raises(ValueError, match=f"has {CAPACITY + excess} tokens, but a row holds {CAPACITY}"):
        pack([*lengths, CAPACITY + excess], CAPACITY)
