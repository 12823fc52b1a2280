"""Rules about actions and states together: the robot should soon be where an absolute action told it to be.

For each joint the action is compared with the state some frames later, for delays of up to `LONGEST_LAG_S`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.quality.findings import Found, Place, Rule, Severity
from molmoact2.data.quality.material import Material

LONGEST_LAG_S = 1.0
LONGEST_GOOD_LAG_S = 0.5
LEAST_CORRELATION = 0.5
LEAST_MOTION = 0.05
"""Joints that move less than this fraction of the widest moving joint of the same unit say nothing."""
LARGEST_RATIO = 8.0
"""Of how far action and state of a joint move; beyond it they are not in one unit."""
COPIED = 0.98
"""Share of frames in which a copied action equals the state."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Following:
    """How well states follow actions, of the joints that both have and that move."""

    names: tuple[str, ...]
    correlation: NDArray[np.float64]
    """[lags, d] of the action with the state that many frames later."""
    ratio: NDArray[np.float64]
    """[d] how far the action moves, over how far the state does."""

    @property
    def lag(self) -> NDArray[np.int64]:
        """[d] frames after which the state is most like the action."""
        return np.abs(self.correlation).argmax(axis=0)

    @property
    def best(self) -> NDArray[np.float64]:
        """[d] correlation at that lag, with its sign."""
        return np.take_along_axis(self.correlation, self.lag[None], axis=0)[0]


@lru_cache(maxsize=1)
def following(material: Material) -> Following:
    """Compare each action with the states after it, within episodes."""
    states, actions = material.shared
    spans = np.stack([material.state.span[states], material.action.span[actions]])
    units = np.array(material.action.units)[actions]
    widest = np.array([spans[1, units == unit].max() for unit in units])
    moves = (spans > 0).all(axis=0) & (spans[1] > LEAST_MOTION * widest)
    states, actions, spans = states[moves], actions[moves], spans[:, moves]
    state, action = material.state.values[:, states], material.action.values[:, actions]
    longest = min(round(LONGEST_LAG_S * material.fps), int(material.lengths.max()) - 2)
    lags = range(1 + max(longest, 0))
    rows = [_correlation(action, state, material.episode_of, lag) for lag in lags]
    return Following(
        names=tuple(material.action.names[d] for d in actions),
        correlation=np.array(rows).reshape(len(lags), len(actions)),
        ratio=spans[1] / spans[0],
    )


def _correlation(
    action: NDArray[np.float64], state: NDArray[np.float64], episode: NDArray[np.int64], lag: int
) -> NDArray[np.float64]:
    """[d] correlation of the action with the state `lag` frames later; 0 where one of them does not change."""
    count = len(action) - lag
    pairs = episode[:count] == episode[lag:]
    x, y = action[:count][pairs], state[lag:][pairs]
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    size = np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
    return np.divide((x * y).sum(axis=0), size, out=np.zeros(x.shape[1]), where=size > 0)


def _found(dimensions: NDArray[np.bool_], links: Following, say: str) -> Iterator[Found]:
    """One finding per joint; `say` may use {correlation}, {ratio} and {lag}."""
    for d in np.flatnonzero(dimensions):
        name, lag = links.names[d], int(links.lag[d])
        words = say.format(correlation=f"{links.best[d]:.2f}", ratio=f"{links.ratio[d]:.3g}", lag=lag)
        yield Found(measured=f"{name}: {words}", places=(Place(dimension=f"action {name}"),))


def opposite(material: Material) -> Iterator[Found]:
    """Joints that move against their action."""
    links = following(material)
    yield from _found(links.best < -LEAST_CORRELATION, links, "correlation of action and state {correlation}")


def not_following(material: Material) -> Iterator[Found]:
    """Joints that move without regard to their action."""
    links = following(material)
    is_loose = np.abs(links.best) < LEAST_CORRELATION
    yield from _found(is_loose, links, "correlation of action and state {correlation} at best, {lag} frames later")


def other_scale(material: Material) -> Iterator[Found]:
    """Joints whose action and state are not in one unit."""
    links = following(material)
    is_off = (links.ratio > LARGEST_RATIO) | (links.ratio < 1 / LARGEST_RATIO)
    yield from _found(is_off, links, "the action spans {ratio} times what the state spans")


def late(material: Material) -> Iterator[Found]:
    """Joints that follow after a long time."""
    links = following(material)
    lag_s = float(np.median(links.lag)) / material.fps if len(links.names) else 0.0
    if lag_s > LONGEST_GOOD_LAG_S:
        yield Found(measured=f"the state follows the action {lag_s:.2f} s later (median of the joints)")


def copied(material: Material) -> Iterator[Found]:
    """Actions that are the state of the same frame."""
    states, actions = material.shared
    is_moving = np.append(material.is_inner & (np.diff(material.state.values, axis=0) != 0).any(axis=1), False)
    same = (material.state.values[:, states] == material.action.values[:, actions]).all(axis=1)
    share = float(same[is_moving].mean()) if is_moving.any() else 0.0
    if share > COPIED:
        yield Found(measured=f"in {share:.0%} of the moving frames the action equals the state")


NEEDS = ("absolute", "shared")
RULES = (
    Rule(
        name="opposite_action",
        severity=Severity.ERROR,
        title="State moves against the action",
        why="One of them has the wrong sign (a gripper: is inverted). A policy would drive this joint the wrong way.",
        fix="Find out with one image which of them is right, and turn the other one.",
        look=opposite,
        needs=NEEDS,
    ),
    Rule(
        name="loose_action",
        severity=Severity.WARNING,
        title="State does not follow the action",
        why="An absolute action says where the joint should be soon. If it does not get there, the action is something "
        "else (a change, another joint, a stuck motor).",
        fix="Check what the action column holds and how its dimensions are ordered.",
        look=not_following,
        needs=NEEDS,
    ),
    Rule(
        name="other_scale",
        severity=Severity.ERROR,
        title="Action and state in different units",
        why="Both are scaled separately, so training does not notice; the robot does, when it gets the wrong unit.",
        fix="Convert one of them: 57.3 is degrees over radians, 100 is percent over fraction.",
        look=other_scale,
        needs=NEEDS,
    ),
    Rule(
        name="late_state",
        severity=Severity.WARNING,
        title="State far behind the action",
        why="Actions and states are shifted against each other, or the robot is slow: a policy learns to act early.",
        fix="Check that both are stored at the time they were taken, not after a buffer.",
        look=late,
        needs=NEEDS,
    ),
    Rule(
        name="copied_action",
        severity=Severity.ERROR,
        title="Action is a copy of the state",
        why="The next action is then where the robot is already: a policy that learns it stays where it is.",
        fix="Store what was commanded; where that is lost, take the state of the next frame as the action.",
        look=copied,
        needs=NEEDS,
    ),
)
