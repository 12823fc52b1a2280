"""Real-time chunking: a new plan that goes on from what the robot is doing while the plan is made.

    row of the new plan   0 … delay-1        delay … end-1          end …
    the robot             surely does them   was going to do them   nothing is decided
    weight                1                  falling, by schedule   0

`delay` rows are executed before the answer arrives; `end` is the last row of the present plan, or earlier if wanted.
Facts: deployment.md 2.5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from jaxtyping import Float, Float32

from molmoact2.model.guidance import Guidance, Rule
from molmoact2.processing import TagStats
from molmoact2.registry import unknown
from molmoact2.tokens.reading import require
from molmoact2.types import Committed

Schedule: TypeAlias = Literal["linear", "exponential", "ones", "zeros"]
Fractions: TypeAlias = Float[np.ndarray, " rows"]

FALLING: dict[Schedule, Callable[[Fractions], Fractions]] = {
    "linear": lambda left: left,
    "exponential": lambda left: left * np.expm1(left) / np.expm1(1),
    "ones": np.ones_like,
    "zeros": np.zeros_like,
}
"""Weight of the rows between, by how much of them is left, falling evenly from 1 to 0, both excluded."""
TOLERANCE = 1e-3
"""Share of its range by which a committed action may lie outside: float32 knows ranges far from zero no better."""


@dataclass(frozen=True, kw_only=True)
class RealTime:
    """How a new plan follows the one before."""

    rule: Rule = "guided"
    """"guided" differentiates the network, so that free rows follow; "simplified" does not, and costs little."""
    schedule: Schedule = "exponential"
    """How the weight falls over rows that are planned but need not be executed."""
    execution_horizon: int | None = None
    """Rows from here on are free; None makes it the number of committed rows, which is also the most."""
    max_guidance_weight: float = 10.0
    """Bound of the pull. Where it is above the number of flow steps, a step may overshoot."""

    def __post_init__(self) -> None:
        for name, value, known in (("rule", self.rule, Rule), ("schedule", self.schedule, Schedule)):
            if value not in get_args(known):
                raise unknown(name, str(value), get_args(known))
        horizon, bound = self.execution_horizon, self.max_guidance_weight
        require(horizon is None or horizon >= 1, f"execution_horizon must be at least 1 row, got {horizon}.")
        require(0 < bound < np.inf, f"max_guidance_weight must be above 0 and finite, got {bound}.")

    def weights(self, *, horizon: int, rows: int, delay: int) -> Float32[np.ndarray, " h"]:
        """How much of each of `horizon` rows is decided, where `rows` are planned and `delay` of them are certain."""
        end = min(rows, horizon, self.execution_horizon or rows)
        start = min(delay, end)
        left = np.arange(end - start, 0, -1) / (end - start + 1)
        certain, free = np.ones(start), np.zeros(horizon - end)
        return np.concatenate((certain, FALLING[self.schedule](left), free)).astype(np.float32)


def guidance(
    plans: Sequence[Committed | None],
    settings: RealTime,
    stats: TagStats,
    *,
    padded_width: int,
    device: torch.device,
) -> Guidance | None:
    """What pulls the flows of a batch, one plan or None for each; None where no plan has rows.

    Raises ValueError for rows of another width, longer than the robot's horizon, not finite, or beyond what this
    checkpoint can plan; and for a delay that is not 0 to the number of rows.
    """
    horizon, width = stats.action_horizon, stats.action.width
    target = np.zeros((len(plans), horizon, padded_width), np.float32)
    weight = np.zeros((len(plans), horizon, 1), np.float32)
    for row, plan in enumerate(plans):
        if plan is not None:
            actions = checked_rows(plan, stats)
            target[row, : len(actions), :width] = stats.action_scaling.normalize(actions)
            weight[row, :, 0] = settings.weights(horizon=horizon, rows=len(actions), delay=plan.delay)
    if not weight.any():
        return None
    return Guidance(
        target=torch.from_numpy(target).to(device),
        weight=torch.from_numpy(weight).to(device),
        width=width,
        rule=settings.rule,
        max_gain=settings.max_guidance_weight,
    )


def checked_rows(plan: Committed, stats: TagStats) -> Float32[np.ndarray, "rows d"]:
    """The rows of a plan in robot units; ValueError unless they are rows that this checkpoint could have planned."""
    actions, horizon, width = np.asarray(plan.actions, np.float32), stats.action_horizon, stats.action.width
    is_plan = actions.ndim == 2 and actions.shape[1] == width and len(actions) <= horizon
    require(
        is_plan,
        f"committed actions of {stats.tag!r} must be at most {horizon} rows of {width} numbers, "
        f"got shape {list(actions.shape)}.",
    )
    require(bool(np.isfinite(actions).all()), "committed actions must be finite, got NaN or infinity.")
    is_delay = isinstance(plan.delay, int | np.integer) and 0 <= plan.delay <= len(actions)
    require(is_delay, f"delay counts rows of the committed actions: it must be 0 to {len(actions)}, got {plan.delay}.")
    refuse_impossible(actions, stats)
    return actions


def refuse_impossible(actions: Float32[np.ndarray, "rows d"], stats: TagStats) -> None:
    """ValueError for a number that no plan of this checkpoint has: it would be clipped, and the robot told nothing."""
    scaling = stats.action_scaling
    nearest = scaling.restore(scaling.normalize(actions))
    beyond = np.abs(actions - nearest) - TOLERANCE * (np.abs(scaling.width) + TOLERANCE * np.abs(actions))
    if (beyond > 0).any():
        row, dimension = np.unravel_index(beyond.argmax(), beyond.shape)
        name = stats.action.names[dimension] if stats.action.names else f"dimension {dimension}"
        raise ValueError(
            f"committed actions, row {row}: {name} is {actions[row, dimension]:g}, and the nearest that is planned "
            f"for {stats.tag!r} is {nearest[row, dimension]:g}. Give rows of this checkpoint's plans, in robot units."
        )
