"""Where a vendor's software begins: its import, and its errors made ours."""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from molmoact2.control.robot import RobotError

try:
    from termios import error as TerminalError
except ImportError:  # Windows
    TerminalError = OSError

DEVICE_ERRORS: tuple[type[Exception], ...] = (OSError, RuntimeError, TerminalError)
"""What drivers raise when a cable, a motor or a camera does not answer; OSError is ConnectionError, TimeoutError and
pyserial's, and a terminal's own is what an unplugged USB port says."""

log = logging.getLogger(__name__)


def driver(module: str, *, install: str) -> ModuleType:
    """The vendor's module, imported when a robot is opened; ValueError says how to install it where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"This robot needs {module}, which cannot be imported ({error}). Install it: {install}"
        ) from None


@contextmanager
def device(doing: str, errors: tuple[type[Exception], ...] = DEVICE_ERRORS) -> Iterator[None]:
    """Turn a driver's errors into a `RobotError` that says what was being done."""
    try:
        yield
    except RobotError:
        raise
    except errors as error:
        raise RobotError(f"{doing} failed: {type(error).__name__}: {error}") from error


@contextmanager
def as_far_as_possible(what: str) -> Iterator[None]:
    """Log a `RobotError` in place of raising it: holding still is tried after errors too, and must not make another."""
    try:
        yield
    except RobotError as error:
        log.warning("%s: %s", what, error)


def joints(values: ArrayLike, count: int, source: str) -> NDArray[np.float64]:
    """`values` as [count] finite numbers; RobotError where a device says something else."""
    array = np.asarray(values, np.float64).reshape(-1)
    if len(array) != count or not np.isfinite(array).all():
        raise RobotError(f"{source} should say {count} finite numbers and said {array.tolist()}.")
    return array


def checked_target(target: ArrayLike, count: int) -> NDArray[np.float64]:
    """A command as [count] finite numbers; ValueError where it is not, before anything moves."""
    array = np.asarray(target, np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(
            f"A command to this robot is {count} finite numbers; got shape {array.shape}: {array.tolist()}."
        )
    return array
