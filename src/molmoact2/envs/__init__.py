"""Simulated scenes behind one protocol, `molmoact2.types.Environment`: `make("so101")`.

Nothing here needs torch. Simulators are imported when one is made, so that the package installs without them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from molmoact2.envs.libero.protocol import LIBERO_NAMES, PAPER, LiberoProtocol
from molmoact2.registry import unknown
from molmoact2.types import Environment


def make_so101(**options: Any) -> Environment:
    """An SO-101 on a tabletop of cubes; options are those of `molmoact2.envs.so101.So101Env`."""
    from molmoact2.envs.so101 import So101Env

    return So101Env(**options)


def make_libero(suite: str, protocol: LiberoProtocol, **options: Any) -> Environment:
    """A suite of LIBERO under a protocol; options are those of `molmoact2.envs.libero.environment.LiberoEnv`."""
    from molmoact2.envs.libero.environment import LiberoEnv

    return LiberoEnv(suite, **{"protocol": protocol, **options})


def make_libero_recording(suite: str, *, image_size: tuple[int, int]) -> Environment:
    """A suite of LIBERO with scenes that no evaluation uses, its pictures square."""
    return make_libero(suite, PAPER.with_fresh_scenes().at(checked_square(image_size)))


def checked_square(image_size: tuple[int, int]) -> int:
    """The side of an image of (height, width); ValueError where it is not square."""
    height, width = image_size
    if height != width:
        raise ValueError(f"LIBERO's images are square; got {height} x {width}.")
    return height


ENVIRONMENTS: dict[str, Callable[..., Environment]] = {"so101": make_so101} | {
    name: partial(make_libero, suite, protocol) for name, (suite, protocol) in LIBERO_NAMES.items()
}
RECORDED: dict[str, Callable[..., Environment]] = {"so101": make_so101} | {
    name: partial(make_libero_recording, suite) for name, (suite, _) in LIBERO_NAMES.items()
}
"""Environment -> makes it with scenes for recordings, with images of `image_size` (height, width)."""


def make(name: str, **options: Any) -> Environment:
    """Make the environment called `name`.

    Raises:
        ValueError: no environment has that name.
        ImportError: its simulator is not installed; the message says how to install it.
    """
    if name not in ENVIRONMENTS:
        raise unknown("environment", name, ENVIRONMENTS)
    return ENVIRONMENTS[name](**options)


def make_for_recording(name: str, *, image_size: tuple[int, int]) -> Environment:
    """Make the environment called `name` with scenes for demonstrations; see `make` for what it raises."""
    if name not in RECORDED:
        raise unknown("environment", name, RECORDED)
    return RECORDED[name](image_size=image_size)


def protocol_facts(name: str) -> Mapping[str, str]:
    """What a result in the environment called `name` must say of its protocol beside what every environment has."""
    return LIBERO_NAMES[name][1].facts() if name in LIBERO_NAMES else {}
