"""SO-100 and SO-101 through LeRobot's follower arm (lerobot 0.4.4 or later).

The arm speaks degrees in today's calibration; `JointFrame` takes them to what the checkpoint learned from. Opening only
reads: the motors are switched on by the first command or hold, where the arm is, and are never switched off here.
"""

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.clock import WallClock
from molmoact2.control.robot import Clock, Frame, Reading, RobotError
from molmoact2.embodiments import EMBODIMENTS, SO_JOINTS
from molmoact2.robots.calibration import SO_FRAMES
from molmoact2.robots.cameras import Cameras, CameraSettings
from molmoact2.robots.settings import check_embodiment
from molmoact2.robots.vendor import as_far_as_possible, checked_target, device, driver, joints

INSTALL = "pip install 'lerobot[feetech]>=0.4.4'"
MODELS = {"so100": "SO100Follower", "so101": "SO101Follower"}
HEALTH = {"Present_Load": 1 / 1000, "Present_Current": 0.0065, "Present_Temperature": 1.0}
"""Register of the STS3215 -> effort as a share of the largest torque, amperes and degrees Celsius per count."""
GRIPPER = SO_JOINTS.index("gripper")
RETRIES = 2
"""A byte is lost on the bus now and then; a read that fails three times is a fault."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class So101Settings(CameraSettings):
    """How an SO-100 or SO-101 is connected."""

    port: str
    """Serial port, for instance "/dev/ttyACM0"; `lerobot-find-port` finds it."""
    calibration: Literal["old", "new"]
    """Of the data that the checkpoint learned from: "old" for the released SO-100/101 checkpoint, "new" for data
    recorded with LeRobot since its calibration of 2025. The arm itself is calibrated with today's LeRobot always."""
    id: str = "follower"
    """What the arm was called when it was calibrated: LeRobot keeps a calibration file by this name."""
    model: Literal["so100", "so101"] = "so101"
    embodiment: str = "so100_so101_molmoact2"
    """Tag of the checkpoint."""

    def __post_init__(self) -> None:
        check_embodiment(self.embodiment, width=len(SO_JOINTS))


class Bus(Protocol):
    """LeRobot's motor bus, as far as it is used here."""

    def connect(self) -> None:
        """Open the port and see that all motors are there."""
        ...

    def disconnect(self, disable_torque: bool = True) -> None:
        """Close the port."""
        ...

    def sync_read(self, data_name: str, *, normalize: bool = True, num_retry: int = 0) -> Mapping[str, float]:
        """One register of all motors, by motor."""
        ...

    def sync_write(self, data_name: str, values: Mapping[str, float], *, num_retry: int = 0) -> None:
        """Write one register of the motors that are named."""
        ...


class Follower(Protocol):
    """LeRobot's follower arm, as far as it is used here."""

    bus: Bus

    @property
    def is_calibrated(self) -> bool:
        """Whether the motors hold the calibration of the file."""
        ...

    def configure(self) -> None:
        """Write gains and limits of the motors; they are off meanwhile and on afterwards."""
        ...


class So101:
    """One follower arm with its cameras; `control.robot.Robot`."""

    command_hz = 30.0

    def __init__(self, settings: So101Settings, follower: Follower, cameras: Cameras, clock: Clock) -> None:
        self.embodiment = EMBODIMENTS[settings.embodiment]
        self._frame, self._bus, self._follower = SO_FRAMES[settings.calibration], follower.bus, follower
        self._cameras, self._clock = cameras, clock
        self._is_powered = self._is_holding = False
        self._grip: float | None = None
        self._health: dict[str, NDArray[np.float32]] = {}
        self._next_register = itertools.cycle(HEALTH)

    @property
    def clock(self) -> Clock:
        """The computer's."""
        return self._clock

    def read(self) -> Reading:
        """All positions, and one of load, current and temperature in turn: each read takes its time on the bus."""
        arm = self._read_register("Present_Position")
        now = self._clock.now()
        for register in HEALTH.keys() - self._health.keys() or (next(self._next_register),):
            raw = self._read_register(register, normalize=False)
            self._health[register] = (raw * HEALTH[register]).astype(np.float32)
        return Reading(
            time_s=now,
            state=self._frame.to_model(arm).astype(np.float32),
            effort=self._health["Present_Load"],
            current_a=self._health["Present_Current"],
            temperature_c=self._health["Present_Temperature"],
        )

    def look(self) -> Mapping[str, Frame]:
        """The newest frame of each camera."""
        return self._cameras.look()

    def command(self, target: NDArray[np.float32], /) -> None:
        """Go to `target` [6]: degrees as the checkpoint counts them, and per cent of the gripper."""
        arm = self._frame.to_arm(checked_target(target, len(SO_JOINTS)))
        self._switch_on()
        self._write_goal(arm)
        self._is_holding, self._grip = False, float(arm[GRIPPER])

    def hold(self) -> None:
        """Stay where the arm is now; the gripper keeps its target, so that it does not let go of what it holds.

        Held once: an arm that was asked again and again would sag little by little.
        """
        if self._is_holding:
            return
        with as_far_as_possible("The arm cannot be told to hold; its motors keep their last target"):
            self._switch_on()
            arm = self._read_register("Present_Position")
            arm[GRIPPER] = arm[GRIPPER] if self._grip is None else self._grip
            self._write_goal(arm)
            self._is_holding = True

    def close(self) -> None:
        """Let go of port and cameras. The motors stay on, and keep the last target, if they were ever switched on."""
        self._cameras.close()
        with as_far_as_possible("The arm"), device("Closing the motor bus"):
            self._bus.disconnect(disable_torque=False)

    def _read_register(self, register: str, *, normalize: bool = True) -> NDArray[np.float64]:
        """[6] one register, in the order of the joints."""
        with device(f"Reading {register}"):
            values = self._bus.sync_read(register, normalize=normalize, num_retry=RETRIES)
        if values.keys() != set(SO_JOINTS):
            raise RobotError(
                f"The motor bus should have the motors {', '.join(SO_JOINTS)}; it has {', '.join(values)}."
            )
        return joints([values[name] for name in SO_JOINTS], len(SO_JOINTS), register)

    def _write_goal(self, arm: NDArray[np.float64]) -> None:
        """Give all motors their target, in the arm's own degrees."""
        with device("Writing Goal_Position"):
            self._bus.sync_write("Goal_Position", dict(zip(SO_JOINTS, arm.tolist(), strict=True)), num_retry=RETRIES)

    def _switch_on(self) -> None:
        """Switch the motors on where the arm is. Motors that are on already are left as they are: setting them up would
        let the arm drop."""
        if self._is_powered:
            return
        if not self._read_register("Torque_Enable", normalize=False).all():
            self._write_goal(self._read_register("Present_Position"))
            with device("Setting up the motors"):
                self._follower.configure()
            log.info("The motors are on.")
        self._is_powered = True


def open_so101(settings: So101Settings, clock: Clock | None = None) -> So101:
    """Connect to the arm and its cameras without moving anything.

    ValueError where lerobot is missing or the arm is not calibrated; RobotError where a device does not answer.
    """
    clock = clock or WallClock()
    follower = follower_of(settings)
    with device(f"Connecting to the arm at {settings.port}"):
        follower.bus.connect()
    try:
        with device("Comparing the calibration"):
            is_calibrated = follower.is_calibrated
        if not is_calibrated:
            raise ValueError(
                f"The motors do not hold the calibration called {settings.id!r}. Calibrate the arm: lerobot-calibrate "
                f"--robot.type={settings.model}_follower --robot.port={settings.port} --robot.id={settings.id}"
            )
        return So101(settings, follower, Cameras(settings, clock), clock)
    except (RobotError, ValueError):
        follower.bus.disconnect(disable_torque=False)
        raise


def follower_of(settings: So101Settings) -> Follower:
    """LeRobot's arm: in degrees, without its cameras and its limits (ours see to them), not going limp at the end."""
    lerobot: Any = driver("lerobot.robots.so_follower", install=INSTALL)
    name = MODELS[settings.model]
    config = vars(lerobot)[f"{name}Config"](
        port=settings.port, id=settings.id, use_degrees=True, disable_torque_on_disconnect=False
    )
    return cast(Follower, vars(lerobot)[name](config))
