"""A robot that follows plans of a policy server, one row per control step. Needs neither LeRobot nor torch.

    step      0         8         12                 n_action_steps 12, ahead 4
    ask       A                   B
    play      |A A A A A A A A|A A A A|
                               ask B  |B B B B …     B begins with the last 4 rows of A, which are played meanwhile

The next plan is asked for while `ahead` rows are left, and says how it goes on after them. They are always played to
the end, so what a robot does depends on the policy and not on how fast the network was.
"""

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from molmoact2.client import AskOptions, Client
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.robots.calibration import NEW_SO_FRAME, SO_FRAMES, JointFrame
from molmoact2.types import ActionChunk, Committed, Observation
from molmoact2.wire.messages import RobotCard

IMAGES = "observation.images."
OLD_FRAME_TAG = "so100_so101_molmoact2"
"""The released checkpoint whose angles are not those of an arm that is calibrated today."""


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Between what LeRobot says of a robot and what the policy means."""

    cameras: Mapping[str, str]
    """Camera of the policy, in its order -> key of LeRobot's observation."""
    frame: JointFrame | None
    """None where angles are the same on both sides."""

    @classmethod
    def of(cls, card: RobotCard, cameras: Mapping[str, str] | None, calibration: str | None) -> "Translation":
        """What the settings say for the robot of this card; ValueError where they leave something open."""
        return cls(cameras=camera_keys(card, cameras), frame=joint_frame(card, calibration))

    def observation(self, images: Mapping[str, NDArray], state: NDArray, instruction: str) -> Observation:
        """LeRobot's observation in the policy's words; ValueError where a camera is missing. Others are left out."""
        missing = [key for key in self.cameras.values() if key not in images]
        if missing:
            raise ValueError(
                f"The policy sees {', '.join(self.cameras.values())}; LeRobot gives {', '.join(images) or 'nothing'}. "
                'Say which camera is which: --policy.cameras=\'{"name in the policy": "name in LeRobot"}\'.'
            )
        seen = {name: images[key] for name, key in self.cameras.items()}
        told = state if self.frame is None else self.frame.to_model(state)
        return Observation(images=seen, state=told.astype(np.float32), instruction=instruction)

    def to_arm(self, actions: NDArray) -> NDArray[np.float32]:
        """The policy's actions [..., action_dim] as the arm counts them."""
        return (actions if self.frame is None else self.frame.to_arm(actions)).astype(np.float32)

    def to_model(self, actions: NDArray) -> NDArray[np.float32]:
        """The inverse of `to_arm`."""
        return (actions if self.frame is None else self.frame.to_model(actions)).astype(np.float32)


def camera_keys(card: RobotCard, cameras: Mapping[str, str] | None) -> dict[str, str]:
    """Camera of the policy, in its order -> key of LeRobot's observation."""
    wanted = [name.removeprefix(IMAGES) for name in card.cameras]
    if cameras is None and not wanted:
        raise ValueError(
            f"{card.tag!r} takes any cameras, so say which, in the order that it was trained with: "
            '--policy.cameras=\'{"first": "name in LeRobot", "second": "name in LeRobot"}\'.'
        )
    given = {name: name for name in wanted} if cameras is None else dict(cameras)
    if wanted and given.keys() != set(wanted):
        raise ValueError(
            f"--policy.cameras must name the cameras of {card.tag!r}, which are {', '.join(wanted)}; "
            f"got {', '.join(given)}."
        )
    return {name: IMAGES + given[name].removeprefix(IMAGES) for name in wanted or given}


def joint_frame(card: RobotCard, calibration: str | None) -> JointFrame | None:
    """What is between the arm's angles and the policy's."""
    if calibration is None and card.tag == OLD_FRAME_TAG:
        raise ValueError(
            f"{card.tag!r} may count joint angles in the old calibration of LeRobot, as the released checkpoint does, "
            "or in today's. The wrong one moves the arm by 90 degrees. Give --policy.calibration=old or new."
        )
    if calibration is None:
        return None
    if calibration not in SO_FRAMES:
        raise ValueError(f"calibration must be one of {', '.join(SO_FRAMES)}, got {calibration!r}.")
    frame = SO_FRAMES[calibration]
    width = len(frame.signs)
    if not width == len(card.state_names) == len(card.action_names):
        raise ValueError(
            f"calibration is for arms of {width} joints, but {card.tag!r} has {len(card.action_names)}. Leave it out."
        )
    return None if frame is NEW_SO_FRAME else frame


def check_names(card: RobotCard, quantity: str, expected: tuple[str, ...], given: list[str] | None) -> None:
    """ValueError unless LeRobot's names of a vector are those of the policy, in its order; None is not known."""
    if given is None:
        return
    robot = EMBODIMENTS.get(card.tag)
    ours = robot.canonical(given) if robot else tuple(given)
    bare = [tuple(name.removesuffix(".pos") for name in names) for names in (ours, expected)]
    if bare[0] != bare[1]:
        raise ValueError(
            f"The {quantity} of {card.tag!r} is {', '.join(expected)}, in this order, but LeRobot's robot or dataset "
            f"has {', '.join(given)}. Use the robot that the policy was trained for."
        )


@dataclass(kw_only=True)
class Follower:
    """One robot and its conversation with the server."""

    client: Client
    translation: Translation
    ahead: int
    """Rows that are left of a plan when the next one is asked for; 0 asks when there are none, and waits."""
    options: AskOptions
    _rows: deque[NDArray[np.float32]] = field(default_factory=deque)
    """Of the present plan, in the policy's frame."""
    _asked: tuple[Future[ActionChunk], int] | None = None
    """The next plan, and how many of its rows are being played already."""

    def reset(self, seed: int | None) -> None:
        """A new episode."""
        self.client.reset(seed)
        self._rows.clear()
        self._asked = None

    def look(self, observe: Callable[[], Observation]) -> None:
        """Ask for the next plan, if it is time to, about what `observe` returns."""
        if self._asked is None and len(self._rows) <= self.ahead:
            self._asked = self._ask(observe()), len(self._rows)

    def settle(self) -> None:
        """Wait for a plan, where there is none left. Raises what the client raises; look again after that."""
        if not self._rows and self._asked is not None:
            (plan, played), self._asked = self._asked, None
            self._rows.extend(plan.result().actions[played:])

    def step(self) -> NDArray[np.float32]:
        """The next command [action_dim] of the arm."""
        return self.translation.to_arm(self._rows.popleft())

    def _ask(self, observation: Observation) -> Future[ActionChunk]:
        """Begin to plan what comes after the rows that are left."""
        options = AskOptions(**self.options)
        if self._rows:
            options["committed"] = Committed(actions=np.stack(self._rows), delay=len(self._rows))
        return self.client.begin(observation, **options)
