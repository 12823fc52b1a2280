"""The SO-101 adapter against a stand-in with LeRobot's names, units and errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from vendor_modules import hide, install

from molmoact2.control.clock import VirtualClock
from molmoact2.control.robot import Robot, RobotError
from molmoact2.embodiments import SO_JOINTS
from molmoact2.robots.so101 import So101, So101Settings, open_so101

ARM = (1.0, 20.0, -30.0, 40.0, 5.0, 60.0)
MODEL_OLD = (1.0, 70.0, 60.0, 40.0, 5.0, 60.0)


class DeviceNotConnectedError(ConnectionError):
    """As LeRobot names it."""


@dataclass
class FakeBus:
    """Registers by name; writes are noted in order."""

    registers: dict[str, dict[str, float]] = field(
        default_factory=lambda: {
            "Present_Position": dict(zip(SO_JOINTS, ARM, strict=True)),
            "Present_Load": dict.fromkeys(SO_JOINTS, -250),
            "Present_Current": dict.fromkeys(SO_JOINTS, 100),
            "Present_Temperature": dict.fromkeys(SO_JOINTS, 41),
            "Torque_Enable": dict.fromkeys(SO_JOINTS, 0),
        }
    )
    is_connected: bool = False
    log: list[tuple[Any, ...]] = field(default_factory=list)
    failure: Exception | None = None

    def connect(self) -> None:
        self._fail()
        self.is_connected = True
        self.log.append(("connect",))

    def disconnect(self, disable_torque: bool = True) -> None:
        if not self.is_connected:
            raise DeviceNotConnectedError("FeetechMotorsBus is not connected.")
        self.is_connected = False
        self.log.append(("disconnect", disable_torque))

    def sync_read(self, data_name: str, *, normalize: bool = True, num_retry: int = 0) -> Mapping[str, float]:
        self._fail()
        assert normalize == (data_name == "Present_Position"), "LeRobot normalises positions only"
        assert num_retry > 0, "a byte is lost now and then"
        self.log.append(("read", data_name))
        return dict(self.registers[data_name])

    def sync_write(self, data_name: str, values: Mapping[str, float], *, num_retry: int = 0) -> None:
        self._fail()
        assert num_retry > 0
        assert all(type(value) is float for value in values.values())
        self.log.append(("write", data_name, dict(values)))

    def goals(self) -> list[dict[str, float]]:
        return [entry[2] for entry in self.log if entry[:2] == ("write", "Goal_Position")]

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
        if not self.is_connected and self.log:
            raise DeviceNotConnectedError("FeetechMotorsBus is not connected.")


@dataclass
class Config:
    """LeRobot's fields, as far as they are given."""

    port: str
    id: str
    use_degrees: bool
    disable_torque_on_disconnect: bool


class FakeFollower:
    """Has the bus of LeRobot's follower arm, and switches its motors on when it is set up."""

    is_calibrated = True
    last: "FakeFollower"

    def __init__(self, config: Config) -> None:
        self.config, self.bus = config, FakeBus()
        FakeFollower.last = self

    def configure(self) -> None:
        self.bus.log.append(("configure",))
        self.bus.registers["Torque_Enable"] = dict.fromkeys(SO_JOINTS, 1)


@pytest.fixture(autouse=True)
def lerobot(monkeypatch: pytest.MonkeyPatch) -> None:
    install(
        monkeypatch,
        "lerobot.robots.so_follower",
        SO101Follower=FakeFollower,
        SO101FollowerConfig=Config,
        SO100Follower=FakeFollower,
        SO100FollowerConfig=Config,
    )


def opened(calibration: Any = "old", **settings: Any) -> tuple[So101, FakeBus]:
    robot = open_so101(So101Settings(port="/dev/arm", calibration=calibration, **settings), VirtualClock())
    return robot, FakeFollower.last.bus


def test_opening_only_reads():
    robot: Robot
    robot, bus = opened()
    robot.read()
    assert {entry[0] for entry in bus.log} == {"connect", "read"}
    assert FakeFollower.last.config == Config(
        "/dev/arm", "follower", use_degrees=True, disable_torque_on_disconnect=False
    )
    assert robot.look() == {}


def test_reading_is_in_the_checkpoints_frame_and_in_our_units():
    robot, _ = opened()
    robot.clock.sleep_until(2.5)
    reading = robot.read()
    assert reading.time_s == 2.5
    assert reading.state.dtype == np.float32
    assert reading.state.tolist() == list(MODEL_OLD)
    assert reading.effort == pytest.approx([-0.25] * 6)
    assert reading.current_a == pytest.approx([0.65] * 6)
    assert reading.temperature_c == pytest.approx([41.0] * 6)


def test_todays_calibration_is_passed_on():
    assert opened("new")[0].read().state.tolist() == list(ARM)


def test_health_is_read_in_turn_after_the_first_time():
    robot, bus = opened()
    robot.read()
    del bus.log[:]
    bus.registers["Present_Temperature"] = dict.fromkeys(SO_JOINTS, 66)
    readings = [robot.read() for _ in range(3)]
    assert len(bus.log) == 6, "one position and one other register each"
    assert readings[-1].temperature_c is not None
    assert readings[-1].temperature_c[0] == 66


def test_command_goes_back_to_the_arms_frame():
    robot, bus = opened()
    robot.command(np.array(MODEL_OLD, np.float32))
    assert list(bus.goals()[-1].values()) == list(ARM)
    assert list(bus.goals()[-1]) == list(SO_JOINTS)


def test_motors_are_switched_on_where_the_arm_is():
    robot, bus = opened()
    robot.command(np.zeros(6, np.float32))
    steps = [entry[0] for entry in bus.log if entry[0] in ("write", "configure")]
    assert steps == ["write", "configure", "write"]
    assert tuple(bus.goals()[0].values()) == ARM, "the first target is where it is, before the motors are on"
    robot.command(np.zeros(6, np.float32))
    assert sum(entry == ("configure",) for entry in bus.log) == 1


def test_motors_that_are_on_are_not_set_up_again():
    robot, bus = opened()
    bus.registers["Torque_Enable"] = dict.fromkeys(SO_JOINTS, 1)
    robot.hold()
    assert ("configure",) not in bus.log, "setting up would let the arm drop"


def test_hold_stays_where_the_arm_is_and_keeps_its_grip():
    robot, bus = opened("new")
    robot.command(np.array([0, 0, 0, 0, 0, 12], np.float32))
    robot.hold()
    assert tuple(bus.goals()[-1].values()) == (*ARM[:5], 12.0)
    count = len(bus.goals())
    robot.hold()
    assert len(bus.goals()) == count, "held once: the arm would sag"


def test_hold_is_possible_after_an_error():
    robot, bus = opened()
    robot.command(np.zeros(6, np.float32))
    bus.failure = ConnectionError("There is no status packet!")
    robot.hold()
    bus.failure = None
    robot.hold()
    assert tuple(bus.goals()[-1].values())[:5] == ARM[:5]


def test_close_keeps_the_torque():
    robot, bus = opened()
    robot.command(np.zeros(6, np.float32))
    robot.close()
    assert bus.log[-1] == ("disconnect", False)
    with pytest.raises(RobotError, match="not connected"):
        robot.read()
    robot.close()
    assert bus.log[-1] == ("disconnect", False), "closing twice is no error"


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionError("no status packet"),
        TimeoutError("late"),
        OSError("device disconnected"),
        RuntimeError("Overload error"),
    ],
)
def test_bus_errors_become_robot_errors(failure: Exception):
    robot, bus = opened()
    bus.failure = failure
    with pytest.raises(RobotError, match=str(failure)):
        robot.read()
    with pytest.raises(RobotError):
        robot.command(np.zeros(6, np.float32))


def test_other_motors_than_six_are_a_robot_error():
    robot, bus = opened()
    del bus.registers["Present_Position"]["gripper"]
    with pytest.raises(RobotError, match="should have the motors"):
        robot.read()


def test_numbers_that_are_none_are_a_robot_error():
    robot, bus = opened()
    bus.registers["Present_Position"]["gripper"] = float("nan")
    with pytest.raises(RobotError, match="finite"):
        robot.read()


@pytest.mark.parametrize(
    "target", [np.zeros(5), np.zeros((1, 6)), np.full(6, np.nan), np.array([0, 0, 0, 0, 0, np.inf])]
)
def test_command_that_is_none_is_refused_before_anything_moves(target: np.ndarray):
    robot, bus = opened()
    with pytest.raises(ValueError, match="6 finite numbers"):
        robot.command(target)
    assert not bus.goals()


def test_arm_without_calibration_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FakeFollower, "is_calibrated", False)
    with pytest.raises(ValueError, match=r"lerobot-calibrate --robot\.type=so100_follower --robot\.port=/dev/arm"):
        opened(model="so100")
    assert FakeFollower.last.bus.log[-1] == ("disconnect", False)


def test_camera_that_does_not_open_lets_go_of_the_arm(monkeypatch: pytest.MonkeyPatch):
    class Closed:
        def __init__(self, name: object) -> None: ...

        def set(self, *_: object) -> None: ...

        def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
            return False

    install(monkeypatch, "cv2", VideoCapture=Closed, CAP_PROP_FRAME_WIDTH=3, CAP_PROP_FRAME_HEIGHT=4, CAP_PROP_FPS=5)
    with pytest.raises(RobotError, match="opencv:0"):
        opened(cameras={"front": "opencv:0"})
    assert FakeFollower.last.bus.log[-1] == ("disconnect", False)


def test_unknown_embodiment_is_refused():
    with pytest.raises(ValueError, match="so100_so101_molmoact2"):
        opened(embodiment="so100_so101")


def test_missing_lerobot_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    hide(monkeypatch, "lerobot.robots.so_follower")
    with pytest.raises(ValueError, match="pip install 'lerobot"):
        opened()
