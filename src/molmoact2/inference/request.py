"""What may be asked of a policy, checked before anything is computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from molmoact2.inference.real_time import RealTime
from molmoact2.inference.session import Session
from molmoact2.registry import unknown
from molmoact2.tokens.reading import require
from molmoact2.types import Committed

MODES = ("continuous", "discrete")


class ActOptions(TypedDict, total=False):
    """Keyword arguments of `MolmoAct2Policy.act`, all optional."""

    mode: Literal["continuous", "discrete"]
    """Integrate the flow (default), or speak the actions as tokens."""
    guided: bool
    """Speak only tokens that still fit into the chunk, so that a spoken action is always whole. False by default, as
    the releases do: a checkpoint that miscounts is then an ActionDecodeError."""
    think: bool
    """Predict the depth map first."""
    think_ahead: bool
    """Act on the depth map of the call before, and say that of this observation while the robot moves: a thought costs
    little time and is one call old. Needs think=True and a session; the first call of an episode thinks at once."""
    num_steps: int | None
    """Euler steps of the flow; the checkpoint's own number by default."""
    num_action_steps: int | None
    """Action steps to return; the embodiment's own number by default, its horizon at most."""
    noise: ArrayLike | None
    """[horizon, max_action_dim] (with a leading axis for a list of observations): what the flow begins with."""
    seed: int | None
    """Of the noise, where none is given."""
    session: Session | Sequence[Session] | None
    """The episode, one per observation of a list: its noise goes on, its depth map is reused where nothing moved."""
    committed: Committed | Sequence[Committed | None] | None
    """What of the present plan is still to be executed: the chunk begins as it goes on (real-time chunking). One per
    observation of a list, None where there is no plan. For continuous mode."""
    real_time: RealTime
    """How the chunk follows what is committed."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """`ActOptions` with their defaults; ValueError where they contradict."""

    mode: str = "continuous"
    guided: bool = False
    think: bool = False
    think_ahead: bool = False
    num_steps: int | None = None
    num_action_steps: int | None = None
    noise: ArrayLike | None = None
    seed: int | None = None
    session: Session | Sequence[Session] | None = None
    committed: Committed | Sequence[Committed | None] | None = None
    real_time: RealTime = field(default_factory=RealTime)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode", str(self.mode), MODES)
        for name in ("num_steps", "num_action_steps"):
            value = vars(self)[name]
            require(is_count(value), f"{name} must be a whole number of at least 1, got {value!r}.")
        require(
            self.mode == "discrete" or not self.guided, "guided is for discrete mode: give mode='discrete' as well."
        )
        is_apart = not self.think_ahead or (self.think and self.session is not None and self.mode == "continuous")
        require(is_apart, "think_ahead needs think=True, a session to remember the depth map in, and continuous mode.")
        is_free = self.noise is None or (self.seed is None and self.mode == "continuous")
        require(is_free, "noise is for continuous mode, and in place of a seed: give only one of them.")
        flows = self.committed is None or self.mode == "continuous"
        require(flows, "committed is for continuous mode: a spoken action cannot be made to begin with given rows.")

    def sessions(self, count: int) -> list[Session | None]:
        """One session, or None, for each of `count` observations."""
        if self.session is None:
            return [None] * count
        sessions = [self.session] if isinstance(self.session, Session) else list(self.session)
        are_apart = len({id(session) for session in sessions}) == len(sessions) == count
        require(
            are_apart, f"{count} observations need {count} different sessions, one per episode, got {len(sessions)}."
        )
        return list(sessions)

    def plans(self, count: int) -> Sequence[Committed | None]:
        """What is committed for each of `count` observations."""
        if self.committed is None:
            return [None] * count
        plans = [self.committed] if isinstance(self.committed, Committed) else list(self.committed)
        are_plans = len(plans) == count and all(isinstance(plan, Committed | None) for plan in plans)
        require(
            are_plans,
            f"committed must be a Committed(actions=…, delay=…), or for a list of observations one or None for each: "
            f"{count} here, got {len(plans)} of {', '.join(sorted({type(plan).__name__ for plan in plans}))}.",
        )
        return plans

    def initial_noise(self, shape: tuple[int, int, int], *, scale: float, is_list: bool) -> Float[Tensor, "b h a"]:
        """The noise that the flow begins with, float32 on the CPU, of `shape` = (observations, horizon, width).

        Drawn with standard deviation `scale`; what the caller gives is taken as it is. A session draws on its own
        generator; without one, all observations draw on one of `seed`.
        """
        if self.noise is not None:
            return given_noise(self.noise, shape if is_list else shape[1:]).reshape(shape)
        fresh = Session(self.seed)
        drawn_on = [fresh if self.seed is not None else session or fresh for session in self.sessions(shape[0])]
        return scale * torch.stack([torch.randn(shape[1:], generator=session.generator) for session in drawn_on])


def given_noise(noise: ArrayLike, shape: tuple[int, ...]) -> Float[Tensor, "*shape"]:
    """The caller's noise; ValueError unless it is finite and of `shape`."""
    values = torch.as_tensor(np.asarray(noise), dtype=torch.float32)
    is_noise = tuple(values.shape) == shape and values.isfinite().all()
    require(is_noise, f"noise must be finite and of shape {list(shape)}, got {list(values.shape)}.")
    return values


def is_count(value: object) -> bool:
    """Whether this is None or a whole number of at least 1."""
    match value:
        case None:
            return True
        case bool():
            return False
        case int() | np.integer():
            return int(value) >= 1
    return False
