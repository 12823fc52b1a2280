"""Two YAM arms through I2RT's `i2rt`, one CAN channel each.

Opening an arm holds it where it is (i2rt may move a gripper to find its ends). Closing makes an arm limp, because i2rt
commands its motors from this process and they stop 0.4 s after it: let the arms lie at rest first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.clock import WallClock
from molmoact2.control.robot import Clock, Frame, Reading, RobotError
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.robots.cameras import Cameras, CameraSettings
from molmoact2.robots.settings import check_embodiment
from molmoact2.robots.vendor import as_far_as_possible, checked_target, device, driver, joints

INSTALL = "pip install git+https://github.com/i2rt-robotics/i2rt"
ARM = 7
"""Six joints in radians, and a gripper that is 0 closed and 1 open."""
PEAK_TORQUE_NM = np.array([27.0, 27.0, 27.0, 7.0, 7.0, 7.0, 7.0], np.float32)
"""Of the motors of one arm, from their data sheets: three DM-J4340, then DM-J4310."""


@dataclass(frozen=True, kw_only=True)
class YamSettings(CameraSettings):
    """How two YAM arms are connected."""

    left: str
    """CAN channel of the left arm, for instance "can_left"."""
    right: str
    gripper: str = "linear_4310"
    """Kind of gripper, as i2rt calls it."""
    embodiment: str = "yam_dual_molmoact2"
    """Tag of the checkpoint."""

    def __post_init__(self) -> None:
        check_embodiment(self.embodiment, width=2 * ARM)


class MotorChain(Protocol):
    """The motors of one CAN channel."""

    running: bool
    """False once the channel has failed; positions are the last known ones from then on."""


class Arm(Protocol):
    """i2rt's arm, as far as it is used here."""

    motor_chain: MotorChain

    def get_observations(self) -> Mapping[str, NDArray[np.float64]]:
        """`joint_pos` [6] rad, `gripper_pos` [1], `joint_eff` [6] and `gripper_eff` [1] in newton metres, and more."""
        ...

    def command_joint_pos(self, joint_pos: NDArray[np.float64]) -> None:
        """Go to [7]; i2rt clips to the joints' limits, in place."""
        ...

    def close(self) -> None:
        """Stop the motors."""
        ...


class Yam:
    """Two arms, left then right, with their cameras; `control.robot.Robot`."""

    command_hz = 30.0

    def __init__(self, settings: YamSettings, arms: Mapping[str, Arm], cameras: Cameras, clock: Clock) -> None:
        self.embodiment = EMBODIMENTS[settings.embodiment]
        self._arms, self._cameras, self._clock = dict(arms), cameras, clock
        self._held = set[str]()
        self._grips: dict[str, float] = {}

    @property
    def clock(self) -> Clock:
        """The computer's."""
        return self._clock

    def read(self) -> Reading:
        """Positions and torques of both arms; RobotError where a CAN channel has stopped."""
        now = self._clock.now()
        observed = [self._observe(side) for side in self._arms]
        state = np.concatenate([position for position, _ in observed])
        effort = np.concatenate([torque / PEAK_TORQUE_NM for _, torque in observed])
        return Reading(time_s=now, state=state.astype(np.float32), effort=effort.astype(np.float32))

    def look(self) -> Mapping[str, Frame]:
        """The newest frame of each camera."""
        return self._cameras.look()

    def command(self, target: NDArray[np.float32], /) -> None:
        """Go to `target` [14]: six angles and a gripper of the left arm, then of the right."""
        self._send(checked_target(target, ARM * len(self._arms)))
        self._held.clear()

    def hold(self) -> None:
        """Stay where the arms are now; grippers keep their targets, so that they do not let go of what they hold.

        Asked again, the arms keep to the place of the first time and do not sag.
        """
        for side in sorted(self._arms.keys() - self._held):
            with as_far_as_possible(f"The {side} arm cannot be told to hold"), device(f"Holding the {side} arm"):
                position, _ = self._observe(side, is_live=False)
                position[-1] = self._grips.get(side, position[-1])
                self._arms[side].command_joint_pos(position)
                self._held.add(side)

    def close(self) -> None:
        """Stop cameras and motors: the arms are limp afterwards."""
        self._cameras.close()
        for side, arm in self._arms.items():
            with as_far_as_possible(f"The {side} arm"), device(f"Closing the {side} arm"):
                arm.close()

    def _send(self, target: NDArray[np.float64]) -> None:
        """Give each arm its seven numbers, in an array of its own, because i2rt writes into it."""
        for (side, arm), values in zip(self._arms.items(), target.reshape(-1, ARM), strict=True):
            with device(f"Commanding the {side} arm"):
                arm.command_joint_pos(values.copy())
            self._grips[side] = float(values[-1])

    def _observe(self, side: str, *, is_live: bool = True) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Positions [7] and torques [7] of one arm; `is_live` False takes the last known ones too."""
        arm = self._arms[side]
        if is_live and not arm.motor_chain.running:
            raise RobotError(f"The CAN channel of the {side} arm has stopped. Check its power and cable, then reopen.")
        with device(f"Reading the {side} arm"):
            said = arm.get_observations()
        return (
            joints(np.concatenate([said["joint_pos"], said["gripper_pos"]]), ARM, f"The {side} arm"),
            joints(np.concatenate([said["joint_eff"], said["gripper_eff"]]), ARM, f"The {side} arm's torques"),
        )


def open_yam(settings: YamSettings, clock: Clock | None = None) -> Yam:
    """Connect to both arms and the cameras; the arms hold where they are. ValueError where i2rt is missing."""
    clock = clock or WallClock()
    make = arm_maker(settings)
    arms: dict[str, Arm] = {}
    try:
        for side, channel in {"left": settings.left, "right": settings.right}.items():
            with device(f"Connecting to the {side} arm at {channel}"):
                arms[side] = make(channel)
        return Yam(settings, arms, Cameras(settings, clock), clock)
    except (RobotError, ValueError):
        for arm in arms.values():
            arm.close()
        raise


def arm_maker(settings: YamSettings) -> Callable[[str], Arm]:
    """What opens one arm at a CAN channel, holding where it is."""
    factory = driver("i2rt.robots.get_robot", install=INSTALL)
    kinds: Any = driver("i2rt.robots.utils", install=INSTALL).GripperType
    gripper = kinds.from_string_name(settings.gripper)
    return lambda channel: cast(
        Arm, factory.get_yam_robot(channel=channel, gripper_type=gripper, zero_gravity_mode=False)
    )
