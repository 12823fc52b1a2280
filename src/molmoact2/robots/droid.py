"""A Franka as the DROID platform has it: Polymetis on the robot's own computer, asked over the network.

DROID's server on that computer runs the impedance controller at 1 kHz and keeps the last target by itself, so an arm
whose client has gone stays where it was sent. Its client works in one thread only, the one that opened it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.clock import WallClock
from molmoact2.control.robot import Clock, Frame, Reading
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.robots.cameras import Cameras, CameraSettings
from molmoact2.robots.settings import check_embodiment
from molmoact2.robots.vendor import DEVICE_ERRORS, as_far_as_possible, checked_target, device, driver, joints

INSTALL = "pip install git+https://github.com/droid-dataset/droid, with zerorpc"
ARM_JOINTS = 7
LARGEST_TORQUE_NM = np.array([87.0] * 4 + [12.0] * 3, np.float32)
"""Of the Franka's joints, from its data sheet."""
GRIPPER_STEP = 0.002 / 0.085
"""A gripper's target is sent anew when it has changed by 2 mm: each command makes the gripper stop and start."""


@dataclass(frozen=True, kw_only=True)
class DroidSettings(CameraSettings):
    """How a DROID Franka is connected."""

    host: str
    """Address of the computer at the robot, where DROID's server runs."""
    launch: bool = True
    """Start arm and gripper controllers on it; False where they run already."""
    embodiment: str = "franka_droid"
    """Tag of the checkpoint."""

    def __post_init__(self) -> None:
        check_embodiment(self.embodiment, width=ARM_JOINTS + 1)


class Server(Protocol):
    """DROID's server interface, as far as it is used here."""

    def get_robot_state(self) -> Any:
        """A map and its time stamps: `joint_positions` [7] rad, `gripper_position` 0 open to 1 closed,
        `motor_torques_measured` [7] newton metres, and more."""
        ...

    def update_joints(self, command: NDArray[np.float64], velocity: bool = True, blocking: bool = False) -> None:
        """A target [7] rad for the impedance controller."""
        ...

    def update_gripper(self, command: float, velocity: bool = True, blocking: bool = False) -> None:
        """A target of the gripper, 0 open to 1 closed."""
        ...


class Droid:
    """One Franka with its gripper and cameras; `control.robot.Robot`."""

    command_hz = 15.0

    def __init__(
        self,
        settings: DroidSettings,
        server: Server,
        cameras: Cameras,
        clock: Clock,
        errors: tuple[type[Exception], ...] = DEVICE_ERRORS,
    ) -> None:
        self.embodiment = EMBODIMENTS[settings.embodiment]
        self._server, self._cameras, self._clock, self._errors = server, cameras, clock, errors
        self._is_holding = False
        self._gripper: float | None = None

    @property
    def clock(self) -> Clock:
        """The computer's."""
        return self._clock

    def read(self) -> Reading:
        """Seven angles and the gripper, 1 closed; torques of the arm, none of the gripper."""
        now = self._clock.now()
        with device("Reading the robot's state", self._errors):
            state, _ = self._server.get_robot_state()
        angles = joints(state["joint_positions"], ARM_JOINTS, "The arm")
        gripper = joints(state["gripper_position"], 1, "The gripper")
        torques = joints(state["motor_torques_measured"], ARM_JOINTS, "The arm's torques") / LARGEST_TORQUE_NM
        return Reading(
            time_s=now,
            state=np.concatenate([angles, gripper]).astype(np.float32),
            effort=np.append(torques, 0.0).astype(np.float32),
        )

    def look(self) -> Mapping[str, Frame]:
        """The newest frame of each camera."""
        return self._cameras.look()

    def command(self, target: NDArray[np.float32], /) -> None:
        """Go to `target` [8]: seven angles in radians, and the gripper, 0 open to 1 closed."""
        checked = checked_target(target, ARM_JOINTS + 1)
        self._send_joints(checked[:ARM_JOINTS])
        self._send_gripper(float(checked[-1]))
        self._is_holding = False

    def hold(self) -> None:
        """Stay where the arm is now, with the gripper's force as it is."""
        if self._is_holding:
            return
        with as_far_as_possible("The arm cannot be told to hold; its controller keeps the last target"):
            self._send_joints(self.read().state[:ARM_JOINTS].astype(np.float64))
            self._is_holding = True

    def close(self) -> None:
        """Let go of the cameras; the controller at the robot goes on holding."""
        self._cameras.close()

    def _send_joints(self, angles: NDArray[np.float64]) -> None:
        """A new target for the impedance controller."""
        with device("Commanding the arm", self._errors):
            self._server.update_joints(angles, velocity=False, blocking=False)

    def _send_gripper(self, closed: float) -> None:
        """A new target for the gripper, where it is one."""
        if self._gripper is not None and abs(closed - self._gripper) < GRIPPER_STEP:
            return
        with device("Commanding the gripper", self._errors):
            self._server.update_gripper(closed, velocity=False, blocking=False)
        self._gripper = closed


def open_droid(settings: DroidSettings, clock: Clock | None = None) -> Droid:
    """Connect to DROID's server and the cameras. ValueError where its client is missing."""
    clock = clock or WallClock()
    zerorpc: Any = driver("zerorpc.exceptions", install=INSTALL)
    errors = (*DEVICE_ERRORS, zerorpc.RemoteError, zerorpc.TimeoutExpired, zerorpc.LostRemote)
    make: Any = driver("droid.misc.server_interface", install=INSTALL).ServerInterface
    with device(f"Connecting to DROID's server at {settings.host}", errors):
        server = cast(Server, make(ip_address=settings.host, launch=settings.launch))
    return Droid(settings, server, Cameras(settings, clock), clock, errors)
