"""A few threads: the same results as a loop, few items at a time, and errors that come back."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.evaluation.annotation.parallel import as_they_finish


@settings(max_examples=20)
@given(items=st.lists(st.integers(), max_size=20), num_workers=st.integers(1, 4))
def test_the_results_are_those_of_a_loop(items, num_workers):
    found = as_they_finish(lambda item: 2 * item, items, num_workers=num_workers)
    assert sorted(found) == sorted(2 * item for item in items)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_few_items_exist_at_a_time(num_workers):
    made, done = 0, 0

    def items():
        nonlocal made
        for number in range(50):
            made += 1
            assert made - done <= 2 * num_workers
            yield number

    for _ in as_they_finish(str, items(), num_workers=num_workers):
        done += 1
    assert done == 50


def test_what_finishes_first_comes_first():
    release = threading.Event()

    def work(item):
        if item == 0:
            release.wait(20)
        return item

    found = as_they_finish(work, range(3), num_workers=2)
    assert [next(found), next(found)] == [1, 2]
    release.set()
    assert list(found) == [0]


def test_an_error_of_the_work_comes_back_and_ends_it():
    def work(item):
        if item == 3:
            raise ZeroDivisionError
        return item

    found = as_they_finish(work, range(100), num_workers=1)
    with pytest.raises(ZeroDivisionError):
        list(found)


def test_an_error_of_the_items_comes_back():
    def items():
        yield 1
        raise KeyError

    with pytest.raises(KeyError):
        list(as_they_finish(str, items(), num_workers=1))
