"""Open loop: what a policy plans at frames of held-out episodes, against what was recorded to happen next.

Nothing is executed, so this needs no robot and no simulator, and it says nothing about recovering from one's own
mistakes. Two baselines that see no image frame the result: holding still, and doing what was done at the frame of the
training episodes whose state is nearest.

Facts: training.md J. Steps beyond an episode's end are left out, as in `data/chunks.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.data import LeRobotDataset, action_chunks
from molmoact2.data.errors import require
from molmoact2.processing.normalize import SMALLEST_RANGE, Scaling

SPAN_QUANTILES = (0.01, 0.99)
"""A relative error is a share of the range between these quantiles of the recorded training actions."""
BOUND_TOLERANCE = 1e-4
"""How close to a bound of its range, as a share of it, a value counts as being at the bound."""
MOST_DISTANCES = 4_000_000
"""Distances that are held at once while neighbours are looked for: 32 MB."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What was recorded from n frames on."""

    rows: NDArray[np.int64]
    """[n] frames of the dataset."""
    states: NDArray[np.float32]
    """[n, state_dim] in robot units."""
    actions: NDArray[np.float32]
    """[n, horizon, action_dim] in robot units."""
    is_valid: NDArray[np.bool_]
    """[n, horizon] False beyond the end of the episode."""
    span: NDArray[np.float64]
    """[action_dim] the range that relative errors are a share of, in robot units."""

    @property
    def moves(self) -> NDArray[np.bool_]:
        """[action_dim] True where the span is not empty; other dimensions have no relative error."""
        return self.span > SMALLEST_RANGE

    def take(self, keep: NDArray[np.bool_]) -> "Target":
        """The frames where `keep` [n] is True."""
        parts = {name: vars(self)[name][keep] for name in ("rows", "states", "actions", "is_valid")}
        return Target(**parts, span=self.span)

    def distance(self, plans: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
        """How far two sets of plans [n, horizon, action_dim] are apart at each step: [n, horizon].

        The mean over the dimensions that move of the absolute difference as a share of the span; 0 beyond the end of
        an episode.
        """
        apart = np.abs(plans[..., self.moves] - others[..., self.moves].astype(np.float64)) / self.span[self.moves]
        return np.where(self.is_valid, apart.mean(axis=-1), 0.0)

    def error_sums(self, plans: NDArray[np.floating]) -> NDArray[np.float64]:
        """[n] relative error of each frame's plan, summed over its steps: what ratios of errors are made of."""
        return self.distance(plans, self.actions).sum(axis=1)


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How far plans are from what was recorded."""

    mean_absolute: NDArray[np.float64]
    """[action_dim] in robot units."""
    root_mean_square: NDArray[np.float64]
    """[action_dim] in robot units."""
    percentile_95: NDArray[np.float64]
    """[action_dim] of the absolute error, in robot units."""
    relative: NDArray[np.float64]
    """[action_dim] mean absolute error as a share of the span; NaN where the recorded actions never change."""
    by_step: NDArray[np.float64]
    """[horizon, action_dim] mean absolute error so many steps ahead, in robot units; NaN where no episode reaches."""
    relative_by_step: NDArray[np.float64]
    """[horizon] mean over the dimensions that move; NaN where no episode reaches."""
    overall: float
    """Mean relative error over all steps, and all dimensions that move."""


def sample_frames(
    dataset: LeRobotDataset, episodes: Sequence[int], num_frames: int, *, seed: int = 0
) -> NDArray[np.int64]:
    """Draw at most `num_frames` different frames of the episodes, each as likely as any other; rows in order.

    Raises ValueError where `num_frames` is below 1, or an episode is named that is not there.
    """
    require(num_frames >= 1, f"At least 1 frame must be looked at, got {num_frames}.")
    rows = episode_rows(dataset, episodes)
    drawn = np.random.default_rng(seed).choice(rows, size=min(num_frames, len(rows)), replace=False)
    return np.sort(drawn)


def episode_rows(dataset: LeRobotDataset, episodes: Sequence[int]) -> NDArray[np.int64]:
    """The rows of these episodes, in the order of the dataset; ValueError where there are none, or one is not there."""
    last = len(dataset.episodes) - 1
    unknown = [index for index in episodes if not 0 <= index <= last]
    require(not unknown, f"There is no episode {unknown[:10]}; {dataset.root} has the episodes 0 to {last}.")
    require(len(episodes) > 0, f"At least one episode of {dataset.root} must be named, got none.")
    records = [dataset.episodes[index] for index in sorted(set(episodes))]
    return np.concatenate([np.arange(record.from_index, record.to_index) for record in records])


def make_target(dataset: LeRobotDataset, rows: NDArray[np.int64], horizon: int, span: NDArray[np.float64]) -> Target:
    """What was recorded from these rows on. ValueError where no dimension of the action ever moves."""
    require(
        bool((span > SMALLEST_RANGE).any()), "The recorded training actions never change, so no error can be relative."
    )
    chunks, is_pad = action_chunks(dataset.actions, rows, dataset.episode_ends[rows], horizon)
    actions = chunks.astype(np.float32)
    return Target(rows=rows, states=dataset.states[rows], actions=actions, is_valid=~is_pad, span=span)


def action_span(actions: NDArray[np.floating]) -> NDArray[np.float64]:
    """[action_dim] range between the 1 % and the 99 % quantile of recorded actions [frames, action_dim]."""
    low, high = np.quantile(actions.astype(np.float64), SPAN_QUANTILES, axis=0)
    return high - low


def measure_errors(plans: NDArray[np.floating], target: Target) -> Errors:
    """Compare plans [n, horizon, action_dim], in robot units, with what was recorded."""
    differences = plans.astype(np.float64) - target.actions
    flat = np.abs(differences[target.is_valid])
    counts = target.is_valid.sum(axis=0)
    mean_absolute = flat.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(target.moves, mean_absolute / target.span, np.nan)
        by_step = np.where(target.is_valid[..., None], np.abs(differences), 0).sum(axis=0) / counts[:, None]
        relative_by_step = target.distance(plans, target.actions).sum(axis=0) / counts
    return Errors(
        mean_absolute=mean_absolute,
        root_mean_square=np.sqrt((flat**2).mean(axis=0)),
        percentile_95=np.quantile(flat, 0.95, axis=0),
        relative=relative,
        by_step=by_step,
        relative_by_step=relative_by_step,
        overall=float(relative[target.moves].mean()),
    )


def hold_still(
    control_mode: str, states: NDArray[np.floating], horizon: int, width: int
) -> NDArray[np.floating] | None:
    """The plans [n, horizon, width] of a robot that does not move, at states [n, state_dim].

    An absolute control mode repeats the state, a delta one commands zeros. None where the control mode says neither,
    or an absolute action is not as wide as the state.
    """
    match control_mode.split()[:1]:
        case ["absolute"] if states.shape[1] == width:
            return np.repeat(states[:, None], horizon, axis=1)
        case ["delta"]:
            return np.zeros((len(states), horizon, width), np.float32)
    return None


def imitate_nearest(
    dataset: LeRobotDataset, train_episodes: Sequence[int], states: NDArray[np.floating], horizon: int
) -> NDArray[np.floating]:
    """The plans [n, horizon, action_dim] that copy the training frame with the nearest state, for states [n, d]."""
    rows = episode_rows(dataset, train_episodes)
    nearest = rows[nearest_rows(dataset.states[rows], states)]
    return action_chunks(dataset.actions, nearest, dataset.episode_ends[nearest], horizon)[0]


def nearest_rows(known: NDArray[np.floating], queries: NDArray[np.floating]) -> NDArray[np.int64]:
    """For each of `queries` [n, d] the row of `known` [m, d] that is nearest to it; of equal ones the first.

    Every dimension counts in units of its standard deviation over `known`; one that never changes counts as it is.
    """
    centre, spread = known.mean(axis=0, dtype=np.float64), known.std(axis=0, dtype=np.float64)
    unit = np.where(spread > SMALLEST_RANGE, spread, 1.0)
    there, here = (known - centre) / unit, (queries - centre) / unit
    lengths = (there**2).sum(axis=1)
    block = max(1, MOST_DISTANCES // len(known))
    # |there - here|² less what is the same for all of them
    found = [
        (lengths - 2 * here[start : start + block] @ there.T).argmin(axis=1) for start in range(0, len(here), block)
    ]
    return np.concatenate(found)


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """How much of a vector is at or beyond what the checkpoint's normalisation can say."""

    low: NDArray[np.float64]
    """[d] lowest value, in robot units; -inf where the normalisation has no bounds."""
    high: NDArray[np.float64]
    """[d]"""
    recorded_outside: NDArray[np.float64]
    """[d] share of the recorded values beyond low or high; the policy sees and says them as the bound."""
    recorded_at_bound: NDArray[np.float64]
    """[d] share of the recorded values at or beyond low or high."""
    predicted_at_bound: NDArray[np.float64] | None = None
    """[d] share of the planned values at low or high; None for a state."""


def measure_saturation(
    scaling: Scaling, recorded: NDArray[np.floating], predicted: NDArray[np.floating] | None = None
) -> Saturation:
    """Compare recorded values [frames, d] and planned ones [..., d], in robot units, with the range of `scaling`.

    A dimension that is constant for the checkpoint has no range: nothing is outside it or at its bounds.
    """
    ones = np.ones(scaling.width.shape, np.float32)
    bounds = np.where(
        scaling.is_bounded, np.stack([scaling.restore(-ones), scaling.restore(ones)]), [[-np.inf], [np.inf]]
    )
    low, high = np.where(scaling.constant, [[-np.inf], [np.inf]], bounds)
    slack = np.nan_to_num(BOUND_TOLERANCE * (high - low), posinf=0.0)

    def at_bound(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return ((values <= low + slack) | (values >= high - slack)).reshape(-1, len(low)).mean(axis=0)

    return Saturation(
        low=low,
        high=high,
        recorded_outside=((recorded < low - slack) | (recorded > high + slack)).mean(axis=0),
        recorded_at_bound=at_bound(recorded),
        predicted_at_bound=None if predicted is None else at_bound(predicted),
    )
