"""Scripted experts by the name of the environment whose tasks they can do, and what disturbs their demonstrations."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from molmoact2.envs.libero.protocol import LIBERO_NAMES
from molmoact2.envs.perturbation import POSE_COMMANDS, Perturbation
from molmoact2.registry import unknown
from molmoact2.types import Environment, Policy


class Expert(Policy, Protocol):
    """A scripted teacher that plans one row at a time."""

    @property
    def delicate(self) -> bool:
        """Whether a disturbance would now spoil what it does."""
        ...


def make_so101_expert(environment: Any) -> Expert:
    """The expert of a `So101Env`."""
    from molmoact2.envs.so101_expert import So101Expert

    return So101Expert(environment)


def make_libero_object_expert(environment: Any) -> Expert:
    """The expert of a `LiberoEnv` of the suite "libero_object"."""
    from molmoact2.envs.libero.expert import LiberoObjectExpert

    return LiberoObjectExpert(environment)


LIBERO_OBJECT = tuple(
    name for name, (suite, _) in LIBERO_NAMES.items() if suite in ("libero_object", "libero_object_swap")
)
EXPERTS: dict[str, Callable[[Any], Expert]] = {
    "so101": make_so101_expert,
    **dict.fromkeys(LIBERO_OBJECT, make_libero_object_expert),
}
PERTURBATIONS: dict[str, Callable[[int], Perturbation]] = {
    "so101": Perturbation,
    **dict.fromkeys(LIBERO_OBJECT, partial(Perturbation, strength=POSE_COMMANDS)),
}
"""Environment -> makes the perturbation of the episode with a seed."""


def make_expert(environment_name: str, environment: Environment) -> Expert:
    """The expert of `environment`, which `envs.make(environment_name)` made; ValueError when it has none."""
    if environment_name not in EXPERTS:
        raise unknown("environment with an expert", environment_name, EXPERTS)
    return EXPERTS[environment_name](environment)
