"""What a policy acts on: how its plans and their errors change when a part of what it is given is taken away.

The same frames are asked about several times, with the same noise: as they were recorded, with cameras blanked, with
other words, with the average state. What changes nothing is not used. A policy that errs no more with all cameras
blank acts on its state alone: it replays what the training data usually did from there.

A blank image is unlike anything the policy was trained on. So an error that grows proves that the images are used, not
that they are understood; an error that stays proves that they are not needed at these frames.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from molmoact2.data import LeRobotDataset
from molmoact2.data.errors import require
from molmoact2.evaluation.open_loop import Target
from molmoact2.types import Image, Observation

Ask: TypeAlias = Callable[[Sequence[Observation], NDArray[np.int64], int], NDArray[np.float32]]
"""A policy as it is asked here: b observations, the rows [b] they come from, and which noise (0, 1, ...); the same row
and number give the same noise. Returns plans [b, horizon, action_dim] in robot units, NaN where it gave no answer."""

Change: TypeAlias = Callable[[Observation, int], Observation]
"""What is done to the observation of a row."""

SHADES = {"grey": 128, "black": 0}
NEUTRAL_INSTRUCTION = "do the task"
AS_RECORDED, OTHER_NOISE, AVERAGE_STATE = "as recorded", "other noise", "average state"
NEUTRAL_WORDS, OTHER_WORDS = "neutral words", "another instruction"
NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
FRAMES_PER_BATCH = 16

MATTERS = 1.1
"""An error that is more than so many times as large without something says that it is used."""
RELIED_ON = 1.5
"""An error that is more than so many times as large without something says that much depends on it."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """One way of asking about a frame."""

    name: str
    subject: str
    """What is changed: "nothing", "noise", "all cameras", the name of a camera, "words" or "state"."""
    change: Change
    draw: int = 0
    """Which noise."""


class Interval(NamedTuple):
    """A number with its 95 % bootstrap interval over frames; all NaN where it cannot be told."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a variation does."""

    variation: Variation
    change: Interval
    """Mean absolute difference of the plans from those for the frames as recorded, as a share of the span."""
    ratio: Interval
    """Error with the variation over the error without; NaN where the policy makes no error."""

    @property
    def answer(self) -> str:
        """ "relies", "uses" or "ignores", as the whole interval of the ratio says; "unclear" where it does not.

        relies: above `RELIED_ON` · uses: above `MATTERS` · ignores: below `MATTERS`
        """
        holds = {
            "relies": self.ratio.low > RELIED_ON,
            "uses": self.ratio.low > MATTERS,
            "ignores": self.ratio.high < MATTERS,
        }
        return next((answer for answer, is_so in holds.items() if is_so), "unclear")


def make_variations(
    cameras: Sequence[str],
    instructions: Sequence[str],
    average_state: NDArray[np.floating],
    *,
    seed: int = 0,
) -> list[Variation]:
    """Every way in which the frames are asked about; the first is as they were recorded.

    `instructions` are those of the dataset; with fewer than two, no other one can be put in place of a frame's own.
    """
    subjects = {camera: [camera] for camera in cameras if len(cameras) > 1} | {"all cameras": list(cameras)}
    blanked = [
        Variation(name=f"{subject} {shade}", subject=subject, change=blank(blanks, level))
        for subject, blanks in subjects.items()
        for shade, level in SHADES.items()
    ]
    different = sorted(set(instructions))
    swapped = [Variation(name=OTHER_WORDS, subject="words", change=say_another(different, seed))]
    return [
        Variation(name=AS_RECORDED, subject="nothing", change=lambda observation, _row: observation),
        Variation(name=OTHER_NOISE, subject="noise", change=lambda observation, _row: observation, draw=1),
        *blanked,
        *swapped[: len(different) > 1],
        Variation(name=NEUTRAL_WORDS, subject="words", change=say(NEUTRAL_INSTRUCTION)),
        Variation(name=AVERAGE_STATE, subject="state", change=stand_at(average_state)),
    ]


def blank(cameras: Sequence[str], level: int) -> Change:
    """Every pixel of these cameras at one level, 0 black to 255 white."""

    def change(observation: Observation, _row: int) -> Observation:
        images = cast(dict[str, Image], observation.images)  # frames of a dataset have named images
        return replace(observation, images=images | {name: np.full_like(images[name], level) for name in cameras})

    return change


def say(instruction: str) -> Change:
    """The same words for every frame."""
    return lambda observation, _row: replace(observation, instruction=instruction)


def say_another(instructions: Sequence[str], seed: int) -> Change:
    """One of `instructions` that is not the frame's own, drawn from `seed` and the row."""

    def change(observation: Observation, row: int) -> Observation:
        others = [words for words in instructions if words != observation.instruction]
        drawn = int(np.random.default_rng((seed, row)).integers(len(others)))
        return replace(observation, instruction=others[drawn])

    return change


def stand_at(state: NDArray[np.floating]) -> Change:
    """One state for every frame."""
    return lambda observation, _row: replace(observation, state=state.astype(np.float32))


def ask_about(
    ask: Ask,
    dataset: LeRobotDataset,
    rows: NDArray[np.int64],
    variations: Sequence[Variation],
    *,
    cameras: Sequence[str],
    show_progress: bool = True,
) -> dict[str, NDArray[np.float32]]:
    """The plans [n, horizon, action_dim] of every variation by name, for the frames `rows` [n] of `dataset`.

    Images are decoded once and held for one batch only; each batch is asked about in every variation.
    """
    batches = [rows[start : start + FRAMES_PER_BATCH] for start in range(0, len(rows), FRAMES_PER_BATCH)]
    plans: dict[str, list[NDArray[np.float32]]] = {variation.name: [] for variation in variations}
    console = Console(stderr=True)
    for batch in track(batches, "Asking the policy", console=console, transient=True, disable=not show_progress):
        frames = [observation_at(dataset, int(row), cameras) for row in batch]
        for variation in variations:
            observations = [variation.change(frame, int(row)) for frame, row in zip(frames, batch, strict=True)]
            plans[variation.name].append(ask(observations, batch, variation.draw))
    return {name: np.concatenate(parts) for name, parts in plans.items()}


def observation_at(dataset: LeRobotDataset, row: int, cameras: Sequence[str]) -> Observation:
    """A frame as the policy is given it, with the images of these cameras; ValueError where one is not recorded."""
    frame = dataset.frame(row)
    missing = [camera for camera in cameras if camera not in frame.images]
    require(not missing, f"The policy looks through {missing}, but {dataset.root} has the cameras {dataset.cameras}.")
    images = {camera: frame.images[camera] for camera in cameras}
    return Observation(images=images, state=frame.state, instruction=frame.task)


def answered(plans: Mapping[str, NDArray[np.float32]]) -> NDArray[np.bool_]:
    """[n] True at frames where every variation got a plan, so that all are compared on the same frames.

    Raises ValueError where there are none.
    """
    is_answered = np.all([np.isfinite(plan).all(axis=(1, 2)) for plan in plans.values()], axis=0)
    require(
        is_answered.any(),
        f"The policy finished no action in all variations of any of {len(is_answered)} frames, so nothing can be "
        "compared. Ask it in another mode, or train it for longer.",
    )
    return is_answered


def measure_effects(
    plans: Mapping[str, NDArray[np.float32]], target: Target, variations: Sequence[Variation], *, seed: int = 0
) -> dict[str, Effect]:
    """The effect of every variation but the first, by name; `plans` [n, horizon, action_dim] are those of `target`."""
    before = plans[variations[0].name]
    error, num_steps = target.error_sums(before), target.is_valid.sum(axis=1)
    return {
        variation.name: Effect(
            variation=variation,
            change=ratio_interval(target.distance(plans[variation.name], before).sum(axis=1), num_steps, seed=seed),
            ratio=ratio_interval(target.error_sums(plans[variation.name]), error, seed=seed),
        )
        for variation in variations[1:]
    }


def ratio_interval(above: NDArray[np.number], below: NDArray[np.number], *, seed: int = 0) -> Interval:
    """Sum of `above` [n] over sum of `below` [n], with the interval that resampling the n pairs gives.

    Pairs stay together, so what makes a frame hard for both does not widen the interval. NaN where `below` is 0.
    """
    counts = np.random.default_rng(seed).multinomial(len(above), np.full(len(above), 1 / len(above)), NUM_RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.float64(above.sum()) / np.float64(below.sum())
        ratios = (counts @ above) / (counts @ below)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    told = Interval(value=float(value), low=float(low), high=float(high))
    return told if np.isfinite(told).all() else Interval(np.nan, np.nan, np.nan)


def mildest(effects: Mapping[str, Effect], subject: str) -> Effect:
    """Of the effects on one subject the one with the smallest ratio: a camera counts as used if no shade spares it."""
    on_subject = [effect for effect in effects.values() if effect.variation.subject == subject]
    return min(on_subject, key=lambda effect: np.nan_to_num(effect.ratio.value, nan=np.inf))
