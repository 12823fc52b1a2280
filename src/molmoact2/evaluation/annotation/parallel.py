"""A few threads that work on items while the next ones are being made."""

from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import ThreadPool
from queue import SimpleQueue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

ITEMS_PER_WORKER = 2
"""Items made ahead: one being worked on, one waiting."""


def as_they_finish(work: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int) -> Iterator[Result]:
    """Yield `work(item)` of every item, in the order in which they finish; an exception of `work` is raised here.

    At most two items per worker exist at a time. When the caller stops early, or an item fails, what is being worked on
    is abandoned: the threads do not keep the process alive.
    """
    finished: SimpleQueue[Any] = SimpleQueue()
    num_open = 0
    with ThreadPool(num_workers) as pool:
        for item in items:
            pool.apply_async(work, (item,), callback=finished.put, error_callback=finished.put)
            num_open += 1
            while num_open >= ITEMS_PER_WORKER * num_workers or not finished.empty():
                yield result_of(finished.get())
                num_open -= 1
        for _ in range(num_open):
            yield result_of(finished.get())


def result_of(outcome: Any) -> Any:
    """What was returned; what was raised is raised."""
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
