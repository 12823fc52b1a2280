"""The DROID adapter against a stand-in of DROID's server interface: its names, shapes, units and errors."""

from typing import Any

import numpy as np
import pytest
from vendor_modules import hide, install

from molmoact2.control.clock import VirtualClock
from molmoact2.control.robot import Robot, RobotError
from molmoact2.robots.droid import GRIPPER_STEP, Droid, DroidSettings, open_droid

HOME = [0.0, -0.7, 0.0, -2.35619, 0.0, 1.57079, 0.0]


class RemoteError(Exception):
    """zerorpc's errors have no common kind, and are no RuntimeErrors."""


class TimeoutExpired(Exception):  # noqa: N818 (zerorpc's name)
    """No answer in time."""


class LostRemote(Exception):  # noqa: N818 (zerorpc's name)
    """No heartbeat."""


class FakeServer:
    """What DROID's `ServerInterface` answers; a tuple becomes a list on the way."""

    last: "FakeServer"

    def __init__(self, ip_address: str, launch: bool) -> None:
        if ip_address == "nobody":
            raise LostRemote("Lost remote after 20s heartbeat")
        self.address, self.launch = ip_address, launch
        self.joints, self.gripper = list(HOME), 0.25
        self.commands: list[tuple[str, Any]] = []
        self.failure: Exception | None = None
        FakeServer.last = self

    def get_robot_state(self) -> list[dict[str, Any]]:
        self._fail()
        state = {
            "joint_positions": self.joints,
            "gripper_position": self.gripper,
            "motor_torques_measured": [43.5, 0, 0, 0, 6.0, 0, 0],
            "prev_command_successful": True,
        }
        return [state, {"robot_timestamp_seconds": 1, "robot_timestamp_nanos": 0}]

    def update_joints(
        self, command: np.ndarray, velocity: bool = True, blocking: bool = False, cartesian_noise: Any = None
    ) -> None:
        self._fail()
        assert (velocity, blocking, cartesian_noise) == (False, False, None)
        self.commands.append(("joints", command.tolist()))

    def update_gripper(self, command: float, velocity: bool = True, blocking: bool = False) -> None:
        self._fail()
        assert (velocity, blocking) == (False, False)
        self.commands.append(("gripper", command))

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.fixture(autouse=True)
def droid(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "droid.misc.server_interface", ServerInterface=FakeServer)
    errors = {"RemoteError": RemoteError, "TimeoutExpired": TimeoutExpired, "LostRemote": LostRemote}
    install(monkeypatch, "zerorpc.exceptions", **errors)


def opened(host: str = "172.16.0.4") -> tuple[Droid, FakeServer]:
    robot = open_droid(DroidSettings(host=host), VirtualClock())
    return robot, FakeServer.last


def test_state_is_seven_angles_and_how_far_the_gripper_is_closed():
    robot: Robot
    robot, server = opened()
    reading = robot.read()
    assert reading.state == pytest.approx([*HOME, 0.25])
    assert reading.effort == pytest.approx([0.5, 0, 0, 0, 0.5, 0, 0, 0])
    assert (server.address, server.launch, server.commands) == ("172.16.0.4", True, [])
    assert robot.command_hz == 15
    assert robot.embodiment.gripper_range == (1.0, 0.0), "closed is 1"


def test_command_is_joints_and_gripper():
    robot, server = opened()
    robot.command(np.array([0, 0.5, 0, -2, 0, 2, 0, 1], np.float32))
    assert server.commands == [("joints", [0, 0.5, 0, -2, 0, 2, 0]), ("gripper", 1.0)]


def test_gripper_is_sent_only_where_it_changes():
    robot, server = opened()
    for closed in (0.5, 0.5 + GRIPPER_STEP / 2, 0.5 + GRIPPER_STEP * 1.5):
        robot.command(np.array([*HOME, closed], np.float32))
    assert [value for kind, value in server.commands if kind == "gripper"] == pytest.approx(
        [0.5, 0.5 + GRIPPER_STEP * 1.5]
    )


def test_hold_stays_where_it_is_and_leaves_the_gripper():
    robot, server = opened()
    robot.hold()
    robot.hold()
    (kind, angles), *more = server.commands
    assert (kind, more) == ("joints", [])
    assert angles == pytest.approx(HOME)


@pytest.mark.parametrize("kind", [RemoteError, TimeoutExpired, LostRemote, ConnectionError])
def test_network_errors_become_robot_errors(kind: type[Exception]):
    robot, server = opened()
    server.failure = kind("gone")
    for act in (robot.read, lambda: robot.command(np.zeros(8, np.float32))):
        with pytest.raises(RobotError, match="gone"):
            act()
    robot.hold()
    server.failure = None
    robot.hold()
    assert server.commands[-1][0] == "joints", "holding is tried again"


def test_wrong_number_of_joints_is_a_robot_error():
    robot, server = opened()
    server.joints = server.joints[:6]
    with pytest.raises(RobotError, match="7 finite numbers"):
        robot.read()


def test_wrong_command_is_refused_before_anything_moves():
    robot, server = opened()
    with pytest.raises(ValueError, match="8 finite numbers"):
        robot.command(np.zeros(7, np.float32))
    assert not server.commands


def test_server_that_is_not_there():
    with pytest.raises(RobotError, match="nobody"):
        opened("nobody")


def test_missing_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    hide(monkeypatch, "droid.misc.server_interface")
    with pytest.raises(ValueError, match="droid-dataset/droid"):
        opened()
