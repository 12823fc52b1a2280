"""A scripted teacher for LIBERO-Object: it sees the true scene, picks the named thing up and drops it into the basket.

It has no memory. Every action follows from where things are now, so after a slip or a push it goes on from what it
finds, and what it does can be read from a picture and the arm. Heights follow funnels: far from its goal the gripper is
high, and it comes down as it comes near. Its commands are proportional to what is left to go, up to one speed, which
with this controller is a smooth motion without overshoot.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.libero.environment import LiberoEnv
from molmoact2.types import ActionChunk, Observation

TRANSLATION_M, ROTATION_RAD = 0.05, 0.5
"""What a command of 1 asks of the controller."""
FASTEST_SIDEWAYS, FASTEST_UPDOWN, FASTEST_TURN = 0.8, 0.6, 0.3
"""Largest commands. 1 is a speed of 0.3 m/s."""
OPEN, CLOSE = -1.0, 1.0
OPENING_M = 0.077
"""Between the fingers of an open gripper."""

LOWEST_GRIP_M, GRIP_BELOW_TOP_M = 0.012, 0.022
"""The grip: this far above the floor at least, and this far below a tall thing's top, which the palm would touch."""
TRANSIT_M, ABOVE_GRIP_M = 0.21, 0.09
"""On the way to a thing the grip is this high, and this far above where it will be."""
FUNNEL_SLOPE, FUNNEL_FLOOR_M = 3.0, 0.008
IN_JAWS_M, IN_JAWS_HEIGHT_M, IN_JAWS_RAD = 0.010, 0.008, 0.12
STILL_M_PER_S = 0.01
"""Fingers slower than this have closed on what is between them."""

RIM_M, CLEARANCE_M = 0.145, 0.03
"""The basket's rim, and by how much what is carried passes over it."""
FREE_FROM_M, FREE_AT_M = 0.04, 0.10
"""Things move sideways when they are this high, at first slowly, then freely."""
DROP_DISTANCE_M, LET_GO_DISTANCE_M = 0.015, 0.045
"""A thing is let go this near to the middle of the basket, and stays so while it falls."""
IN_THE_AIR_M = 0.005
NEAR_M = 0.05
LARGEST_TURN_RAD = math.pi / 2
TURNS_RAD = np.linspace(-LARGEST_TURN_RAD, LARGEST_TURN_RAD, 37)
COMFORTABLE_WIDTH_M, WIDTH_PER_TURN_M = 0.066, 0.004
"""A thing up to this wide is gripped without turning; else a turn of one radian has to save this much."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Where the gripper should be."""

    point_m: NDArray[np.float64]
    """[3] for the point between the fingertips, in the world's frame."""
    gripper: float
    """Command of the gripper."""
    turn_rad: float | None = None
    """Angle of the line from finger to finger in the horizontal plane; None keeps the present one."""
    delicate: bool = False
    """Whether a small error matters: the fingers are close to something."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """A thing as the gripper meets it."""

    grip_m: NDArray[np.float64]
    """[3] where to grip it."""
    turn_rad: float
    """Angle of the line from finger to finger when gripping it."""
    bottom_m: float
    """Height of its lowest point."""


class LiberoObjectExpert:
    """Solves the task that `environment` is in; implements `Policy`. Made for suites of floors with a basket."""

    def __init__(self, environment: LiberoEnv) -> None:
        self.environment = environment

    def act(self, _observation: Observation, /) -> ActionChunk:
        """The next action, as a chunk of one; looks at the true scene, not at the observation."""
        return ActionChunk(actions=self.action()[None])

    @property
    def delicate(self) -> bool:
        """Whether a disturbance would now spoil a grasp or a release."""
        return self.goal().delicate

    def action(self) -> NDArray[np.float32]:
        """[7] the next command: translation, rotation, gripper."""
        goal, simulation = self.goal(), self.environment.scene.simulation
        way = (goal.point_m - simulation.grip_m()) / TRANSLATION_M
        turn = upright_turn(simulation.grip_turn(), goal.turn_rad) / ROTATION_RAD
        parts = (limited(way[:2], FASTEST_SIDEWAYS), limited(way[2:], FASTEST_UPDOWN), limited(turn, FASTEST_TURN))
        return np.concatenate((*parts, [goal.gripper])).astype(np.float32)

    def goal(self) -> Goal:
        """Where the gripper should go from here."""
        simulation = self.environment.scene.simulation
        thing, basket = simulation.targets[:2]
        body = self.body(thing)
        way = (simulation.place_m(basket) - simulation.place_m(thing))[:2]
        is_held = self.is_held(thing, body)
        if float(np.linalg.norm(way)) < (DROP_DISTANCE_M if is_held else LET_GO_DISTANCE_M):
            return Goal(point_m=simulation.grip_m(), gripper=OPEN, delicate=True)
        return self.carry(body, way) if is_held else self.grasp(body)

    def is_held(self, thing: str, body: Body) -> bool:
        """Whether the fingers have closed on a thing: they rest on both its sides, or on one while it is in the air."""
        simulation = self.environment.scene.simulation
        touching = simulation.fingers_on(thing) + (body.bottom_m > IN_THE_AIR_M)
        return touching >= 2 and float(np.abs(simulation.fingers()[1]).max()) < STILL_M_PER_S

    def body(self, thing: str) -> Body:
        """A thing as the gripper meets it now."""
        simulation = self.environment.scene.simulation
        corners = simulation.corners_m(thing)
        turn = self.best_turn(corners)
        axes = np.array(((math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))))
        along = corners[:, :2] @ axes.T
        middle = axes.T @ (along.min(axis=0) + along.max(axis=0)) / 2
        height = max(LOWEST_GRIP_M, float(corners[:, 2].max()) - GRIP_BELOW_TOP_M)
        return Body(grip_m=np.append(middle, height), turn_rad=turn, bottom_m=float(corners[:, 2].min()))

    def best_turn(self, corners_m: NDArray[np.float64]) -> float:
        """The angle of the line from finger to finger at which a thing fits between them, across where it can be."""
        across = math.pi / 2 + TURNS_RAD
        along = corners_m[:, :2] @ np.array((np.cos(across), np.sin(across)))
        widths = along.max(axis=0) - along.min(axis=0)
        cost = np.maximum(widths, COMFORTABLE_WIDTH_M) + WIDTH_PER_TURN_M * np.abs(TURNS_RAD)
        return float(across[np.argmin(cost)])

    def grasp(self, body: Body) -> Goal:
        """Come down over the thing with open jaws, and close them once it is between them."""
        simulation = self.environment.scene.simulation
        miss = simulation.grip_m() - body.grip_m
        distance = float(np.linalg.norm(miss[:2]))
        opening = float(np.abs(simulation.fingers()[0]).sum())
        closed = np.clip(1 - opening / OPENING_M, 0, 1)
        is_turned = np.linalg.norm(upright_turn(simulation.grip_turn(), body.turn_rad)) < IN_JAWS_RAD
        tolerance = IN_JAWS_M + 0.01 * closed
        if is_turned and distance < tolerance and abs(miss[2]) < IN_JAWS_HEIGHT_M + 0.01 * closed:
            return Goal(point_m=body.grip_m, gripper=CLOSE, turn_rad=body.turn_rad, delicate=True)
        ceiling = max(TRANSIT_M, body.grip_m[2] + ABOVE_GRIP_M)
        height = np.clip(body.grip_m[2] + FUNNEL_SLOPE * (distance - FUNNEL_FLOOR_M), body.grip_m[2], ceiling)
        point = np.append(body.grip_m[:2], height)
        return Goal(point_m=point, gripper=OPEN, turn_rad=body.turn_rad, delicate=distance < NEAR_M)

    def carry(self, body: Body, way_m: NDArray[np.float64]) -> Goal:
        """Up, over the rim and to the middle of the basket, which is `way_m` [2] from the thing."""
        grip = self.environment.scene.simulation.grip_m()
        freedom = np.clip((body.bottom_m - FREE_FROM_M) / (FREE_AT_M - FREE_FROM_M), 0, 1)
        height = grip[2] + RIM_M + CLEARANCE_M - body.bottom_m
        is_near = float(np.linalg.norm(way_m)) < NEAR_M
        return Goal(point_m=np.append(grip[:2] + freedom * way_m, height), gripper=CLOSE, delicate=is_near)


def limited(command: NDArray[np.float64], largest: float) -> NDArray[np.float64]:
    """The command, shortened to `largest` where it is longer."""
    return command * min(1.0, largest / max(float(np.linalg.norm(command)), 1e-9))


def upright_turn(present: NDArray[np.float64], turn_rad: float | None) -> NDArray[np.float64]:
    """[3] axis times angle in the world's frame that turns the gripper [3, 3] so that it points straight down.

    The line from finger to finger then is at `turn_rad` to the world's first axis, or at its present angle for None;
    which finger comes first does not matter.
    """
    angle = math.atan2(present[1, 0], present[0, 0]) if turn_rad is None else turn_rad
    across = np.array((math.cos(angle), math.sin(angle), 0.0))
    across *= math.copysign(1.0, across @ present[:, 0])
    down = np.array((0.0, 0.0, -1.0))
    wanted = np.stack((across, np.cross(down, across), down), axis=1)
    turn = wanted @ present.T
    sines = np.array((turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1])) / 2
    sine = float(np.linalg.norm(sines))
    return sines * (math.atan2(sine, (np.trace(turn) - 1) / 2) / max(sine, 1e-9))
