"""How far, how fast and how hard each robot may move: the parameters of the safety guard, with their sources."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from molmoact2.control.kinematics import SO101_TABLETOP_CHAIN, Chain
from molmoact2.embodiments import (
    EMBODIMENTS,
    FRANKA_LIMITS_RAD,
    JOINT_POSE_MODE,
    SO101_TABLETOP,
    YAM_OBSERVED,
    Embodiment,
)

Ranges = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The box that the watched points of an arm have to stay in."""

    chain: Chain
    lowest_m: tuple[float, float, float]
    """Corner of the box in the arm's base frame; its z is the height above the table that is kept."""
    highest_m: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class MotionLimits:
    """Everything that the guard checks. Tuples hold a number per action dimension, in its robot unit."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    ranges: Ranges
    """Lowest and highest command."""
    speed_per_s: tuple[float, ...]
    acceleration_per_s2: tuple[float, ...]
    jump: tuple[float, ...]
    """Largest step of a target, from the one before; the first is compared with the measured pose."""
    beyond_range: tuple[float, ...]
    """How far beyond its range a target may be and still mean the end of the range; more is a wrong target."""
    tracking_error: tuple[float, ...]
    """Largest distance of the measured from the commanded pose that may last `tracking_s`; infinite for grippers,
    which are told to close further than the thing in them lets them."""
    travel: tuple[float, ...]
    """Motion that encoders and cameras must notice; infinite for grippers."""
    groups: tuple[int, ...]
    """Dimensions of the same number are slowed together, so that they keep their direction."""
    closing: tuple[float, ...]
    """1 where a gripper closes towards larger commands, -1 where towards smaller, 0 for other joints."""
    period_s: float
    """Of the rows of a plan."""

    workspace: Workspace | None = None

    slow_share: float = 0.25
    """Of the speed and the acceleration, in the mode "slow"."""
    longest_tick_s: float = 0.2
    """In a longer tick the arm is taken to have come to rest."""
    no_target_s: float = 0.5
    """Time without a target after which that is said."""
    stale_reading_s: float = 0.2
    """Largest age of the measured joints."""
    stale_frame_s: float = 1.0
    """Largest age of the newest image of each camera."""
    frozen_state_s: float = 0.3
    """Time for which the joints may read exactly the same although `travel` was commanded."""
    frozen_frames: int = 10
    """Images of a camera that may be exactly the same although the arm moved by `travel`."""
    tracking_s: float = 0.5
    effort: float = 0.95
    """Share of the largest torque that may be exceeded for `overload_s`; grippers excepted."""
    current_a: float = math.inf
    """Current per motor that may be exceeded for `overload_s`; grippers excepted."""
    overload_s: float = 0.5
    gripper_effort: float = 0.6
    """Share of the largest torque at which a gripper closes no further."""
    gripper_current_a: float = math.inf
    """Current at which a gripper closes no further."""
    grip_s: float = 0.2
    """For which a gripper has to push that hard; shorter is only its own inertia."""
    warm_c: float = 55.0
    hot_c: float = 65.0
    """Temperatures of a motor at which it is mentioned, and at which the arm has to rest."""
    faults_until_human: int = 5
    """Passing faults within `fault_window_s` after which a person has to look."""
    fault_window_s: float = 60.0
    repeat_note_s: float = 5.0
    """Time after which something that is still so is said again."""

    def __post_init__(self) -> None:
        per_dimension = {
            "units": self.units,
            "ranges": self.ranges,
            "speed_per_s": self.speed_per_s,
            "acceleration_per_s2": self.acceleration_per_s2,
            "jump": self.jump,
            "beyond_range": self.beyond_range,
            "tracking_error": self.tracking_error,
            "travel": self.travel,
            "groups": self.groups,
            "closing": self.closing,
        }
        wrong = [name for name, values in per_dimension.items() if len(values) != len(self.names)]
        if wrong:
            raise ValueError(f"Limits of {len(self.names)} dimensions need as many numbers in {', '.join(wrong)}.")
        empty = [
            n for n, (low, high) in zip(self.names, self.ranges, strict=True) if not -math.inf < low < high < math.inf
        ]
        if empty:
            raise ValueError(f"A range is a finite lowest and a higher highest command; not so for {', '.join(empty)}.")
        bounds = (*self.speed_per_s, *self.acceleration_per_s2, self.longest_tick_s, self.slow_share)
        if not all(0 < bound < math.inf for bound in bounds) or self.slow_share > 1:
            raise ValueError("Speeds, accelerations and times are positive and finite, and slow_share is at most 1.")
        margins = (*self.jump, *self.beyond_range, *self.tracking_error, *self.travel)
        if not all(margin > 0 for margin in margins):
            raise ValueError(
                "jump, beyond_range, tracking_error and travel are positive, or infinite to switch them off."
            )

    def named(self, joint: int, value: float) -> str:
        """A joint with a value of it, for people."""
        return f"{self.names[joint]} at {value:.4g} {self.units[joint]}"

    @classmethod
    def of(
        cls, embodiment: Embodiment, *, ranges: Ranges | None = None, workspace: Workspace | None = None
    ) -> "MotionLimits":
        """The limits of a robot that this project knows.

        Args:
            ranges: lowest and highest command per dimension, in place of the table's; for instance the smallest and
                the largest action in the data of the checkpoint.
            workspace: in place of the table's, which knows only the simulated arm's.

        Raises:
            ValueError: a robot without limits, because nobody entered them or its actions are not joint poses.
        """
        if embodiment.tag not in ROBOTS:
            raise ValueError(
                f"There are no motion limits for {embodiment.tag!r} ({embodiment.control_mode}); known: "
                f"{', '.join(ROBOTS)}, all {JOINT_POSE_MODE}. Make a MotionLimits by hand."
            )
        robot = ROBOTS[embodiment.tag]
        is_gripper = ["gripper" in name for name in embodiment.action_names]
        shut, wide = embodiment.gripper_range or (0.0, 1.0)
        opening = abs(wide - shut)

        def pick(joint: Sequence[float], gripper: float) -> tuple[float, ...]:
            """A number per dimension: the arm's joints' in order, once per arm, and each gripper's."""
            arm = iter(tuple(joint) * robot.num_arms)
            return tuple(gripper if grips else next(arm) for grips in is_gripper)

        joints = len(robot.speed_per_s)
        return cls(
            names=embodiment.action_names,
            units=embodiment.action_units,
            ranges=ranges or robot.ranges,
            speed_per_s=pick(robot.speed_per_s, robot.gripper_speed * opening),
            acceleration_per_s2=pick(robot.acceleration_per_s2, robot.gripper_acceleration * opening),
            jump=pick((robot.jump,) * joints, math.inf),
            beyond_range=pick((robot.beyond_range,) * joints, 0.1 * opening),
            tracking_error=pick((robot.tracking_error,) * joints, math.inf),
            travel=pick((robot.travel,) * joints, math.inf),
            groups=robot.groups,
            closing=pick((0.0,) * joints, math.copysign(1.0, shut - wide)),
            period_s=1 / embodiment.control_hz,
            longest_tick_s=max(0.2, 2 / embodiment.control_hz),
            workspace=workspace or robot.workspace,
            current_a=robot.current_a,
            gripper_current_a=robot.gripper_current_a,
            hot_c=robot.hot_c,
            warm_c=robot.hot_c - 10,
        )


@dataclass(frozen=True, kw_only=True)
class RobotLimits:
    """One row of the table: what is special about a robot. Joints are the arm's, without the gripper."""

    ranges: Ranges
    speed_per_s: tuple[float, ...]
    acceleration_per_s2: tuple[float, ...]
    gripper_speed: float
    """Openings per second."""
    gripper_acceleration: float
    jump: float
    beyond_range: float
    tracking_error: float
    travel: float
    groups: tuple[int, ...]
    """Per action dimension."""
    num_arms: int = 1
    workspace: Workspace | None = None
    current_a: float = math.inf
    gripper_current_a: float = math.inf
    hot_c: float = 65.0


assert SO101_TABLETOP.action_limits is not None

ROBOTS: dict[str, RobotLimits] = {
    # What its scripted teacher does, in 78,629 recorded rows: at most 287 deg/s, 99.99% of the changes of speed below
    # 3,900 deg/s², the gripper 430%/s (a step from open to closed in one row), fingertips at least 1.7 mm above the
    # table. The motors of a real arm reach 270 to 310 deg/s without load.
    "so101_tabletop": RobotLimits(
        ranges=SO101_TABLETOP.action_limits,
        speed_per_s=(300.0,) * 5,
        acceleration_per_s2=(4000.0,) * 5,
        gripper_speed=4.8,
        gripper_acceleration=130.0,
        jump=25.0,
        beyond_range=10.0,
        tracking_error=15.0,
        travel=5.0,
        groups=(0, 0, 0, 0, 0, 1),
        workspace=Workspace(chain=SO101_TABLETOP_CHAIN, lowest_m=(-0.15, -0.45, 0.0), highest_m=(0.50, 0.45, 0.55)),
    ),
    # Ranges of the arm's model in the frame of the released checkpoints, which is that of the old calibration. Speed
    # is half of what the STS3215 reaches without load, our choice, as are the currents; it switches off at 70 °C.
    "so100_so101_molmoact2": RobotLimits(
        ranges=((-110.0, 110.0), (-10.0, 190.0), (-7.0, 187.0), (-95.0, 95.0), (-163.0, 163.0), (0.0, 100.0)),
        speed_per_s=(150.0,) * 5,
        acceleration_per_s2=(1200.0,) * 5,
        gripper_speed=2.0,
        gripper_acceleration=20.0,
        jump=15.0,
        beyond_range=10.0,
        tracking_error=15.0,
        travel=5.0,
        groups=(0, 0, 0, 0, 0, 1),
        current_a=1.2,
        gripper_current_a=0.6,
        hot_c=62.0,
    ),
    # Ranges are those of the training data, for want of a data sheet. Motors 1 to 3 are rated for 36 rpm (3.8 rad/s),
    # 4 to 6 for 120 rpm (12.6 rad/s) by their maker; the speeds are our choice below that, and so is the temperature.
    "yam_dual_molmoact2": RobotLimits(
        ranges=YAM_OBSERVED,
        speed_per_s=(2.0, 2.0, 2.0, 3.0, 3.0, 3.0),
        acceleration_per_s2=(15.0, 15.0, 15.0, 25.0, 25.0, 25.0),
        gripper_speed=3.0,
        gripper_acceleration=30.0,
        jump=0.3,
        beyond_range=0.2,
        tracking_error=0.25,
        travel=0.1,
        groups=(*(0,) * 6, 1, *(2,) * 6, 3),
        num_arms=2,
        hot_c=80.0,
    ),
    # Ranges of the Panda's data sheet. It allows 2.175 rad/s (joints 1 to 4), 2.61 rad/s (5 to 7) and 7.5 rad/s² (the
    # weakest joint); we take 80% of the speed and two thirds of that acceleration.
    "franka_droid": RobotLimits(
        ranges=(*FRANKA_LIMITS_RAD, (0.0, 1.0)),
        speed_per_s=(1.74, 1.74, 1.74, 1.74, 2.09, 2.09, 2.09),
        acceleration_per_s2=(5.0,) * 7,
        gripper_speed=3.0,
        gripper_acceleration=30.0,
        jump=0.3,
        beyond_range=0.1,
        tracking_error=0.2,
        travel=0.1,
        groups=(*(0,) * 7, 1),
    ),
}
"""Embodiment -> its limits."""

assert ROBOTS.keys() <= EMBODIMENTS.keys()
