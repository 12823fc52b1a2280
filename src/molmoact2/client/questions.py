"""From an observation to an Ask, and from an Answer to a chunk of actions: what a client checks before and after."""

import time
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

import numpy as np

from molmoact2.registry import unknown
from molmoact2.types import ActionChunk, Committed, DepthReasoning, Image, Observation
from molmoact2.wire.limits import Limits, WireError
from molmoact2.wire.messages import Answer, Ask, RobotCard, Welcome
from molmoact2.wire.observation import checked_observation


class AskOptions(TypedDict, total=False):
    """Keyword arguments of `act`, all optional."""

    embodiment: str | None
    """Tag of the robot; may be left out where the server knows only one."""
    mode: Literal["continuous", "discrete"]
    """Integrate the flow (default), or speak the actions as tokens."""
    think: bool
    """Predict the depth map first."""
    think_ahead: bool
    """Act on the depth map of the call before, and say that of this observation while the robot moves."""
    num_steps: int | None
    """Steps of the flow sampler; the checkpoint's own number by default."""
    num_action_steps: int | None
    """Rows to return; the embodiment's own number by default."""
    seed: int | None
    """Of the noise."""
    observed_at: float
    """Seconds on the robot's clock; the monotonic clock of this computer by default."""
    committed: Committed | None
    """What the robot does meanwhile, for real-time chunking."""


def robot_card(welcome: Welcome, embodiment: str | None) -> RobotCard:
    """What the server knows about a robot; ValueError where it does not know it, or knows several and none is named."""
    cards = {card.tag: card for card in welcome.robots}
    if embodiment is None and len(cards) != 1:
        raise ValueError(f"The server knows several robots: say which embodiment. Known: {', '.join(cards) or 'none'}.")
    tag = next(iter(cards)) if embodiment is None else embodiment
    if tag not in cards:
        raise unknown("embodiment", tag, cards)
    return cards[tag]


def question(number: int, observation: Observation, card: RobotCard, limits: Limits, options: AskOptions) -> Ask:
    """The Ask; WireError, a ValueError, where the server would refuse the observation."""
    images = named(observation.images, card)
    checked = checked_observation(images, observation.state, observation.instruction, limits)
    told = {"observed_at": time.monotonic(), **options, "embodiment": card.tag}
    return Ask(id=number, observation=checked, **told)


def named(images: Mapping[str, Image] | Sequence[Image], card: RobotCard) -> Mapping[str, Image]:
    """The images by the names of the robot's cameras, or numbered where any cameras may be given."""
    if isinstance(images, Mapping):
        return images
    names = card.cameras or tuple(f"image_{i}" for i in range(len(images)))
    if len(names) != len(images):
        raise WireError(f"images: must be {len(names)}, for {', '.join(names)}, got {len(images)}.")
    return dict(zip(names, images, strict=True))


def chunk_of(answer: Answer, ask: Ask, card: RobotCard, round_trip_s: float) -> ActionChunk:
    """The actions of an answer; WireError where it does not answer that question of that robot."""
    rows, width = answer.actions.shape
    if width != len(card.action_names) or answer.observed_at != ask.observed_at:
        raise WireError(
            f"The answer has {rows} x {width} actions for an observation of {answer.observed_at}; "
            f"asked were actions of {len(card.action_names)} values for one of {ask.observed_at}."
        )
    thought = answer.thought
    depth = thought and DepthReasoning(codes=thought.codes, changed=thought.changed, age=thought.age)
    actions = np.array(answer.actions)
    return ActionChunk(actions=actions, depth=depth, timing={**answer.timing, "round_trip": round_trip_s})
