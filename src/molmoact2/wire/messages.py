"""The messages of our own protocol. A client says Hello, is told Welcome, and asks; the server answers each Ask.

    client                                server
      Hello  ---------------------------->
             <----------------------------  Welcome     who I am, which robots I know, what you may send
      Reset  ---------------------------->              a new episode: forget depth maps, begin noise anew
      Ask 1  ---------------------------->
      Ask 2  ---------------------------->              the newest observation of a session wins
             <----------------------------  Refusal 1   superseded
             <----------------------------  Answer 2
      Telemetry ------------------------->              what was executed, for the dashboard
             <----------------------------  Control     hold, resume, stop, or another instruction: at any time

Every message is one binary msgpack map with a field "type". Times are seconds on the clock of whoever says them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.types import Committed, Observation
from molmoact2.wire.limits import Code, Limits

PROTOCOL_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Hello:
    """The first message of a client."""

    client: str
    """Who asks, for logs and the dashboard, for instance "molmoact2.client 0.1.0"."""
    protocol: int = PROTOCOL_VERSION
    session: str | None = None
    """A session to go on with after a connection broke; None begins a new one."""


@dataclass(frozen=True, kw_only=True)
class RobotCard:
    """What the server's checkpoint knows about one embodiment."""

    tag: str
    cameras: tuple[str, ...]
    """In the order the policy sees them; empty where any cameras may be given."""
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    control_hz: float
    action_horizon: int
    n_action_steps: int
    setup: str
    control_mode: str
    normalization: str
    """Digest of its norm statistics: two servers of the same digest mean the same by an action."""
    state_statistics: Mapping[str, tuple[float, ...]]
    """Statistic ("min", "mean", "q01", …), where the checkpoint has it -> a number per state dimension."""
    action_statistics: Mapping[str, tuple[float, ...]]
    gripper_range: tuple[float, float] | None = None
    """Command of a closed and of an open gripper."""
    action_limits: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """The server's answer to Hello."""

    server: str
    model: str
    """Name of the checkpoint; never a path of the server."""
    revision: str | None
    """Commit of the hub repository, or a digest of the files."""
    session: str
    """Random; names this episode memory in a later Hello."""
    robots: tuple[RobotCard, ...]
    modes: tuple[str, ...]
    can_think: bool
    limits: Limits
    protocol: int = PROTOCOL_VERSION
    image_encodings: tuple[str, ...] = ("raw", "jpeg", "png")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What to do next?"""

    id: int
    """Counts up within a connection; echoed."""
    observation: Observation
    observed_at: float
    """When it was observed, on the client's clock; echoed, so that a plan is executed from where it was made for."""
    embodiment: str | None = None
    mode: Literal["continuous", "discrete"] = "continuous"
    think: bool = False
    think_ahead: bool = False
    num_steps: int | None = None
    """Steps of the flow sampler."""
    num_action_steps: int | None = None
    seed: int | None = None
    """Of the noise; drawn by the server and told in the answer if it is None."""
    deadline_s: float | None = None
    """Seconds after its arrival beyond which nobody needs the answer any more."""
    committed: Committed | None = None
    """For real-time chunking."""


@dataclass(frozen=True, kw_only=True)
class Thought:
    """The depth map behind an answer."""

    codes: NDArray[np.int64]
    changed: NDArray[np.bool_]
    age: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The next actions."""

    id: int
    observed_at: float
    actions: NDArray[np.float32]
    """[rows, action_dim] robot units."""
    seed: int
    """Whose noise the actions began with."""
    timing: Mapping[str, float]
    """Seconds: "queue", "inference", "total", and the stages of the policy."""
    thought: Thought | None = None


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why there is no answer."""

    code: Code
    message: str
    id: int | None = None
    """Of the Ask; None where it concerns the connection."""
    retry_after_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Reset:
    """A new episode begins in this session."""

    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """What the robot did since the last one; nobody answers it."""

    time: float
    mode: str
    """Of the safety guard: "shadow", "hold", "slow", "full"."""
    executed: NDArray[np.float32]
    """[ticks, action_dim] commands that went to the motors."""
    measured: NDArray[np.float32]
    """[ticks, state_dim] joints as they were read at the same ticks."""
    times: NDArray[np.float64]
    """[ticks] when, on the clock of `time` and of `Ask.observed_at`."""
    notes: tuple[str, ...] = ()
    """What the guard said meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """An operator at the dashboard wants something of the robot."""

    command: Literal["hold", "resume", "stop"] | None = None
    """"stop" ends the run; "resume" takes back a hold."""
    instruction: str | None = None
    """To be followed from the next observation on; None keeps the present one."""


FromClient: TypeAlias = Hello | Ask | Reset | Telemetry
FromServer: TypeAlias = Welcome | Answer | Refusal | Control
Message: TypeAlias = FromClient | FromServer
