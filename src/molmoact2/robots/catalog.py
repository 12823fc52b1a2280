"""Robots by name, and how each is opened. A robot's drivers are imported when it is."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmoact2.control.robot import Clock, Robot
from molmoact2.registry import unknown
from molmoact2.robots.settings import read_settings, settings_of


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One kind of robot."""

    summary: str
    module: str
    settings: str
    """The dataclass in `module` that says what it is connected to."""
    opener: str
    """The function in `module` that connects to it: (settings, clock) -> Robot."""
    is_real: bool = True
    """Whether motors turn."""


ROBOTS: dict[str, Entry] = {
    "so101-sim": Entry(
        summary="a simulated SO-101 on a tabletop of cubes",
        module="molmoact2.robots.simulated",
        settings="SimulatedSettings",
        opener="open_simulated",
        is_real=False,
    ),
    "so101": Entry(
        summary="an SO-100 or SO-101, through LeRobot",
        module="molmoact2.robots.so101",
        settings="So101Settings",
        opener="open_so101",
    ),
    "yam": Entry(
        summary="two YAM arms, through i2rt", module="molmoact2.robots.yam", settings="YamSettings", opener="open_yam"
    ),
    "droid": Entry(
        summary="a Franka of a DROID setup",
        module="molmoact2.robots.droid",
        settings="DroidSettings",
        opener="open_droid",
    ),
    "dry-run": Entry(
        summary="a robot that only pretends, with nothing connected",
        module="molmoact2.robots.dry_run",
        settings="DryRunSettings",
        opener="open_dry_run",
        is_real=False,
    ),
}


def entry_of(name: str) -> Entry:
    """What is known of a kind of robot; ValueError for a name that is not in `ROBOTS`."""
    if name not in ROBOTS:
        raise unknown("robot", name, ROBOTS)
    return ROBOTS[name]


def open_robot(name: str, settings: Path | None = None, clock: Clock | None = None) -> Robot:
    """Connect to a robot without moving it.

    Args:
        name: a key of `ROBOTS`.
        settings: its `robot.toml`; without one it has its defaults, as far as there are any.
        clock: what it tells time by; the wall's by default.

    Raises:
        ValueError: an unknown name, settings that are not its, or a driver that is not installed; says what to do.
        RobotError: a device that does not answer.
    """
    entry = entry_of(name)
    parts: dict[str, Any] = vars(importlib.import_module(entry.module))
    kind = parts[entry.settings]
    chosen = (
        settings_of({}, kind, where=f"The robot {name!r} needs settings; without any it")
        if settings is None
        else read_settings(settings, kind)
    )
    return parts[entry.opener](chosen, clock)
