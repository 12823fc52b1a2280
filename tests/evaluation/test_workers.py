"""Work in several processes: in order, lazily, and honest about what went wrong."""

import os
import signal
import time

import pytest

from molmoact2.evaluation.workers import num_threads_per_worker, run_in_order


def open_slow_square():
    def work(number):
        time.sleep(0.02 * (number % 3))
        return number * number

    return work


@pytest.mark.parametrize("num_workers", [1, 3])
def test_results_come_in_the_order_of_the_jobs(num_workers):
    results = list(run_in_order(open_slow_square, range(12), num_workers=num_workers))
    assert results == [number * number for number in range(12)]


@pytest.mark.parametrize(("num_workers", "ahead"), [(1, 1), (2, 5)])
def test_jobs_are_read_only_a_little_ahead(num_workers, ahead):
    asked = []

    def jobs():
        for number in range(100):
            asked.append(number)
            yield number

    results = run_in_order(open_slow_square, jobs(), num_workers=num_workers)
    for number in range(3):
        assert next(results) == number * number
        assert len(asked) <= number + ahead
    results.close()


def open_mistake():
    raise ValueError("There is no such checkpoint.")


def open_suicide():
    return lambda _job: os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_mistake_is_raised_as_it_is(num_workers):
    with pytest.raises(ValueError, match="no such checkpoint"):
        list(run_in_order(open_mistake, range(3), num_workers=num_workers))


def test_a_killed_worker_is_reported():
    with pytest.raises(RuntimeError, match=r"killed.*run the same command again"):
        list(run_in_order(open_suicide, range(3), num_workers=2))


def test_there_is_at_least_one_worker():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        list(run_in_order(open_slow_square, range(3), num_workers=0))


def test_workers_share_the_threads():
    assert num_threads_per_worker(1) == os.cpu_count()
    assert num_threads_per_worker(10_000) == 1
