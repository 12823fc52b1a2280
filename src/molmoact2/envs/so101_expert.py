"""A scripted teacher for `So101Env`: it sees the true scene and solves every task.

It has no memory. Every action follows from where things are now, so after a disturbance, a slip or a drop it goes on
from what it finds, and what it does can be read from a picture and the joints. Heights follow a funnel: far from its
goal the gripper is high, and it comes down as it comes near.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from molmoact2.envs.so101 import So101Env
from molmoact2.envs.so101_grip import CLOSED_RAD, OPEN_RAD, contact_rad, cube_offset_m
from molmoact2.envs.so101_kinematics import ARM_JOINTS, Kinematics, azimuth_rad
from molmoact2.envs.so101_layout import SIDES
from molmoact2.envs.so101_scene import PAN_AXIS_X_M, PLATE_HALF_HEIGHT_M, PLATE_RADIUS_M
from molmoact2.types import ActionChunk, Observation

LARGEST_STEP_RAD = 0.10
"""Largest joint motion asked for in one control step."""
OPEN_ENOUGH_RAD = 0.50
CLEARANCE_M = 0.006
"""Gap between the fixed finger and the cube while the gripper is open."""

HOVER_M = 0.055
NEAR_M = 0.03
GRASP_FUNNEL = (8.0, 0.0035)
PUSH_FUNNEL = (3.0, 0.010)
"""Slope of the funnel and radius of its floor [m]."""
IN_JAWS_M = (0.010, 0.008, 0.007)
"""How far from the middle of the jaws a cube may be for them to close on it, along the gripper's axes."""
LIFT_HEIGHT_M, LIFT_REACH_M = 0.085, (0.15, 0.17)
CARRY_HEIGHT_M = 0.050
RELEASE_DISTANCE_M, RELEASE_HEIGHT_M = 0.014, 0.005

PUSH_POINT_M = (-0.008, 0.0, 0.0)
"""Middle of the closed fingers, from the pinch point in the gripper's frame."""
FINGER_HALF_WIDTH_M = 0.008
PUSH_HEIGHT_M, PUSH_GAP_M, PUSH_AHEAD_M = 0.014, 0.014, 0.045
PUSH_SIDE_SLIP_M, PUSH_LOW_M = 0.012, 0.012


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Where the gripper should be."""

    point_m: NDArray[np.float64]
    """[3] in the robot's base frame."""
    gripper_rad: float
    turn_rad: float = 0.0
    """Angle of the jaws' opening to the arm's radial direction."""
    offset_m: ArrayLike = (0.0, 0.0, 0.0)
    """Which point of the gripper should be there, from the pinch point in the gripper's frame."""
    tilt_weight_m: float = 0.02
    delicate: bool = False
    """Whether a small error matters: the fingers are close to something."""


class So101Expert:
    """Solves the task that `environment` is in; implements `Policy`."""

    def __init__(self, environment: So101Env) -> None:
        self.environment = environment
        self.kinematics = Kinematics(environment.model)
        self.site = environment.model.site("pinch").id

    def act(self, _observation: Observation, /) -> ActionChunk:
        """The next action, as a chunk of one; looks at the true scene, not at the observation."""
        return ActionChunk(actions=self.action()[None])

    def action(self) -> NDArray[np.float32]:
        """[6] joint targets for the next control step: five in degrees, the gripper in percent."""
        goal = self.goal()
        now = self.environment.data.qpos[:ARM_JOINTS]
        target = self.kinematics.solve(goal.point_m, goal.turn_rad, goal.offset_m, goal.tilt_weight_m)
        change = target - now
        change *= min(1.0, LARGEST_STEP_RAD / max(np.abs(change).max(), 1e-9))
        return self.environment.to_units(np.append(now + change, goal.gripper_rad))

    @property
    def delicate(self) -> bool:
        """Whether a disturbance would now spoil a grasp or a release."""
        return self.goal().delicate

    def goal(self) -> Goal:
        """Where the gripper should go from here."""
        task = self.environment.scene.task
        return {"pick": self.pick, "plate": self.place, "push": self.push}[task]()

    # What the goals are computed from

    @property
    def cube_m(self) -> NDArray[np.float64]:
        """[3] centre of the named cube."""
        return self.environment.data.body(self.environment.scene.target).xpos

    @property
    def half_m(self) -> float:
        """Half the named cube's edge."""
        return self.environment.scene.cubes[self.environment.scene.target].half_m

    @property
    def holding(self) -> bool:
        """Whether the named cube is between both fingers."""
        return len(self.environment.touching_sides(self.environment.scene.target)) == 2

    @property
    def gripper_rad(self) -> float:
        """How open the gripper is."""
        return float(self.environment.data.qpos[ARM_JOINTS])

    def in_gripper(self, position_m: NDArray[np.float64]) -> NDArray[np.float64]:
        """A point [3] of the base frame, seen from the pinch point along the gripper's axes."""
        data = self.environment.data
        return (position_m - data.site_xpos[self.site]) @ data.site_xmat[self.site].reshape(3, 3)

    def cube_turn_rad(self) -> float:
        """Smallest turn of the jaws, from the arm's radial direction, that lines them up with the cube's faces."""
        axes = self.environment.data.body(self.environment.scene.target).xmat.reshape(3, 3)
        flattest = axes[:, np.argmin(np.abs(axes[2]))]
        turn = math.atan2(flattest[1], flattest[0]) - azimuth_rad(self.cube_m)
        return (turn + math.pi / 4) % (math.pi / 2) - math.pi / 4

    def jaw_offset_m(self) -> NDArray[np.float64]:
        """[3] where in the gripper's frame the cube should be: beside the fixed finger, nearer as the jaws close."""
        contact = contact_rad(self.half_m)
        openness = np.clip((self.gripper_rad - contact) / (OPEN_RAD - contact), 0, 1)
        return cube_offset_m(self.half_m, CLEARANCE_M * openness)

    # Goals

    def pick(self) -> Goal:
        """Grasp the cube, then raise it."""
        return self.lift() if self.holding else self.grasp()

    def lift(self) -> Goal:
        """Up, and to where the arm reaches high."""
        heading = azimuth_rad(self.cube_m)
        reach = np.clip(math.hypot(self.cube_m[0] - PAN_AXIS_X_M, self.cube_m[1]), *LIFT_REACH_M)
        point = np.array((PAN_AXIS_X_M + reach * math.cos(heading), reach * math.sin(heading), LIFT_HEIGHT_M))
        return Goal(point_m=point, gripper_rad=CLOSED_RAD, offset_m=self.in_gripper(self.cube_m), tilt_weight_m=0.01)

    def grasp(self) -> Goal:
        """Come down over the cube with open jaws, and close them once it is between them."""
        offset = self.jaw_offset_m()
        miss = self.in_gripper(self.cube_m) - offset
        turn = self.cube_turn_rad()
        if (np.abs(miss) < IN_JAWS_M).all():
            return Goal(point_m=self.cube_m, gripper_rad=CLOSED_RAD, turn_rad=turn, offset_m=offset, delicate=True)
        distance = float(np.linalg.norm(miss[:2]))
        still_closed = np.clip((OPEN_ENOUGH_RAD - self.gripper_rad) / 0.2, 0, 1)
        height = max(funnel_m(distance, *GRASP_FUNNEL), HOVER_M * still_closed)
        return Goal(
            point_m=above(self.cube_m, height),
            gripper_rad=OPEN_RAD,
            turn_rad=turn,
            offset_m=offset,
            delicate=distance < NEAR_M,
        )

    def place(self) -> Goal:
        """Grasp the cube, carry it over the plate, set it down, let go and rise."""
        plate_m = self.environment.scene.plate_m
        assert plate_m is not None
        plate = np.array((*plate_m, 2 * PLATE_HALF_HEIGHT_M + self.half_m))
        distance = float(np.linalg.norm((self.cube_m - plate)[:2]))
        height = self.cube_m[2] - plate[2]
        if not self.holding:
            on_plate = distance < PLATE_RADIUS_M - 0.008 and abs(height) < RELEASE_HEIGHT_M
            return self.rise() if on_plate else self.grasp()
        if distance < RELEASE_DISTANCE_M and height < RELEASE_HEIGHT_M:
            return self.rise()
        # Sideways only once the cube is clear of the table and its neighbours, or when it is there already.
        freedom = np.clip(max((height - 0.01) / 0.02, (0.03 - distance) / 0.01), 0, 1)
        point = self.cube_m + freedom * (plate - self.cube_m)
        point[2] = plate[2] + np.clip(2.0 * (distance - 0.6 * RELEASE_DISTANCE_M), -0.004, CARRY_HEIGHT_M)
        return Goal(
            point_m=point,
            gripper_rad=CLOSED_RAD,
            offset_m=self.in_gripper(self.cube_m),
            delicate=distance < NEAR_M,
        )

    def rise(self) -> Goal:
        """Open the jaws; leave the cube once they are open."""
        open_now = self.gripper_rad > OPEN_ENOUGH_RAD - 0.1
        return Goal(
            point_m=above(self.cube_m, HOVER_M * open_now),
            gripper_rad=OPEN_RAD,
            turn_rad=self.cube_turn_rad(),
            offset_m=self.jaw_offset_m(),
            delicate=True,
        )

    def push(self) -> Goal:
        """Come down behind the cube with closed jaws and move through it."""
        direction = SIDES[self.environment.scene.side]
        data = self.environment.data
        finger = data.site_xpos[self.site] + data.site_xmat[self.site].reshape(3, 3) @ PUSH_POINT_M
        across, along = (finger - self.cube_m)[:2] * (1, direction)
        touching = -(self.half_m + FINGER_HALF_WIDTH_M)
        behind = along < touching + 0.005 and abs(across) < PUSH_SIDE_SLIP_M
        point = np.array((self.cube_m[0], self.cube_m[1] + direction * (touching - PUSH_GAP_M), PUSH_HEIGHT_M))
        distance = float(np.linalg.norm((finger - point)[:2]))
        if behind and finger[2] < PUSH_HEIGHT_M + PUSH_LOW_M:
            point[1] = finger[1] + direction * PUSH_AHEAD_M
        else:
            point[2] += funnel_m(distance, *PUSH_FUNNEL)
        return Goal(
            point_m=point,
            gripper_rad=CLOSED_RAD,
            turn_rad=-azimuth_rad(point),
            offset_m=PUSH_POINT_M,
            delicate=distance < NEAR_M,
        )


def funnel_m(distance_m: float, slope: float, floor_m: float) -> float:
    """Height above the goal at a horizontal distance from it."""
    return float(np.clip(slope * (distance_m - floor_m), 0, HOVER_M))


def above(position_m: NDArray[np.float64], height_m: float) -> NDArray[np.float64]:
    """The point [3] that is `height_m` above another."""
    return position_m + np.array((0.0, 0.0, height_m))
