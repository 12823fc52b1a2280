"""A policy examined after its training: asked about held-out frames in every variation, and everything measured.

`examine` needs no checkpoint, only something that answers (`sensitivity.Ask`); `ask_checkpoint` makes that of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from molmoact2.data import LeRobotDataset
from molmoact2.data.errors import require
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.evaluation.open_loop import (
    Errors,
    Saturation,
    Target,
    action_span,
    episode_rows,
    hold_still,
    imitate_nearest,
    make_target,
    measure_errors,
    measure_saturation,
    sample_frames,
)
from molmoact2.evaluation.prediction import action_space
from molmoact2.evaluation.sensitivity import (
    AS_RECORDED,
    Ask,
    Effect,
    Interval,
    answered,
    ask_about,
    make_variations,
    measure_effects,
    mildest,
    ratio_interval,
)
from molmoact2.inference import MolmoAct2Policy
from molmoact2.inference.decoding import DecodingError
from molmoact2.processing import TagStats
from molmoact2.processing.observation import PREFIX
from molmoact2.tokens.action import ActionDecodeError
from molmoact2.types import Observation

POLICY, STILL, NEAREST = "policy", "holding still", "nearest training state"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a policy is asked."""

    embodiment: str | None = None
    """Tag of the robot; needed where the checkpoint knows several."""
    mode: Literal["continuous", "discrete"] = "continuous"
    num_frames: int = 200
    """Held-out frames that it is asked about, at most."""
    show_progress: bool = True


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was measured. Shapes: `open_loop.Errors`, `open_loop.Saturation`, `sensitivity.Effect`."""

    tag: str
    joints: tuple[str, ...]
    """Names of the action dimensions."""
    units: tuple[str, ...]
    """Of the action dimensions; "" where unknown."""
    state_names: tuple[str, ...]
    fps: float
    """Steps of a plan per second."""
    target: Target
    num_episodes: int
    """Held-out episodes that the frames are from."""
    num_train_episodes: int
    num_unanswered: int
    """Frames left out because the policy finished no action in one of the variations."""
    errors: Mapping[str, Errors]
    """`POLICY`, `STILL` (unless the action has no such meaning) and `NEAREST`."""
    compared: Mapping[str, Interval]
    """Baseline -> error of the policy over error of the baseline."""
    kept_blind: Interval
    """Share of its advantage over the first baseline that the policy keeps with all cameras blank."""
    effects: Mapping[str, Effect]
    """By name of the variation."""
    saturation: Mapping[str, Saturation]
    """Of "state" and "action"."""


def ask_checkpoint(policy: MolmoAct2Policy, tag: TagStats, mode: Literal["continuous", "discrete"], seed: int) -> Ask:
    """A checkpoint as it is asked here. A frame's noise follows from `seed`, its row and the draw, not from its batch.

    In discrete mode, words that are no action give a plan of NaN.
    """
    unanswered = np.full((1, tag.action_horizon, tag.action.width), np.nan, np.float32)

    def ask(observations: Sequence[Observation], rows: NDArray[np.int64], draw: int) -> NDArray[np.float32]:
        entropy = [np.random.SeedSequence((seed, draw, int(row))) for row in rows]
        sessions = [policy.new_session(int(source.generate_state(1)[0])) for source in entropy]
        chunks = policy.act(observations, tag.tag, mode=mode, num_action_steps=tag.action_horizon, session=sessions)
        return np.stack([chunk.actions for chunk in chunks])

    def ask_one(observation: Observation, row: np.int64, draw: int) -> NDArray[np.float32]:
        try:
            return ask([observation], np.array([row]), draw)
        except (DecodingError, ActionDecodeError):
            return unanswered

    def ask_each(observations: Sequence[Observation], rows: NDArray[np.int64], draw: int) -> NDArray[np.float32]:
        return np.concatenate([ask_one(one, row, draw) for one, row in zip(observations, rows, strict=True)])

    return {"continuous": ask, "discrete": ask_each}[mode]


def examine(
    ask: Ask,
    tag: TagStats,
    dataset: LeRobotDataset,
    *,
    held_out_episodes: Sequence[int],
    train_episodes: Sequence[int],
    train_dataset: LeRobotDataset,
    seed: int = 0,
    options: Options,
) -> Examination:
    """Ask about held-out frames, and measure errors, effects and saturation.

    Arguments and errors are those of `training_report.write_training_report`.
    """
    shared = (
        set(held_out_episodes) & set(train_episodes)
        if train_dataset.root.resolve() == dataset.root.resolve()
        else set()
    )
    require(not shared, f"Held-out episodes must not be trained on, but both sides have {sorted(shared)[:10]}.")
    recordings = ((dataset, held_out_episodes), (train_dataset, train_episodes))
    for recording, _ in recordings:
        check_widths(tag, recording)
    _, train_rows = parts = [episode_rows(*recording) for recording in recordings]
    cameras = [key.removeprefix(PREFIX) for key in tag.camera_keys] or dataset.cameras
    variations = make_variations(
        cameras, list(dataset.tasks.values()), train_dataset.states[train_rows].mean(axis=0), seed=seed
    )
    rows = sample_frames(dataset, held_out_episodes, options.num_frames, seed=seed)
    target = make_target(dataset, rows, tag.action_horizon, action_span(train_dataset.actions[train_rows]))
    plans = ask_about(ask, dataset, rows, variations, cameras=cameras, show_progress=options.show_progress)
    keep = answered(plans)
    target, plans = target.take(keep), {name: plan[keep] for name, plan in plans.items()}
    baselines = blind_baselines(tag, train_dataset, train_episodes, target.states)
    effects = measure_effects(plans, target, variations, seed=seed)
    compared, kept_blind = compare(target, plans, baselines, effects, seed=seed)
    space = action_space(tag)
    states = np.concatenate([recording.states[part] for (recording, _), part in zip(recordings, parts, strict=True)])
    actions = np.concatenate([recording.actions[part] for (recording, _), part in zip(recordings, parts, strict=True)])
    return Examination(
        tag=tag.tag,
        joints=space.names,
        units=space.units,
        state_names=state_names(tag),
        fps=dataset.fps,
        target=target,
        num_episodes=len(np.unique(dataset.column("episode_index")[target.rows])),
        num_train_episodes=len(set(train_episodes)),
        num_unanswered=int((~keep).sum()),
        errors={name: measure_errors(plan, target) for name, plan in {POLICY: plans[AS_RECORDED], **baselines}.items()},
        compared=compared,
        kept_blind=kept_blind,
        effects=effects,
        saturation={
            "state": measure_saturation(tag.state_scaling, states),
            "action": measure_saturation(tag.action_scaling, actions, plans[AS_RECORDED]),
        },
    )


def blind_baselines(
    tag: TagStats, training: LeRobotDataset, train_episodes: Sequence[int], states: NDArray[np.floating]
) -> dict[str, NDArray[np.floating]]:
    """The plans [n, horizon, action_dim] of whoever sees nothing but the states [n, state_dim]."""
    still = hold_still(tag.control_mode, states, tag.action_horizon, tag.action.width)
    nearest = imitate_nearest(training, train_episodes, states, tag.action_horizon)
    return {name: plan for name, plan in {STILL: still, NEAREST: nearest}.items() if plan is not None}


def compare(
    target: Target,
    plans: Mapping[str, NDArray[np.floating]],
    baselines: Mapping[str, NDArray[np.floating]],
    effects: Mapping[str, Effect],
    *,
    seed: int,
) -> tuple[dict[str, Interval], Interval]:
    """Error of the policy over that of each baseline; share of its advantage over the first that it keeps blind."""
    own = target.error_sums(plans[AS_RECORDED])
    blind = target.error_sums(plans[mildest(effects, "all cameras").variation.name])
    sums = {name: target.error_sums(plan) for name, plan in baselines.items()}
    easy = next(iter(sums.values()))
    compared = {name: ratio_interval(own, other, seed=seed) for name, other in sums.items()}
    return compared, ratio_interval(easy - blind, easy - own, seed=seed)


def check_widths(tag: TagStats, dataset: LeRobotDataset) -> None:
    """ValueError unless states and actions of the dataset are as wide as the checkpoint's."""
    wanted, found = (tag.state.width, tag.action.width), (dataset.states.shape[1], dataset.actions.shape[1])
    require(
        wanted == found,
        f"{tag.tag!r} has states and actions of {wanted} dimensions, {dataset.root} of {found}. "
        "Name the robot that the data are from with --embodiment, or give its own data.",
    )


def state_names(tag: TagStats) -> tuple[str, ...]:
    """Names of the state's dimensions, numbered where nobody says them."""
    numbered = tuple(f"state {index}" for index in range(tag.state.width))
    known = EMBODIMENTS.get(tag.tag)
    return tag.state.names or (known.state_names if known else numbered)
