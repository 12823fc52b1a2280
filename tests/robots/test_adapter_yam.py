"""The YAM adapter against a stand-in with i2rt's names, shapes and units."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vendor_modules import hide, install

from molmoact2.control.clock import VirtualClock
from molmoact2.control.robot import Robot, RobotError
from molmoact2.robots.yam import Yam, YamSettings, open_yam

SETTINGS = YamSettings(left="can_left", right="can_right")


class FakeArm:
    """Seven motors; clips commands in place, as i2rt does, and is limp after close."""

    def __init__(self, start: float) -> None:
        self.motor_chain = SimpleNamespace(running=True)
        self.position = np.linspace(start, start + 0.6, 7)
        self.effort = np.array([13.5, 0, 0, 3.5, 0, 0, 0.7])
        self.commands: list[np.ndarray] = []
        self.is_closed = False
        self.failure: Exception | None = None

    def get_observations(self) -> dict[str, np.ndarray]:
        if self.failure is not None:
            raise self.failure
        arm, gripper = slice(0, 6), slice(6, None)
        return {
            "joint_pos": self.position[arm],
            "joint_vel": np.zeros(6),
            "joint_eff": self.effort[arm],
            "gripper_pos": self.position[gripper],
            "gripper_vel": np.zeros(1),
            "gripper_eff": self.effort[gripper],
        }

    def command_joint_pos(self, joint_pos: np.ndarray) -> None:
        if self.failure is not None:
            raise self.failure
        joint_pos[:6] = np.clip(joint_pos[:6], -1.5, 1.5)
        self.commands.append(joint_pos.copy())

    def close(self) -> None:
        self.is_closed = True


class GripperType:
    """i2rt's enumeration, as far as it is used."""

    @staticmethod
    def from_string_name(name: str) -> str:
        if name != "linear_4310":
            raise ValueError(f"Unknown gripper type: {name}")
        return f"<{name}>"


@pytest.fixture
def arms(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeArm]:
    made = {"can_left": FakeArm(0.1), "can_right": FakeArm(0.2)}

    def get_yam_robot(*, channel: str, gripper_type: str, zero_gravity_mode: bool) -> FakeArm:
        assert (gripper_type, zero_gravity_mode) == ("<linear_4310>", False)
        if channel not in made:
            raise OSError(f"{channel}: no such device")
        return made[channel]

    install(monkeypatch, "i2rt.robots.get_robot", get_yam_robot=get_yam_robot)
    install(monkeypatch, "i2rt.robots.utils", GripperType=GripperType)
    return made


def opened(**settings: Any) -> Yam:
    return open_yam(YamSettings(**{"left": "can_left", "right": "can_right"} | settings), VirtualClock())


def test_state_is_left_then_right_with_a_gripper_each(arms: dict[str, FakeArm]):
    robot: Robot = opened()
    reading = robot.read()
    assert reading.state == pytest.approx(np.r_[np.linspace(0.1, 0.7, 7), np.linspace(0.2, 0.8, 7)])
    assert reading.state.shape == (len(robot.embodiment.state_names),) == (14,)
    assert reading.effort == pytest.approx([0.5, 0, 0, 0.5, 0, 0, 0.1] * 2)
    assert not arms["can_left"].commands, "opening and reading command nothing"


def test_commands_are_parted_and_ours_stays_as_it_was(arms: dict[str, FakeArm]):
    target = np.r_[np.full(6, 2.0), 0.5, np.full(6, -0.25), 1.0].astype(np.float32)
    before = target.copy()
    opened().command(target)
    assert arms["can_left"].commands[-1].tolist() == [1.5] * 6 + [0.5]
    assert arms["can_right"].commands[-1].tolist() == [-0.25] * 6 + [1.0]
    assert (target == before).all(), "i2rt clips in place"


def test_hold_stays_and_keeps_its_grip(arms: dict[str, FakeArm]):
    robot = opened()
    robot.command(np.zeros(14, np.float32))
    robot.hold()
    assert arms["can_right"].commands[-1] == pytest.approx(np.r_[np.linspace(0.2, 0.7, 6), 0.0])
    robot.hold()
    assert len(arms["can_right"].commands) == 2


def test_channel_that_stopped_is_noticed_and_holding_is_still_tried(arms: dict[str, FakeArm]):
    robot = opened()
    arms["can_right"].motor_chain.running = False
    with pytest.raises(RobotError, match="right arm has stopped"):
        robot.read()
    robot.hold()
    assert len(arms["can_left"].commands) == 1


@pytest.mark.parametrize(
    "failure", [RuntimeError("Joint limit violation detected"), OSError("CAN bus is off"), TimeoutError("late")]
)
def test_driver_errors_become_robot_errors(arms: dict[str, FakeArm], failure: Exception):
    robot = opened()
    arms["can_left"].failure = failure
    with pytest.raises(RobotError, match="left arm"):
        robot.read()
    with pytest.raises(RobotError, match="left arm"):
        robot.command(np.zeros(14, np.float32))
    robot.hold()
    assert len(arms["can_right"].commands) == 1, "the other arm is held all the same"
    arms["can_left"].failure = None
    robot.hold()
    assert (len(arms["can_left"].commands), len(arms["can_right"].commands)) == (1, 1), (
        "and the first as soon as it can"
    )


def test_arm_with_another_number_of_joints_is_a_robot_error(arms: dict[str, FakeArm]):
    robot = opened()
    arms["can_left"].position = np.zeros(6)
    with pytest.raises(RobotError, match="7 finite numbers"):
        robot.read()


def test_wrong_command_is_refused_before_anything_moves(arms: dict[str, FakeArm]):
    robot = opened()
    for target in (np.zeros(7), np.full(14, np.nan)):
        with pytest.raises(ValueError, match="14 finite numbers"):
            robot.command(target)
    assert not arms["can_left"].commands


def test_second_arm_missing_closes_the_first(arms: dict[str, FakeArm]):
    with pytest.raises(RobotError, match="can9"):
        opened(right="can9")
    assert arms["can_left"].is_closed


def test_close_lets_go_of_both(arms: dict[str, FakeArm]):
    robot = opened()
    robot.close()
    assert all(arm.is_closed for arm in arms.values())


@pytest.mark.usefixtures("arms")
def test_unknown_gripper_is_the_users_mistake():
    with pytest.raises(ValueError, match="claw"):
        opened(gripper="claw")


def test_missing_i2rt_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    hide(monkeypatch, "i2rt.robots.get_robot")
    with pytest.raises(ValueError, match="pip install git"):
        opened()
