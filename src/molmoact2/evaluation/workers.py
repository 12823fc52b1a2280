"""Episodes in several processes, with results in the order in which the episodes were asked for.

Order makes a run independent of the number of workers: a dataset recorded by four is the one recorded by one.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from itertools import islice
from typing import Any, TypeAlias, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
OpenWork: TypeAlias = Callable[[], Callable[[Job], Result]]
"""Loads what a worker needs, once, and returns what it does with each job."""


def run_in_order(open_work: OpenWork[Job, Result], jobs: Iterable[Job], *, num_workers: int) -> Iterator[Result]:
    """Yield what `open_work()` returns for each job, in the order of `jobs`, from `num_workers` fresh processes.

    `jobs` is read lazily, at most two jobs per worker ahead, so that it may depend on what has been yielded.
    One worker means this process. With more, `open_work`, jobs and results must be picklable.

    What `open_work` or a job raises is raised here. Raises RuntimeError when a worker is killed.
    """
    if num_workers < 1:
        raise ValueError(f"workers must be at least 1, got {num_workers}.")
    if num_workers == 1:
        yield from map(open_work(), jobs)
        return
    remaining = iter(jobs)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_become_worker, initargs=(open_work,))
    try:
        window = deque(pool.submit(_do, job) for job in islice(remaining, 2 * num_workers))
        while window:
            yield window.popleft().result()
            window.extend(pool.submit(_do, job) for job in islice(remaining, 1))
    except BrokenProcessPool:
        raise RuntimeError(
            "A worker process was killed, most often because memory ran out. What was finished is kept: "
            "run the same command again, with fewer workers."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def num_threads_per_worker(num_workers: int) -> int:
    """How many threads each of `num_workers` processes can use without getting in the others' way."""
    return max(1, (os.cpu_count() or 1) // num_workers)


_open_work: Callable[[], Callable[[Any], Any]] | None = None
"""In a worker process: what it was told to load."""


@cache
def _work() -> Callable[[Any], Any]:
    """What this worker loads, at its first job: there, a mistake reaches the parent as the error that it is."""
    assert _open_work is not None, "only a worker process has work"
    return _open_work()


def _do(job: Any) -> Any:
    return _work()(job)


def _become_worker(open_work: Callable[[], Callable[[Any], Any]]) -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends."""
    global _open_work
    _open_work = open_work
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker process waits for its parent"
    parent.join()
    os._exit(1)
