"""How much memory something takes: in a process of its own, because a process never forgets its highest mark.

The process is forked from a small server, not started anew: on Linux a program that is started inherits the highest
mark of the one that started it.
"""

import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

Result = TypeVar("Result")

UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts."""


def highest_mark() -> int:
    """Bytes of memory that this process has held at most (`ru_maxrss`)."""
    return UNIT * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_own_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """What a function of a module returns when a fresh process calls it."""
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        return pool.submit(function, *arguments).result()


def megabytes(num_bytes: float) -> str:
    """In units of 1,000,000 bytes."""
    return f"{num_bytes / 1e6:,.0f}"
