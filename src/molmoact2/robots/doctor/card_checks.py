"""Checks of the checkpoint against our table of embodiments. The checkpoint wins; a difference is worth knowing."""

from collections.abc import Iterable
from typing import Any

from molmoact2.robots.doctor.case import CAMERA_PREFIX, Case
from molmoact2.robots.doctor.finding import Finding, first, ok, unchecked, warning


def table_of_embodiments(case: Case) -> Iterable[Finding]:
    """Names, units, rates and horizons are those that the tag is known by."""
    card, table = case.card, case.embodiment
    if table is None:
        yield unchecked(
            "embodiment",
            f"{card.tag} is not in the table of embodiments",
            "what the checkpoint says about it cannot be compared with anything",
        )
        return
    pairs: dict[str, tuple[Any, Any]] = {
        "cameras": (tuple(name.removeprefix(CAMERA_PREFIX) for name in card.cameras), table.cameras),
        "state names": (table.canonical(card.state_names), table.state_names),
        "action names": (table.canonical(card.action_names), table.action_names),
        "action units": (card.action_units, table.action_units),
        "control rate in Hz": (card.control_hz, table.control_hz),
        "action horizon": (card.action_horizon, table.action_horizon),
        "executed steps": (card.n_action_steps, table.n_action_steps),
        "setup": (card.setup, table.setup),
        "control mode": (card.control_mode, table.control_mode),
        "gripper range": (card.gripper_range or table.gripper_range, table.gripper_range),
    }
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    for name, (said, usual) in different.items():
        yield warning(
            "embodiment",
            f"{name}: the checkpoint says {said}, {card.tag} usually has {usual}",
            "the checkpoint wins, but a robot that was set up by the table may differ",
            "see that the robot does what the checkpoint says",
        )
    if not different:
        yield ok("embodiment", f"{card.tag}: {card.setup}, {card.control_mode}, {card.control_hz:g} Hz")


def steps(case: Case) -> Finding:
    """A chunk has as many steps as are executed of it."""
    card = case.card
    seen = f"{card.n_action_steps} of {card.action_horizon} steps are executed before the next look"
    too_many = warning(
        "steps", seen, "the rest of the steps do not exist", f"ask for at most {card.action_horizon} steps"
    )
    return first((card.n_action_steps > card.action_horizon, too_many), (True, ok("steps", seen)))
