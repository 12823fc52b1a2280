"""Simulated scenes behind one protocol, `molmoact2.types.Environment`: `make("so101")`.

Nothing here needs torch. Simulators are imported when one is made, so that the package installs without them.
"""

from collections.abc import Callable
from typing import Any

from molmoact2.registry import unknown
from molmoact2.types import Environment


def make_so101(**options: Any) -> Environment:
    """An SO-101 on a tabletop of cubes; options are those of `molmoact2.envs.so101.So101Env`."""
    from molmoact2.envs.so101 import So101Env

    return So101Env(**options)


ENVIRONMENTS: dict[str, Callable[..., Environment]] = {"so101": make_so101}


def make(name: str, **options: Any) -> Environment:
    """Make the environment called `name`.

    Raises:
        ValueError: no environment has that name.
        ImportError: its simulator is not installed; the message says how to install it.
    """
    if name not in ENVIRONMENTS:
        raise unknown("environment", name, ENVIRONMENTS)
    return ENVIRONMENTS[name](**options)
