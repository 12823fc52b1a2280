"""Scripted experts by the name of the environment whose tasks they can do."""

from collections.abc import Callable
from typing import Any, Protocol

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


EXPERTS: dict[str, Callable[[Any], Expert]] = {"so101": make_so101_expert}


def make_expert(environment_name: str, environment: Environment) -> Expert:
    """The expert of `environment`, which `envs.make(environment_name)` made; ValueError when it has none."""
    if environment_name not in EXPERTS:
        raise unknown("environment with an expert", environment_name, EXPERTS)
    return EXPERTS[environment_name](environment)
