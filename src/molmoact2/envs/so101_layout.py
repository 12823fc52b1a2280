# pyright: reportAttributeAccessIssue=false
"""What a scene looks like at its start: drawn from a seed, then written into the compiled model.

Everything random is drawn in `draw_layout`, so a layout is a plain description that can be printed, compared or made
by hand. `apply_layout` changes fields of the model; nothing is compiled again.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.headless import mujoco
from molmoact2.envs.so101_distractors import PARKED_M, Distractor, place_distractors
from molmoact2.envs.so101_regions import Region
from molmoact2.envs.so101_scene import (
    COLOURS,
    CUBE_MASS_KG,
    CUBE_RGB,
    FRONT_CAMERA,
    HEADLIGHT,
    LAMP,
    PAN_AXIS_X_M,
    PLATE_RADIUS_M,
    WRIST_CAMERA,
    look_at,
    rolled,
)

TASKS = ("pick", "plate", "push")
SIDES = {"left": 1.0, "right": -1.0}
"""Direction along y: the robot's own left and right. In the front camera's image, which faces it, they are mirrored."""

CUBE_HALF_M = (0.013, 0.017)
REACH_M = (0.150, 0.240)
AZIMUTH_RAD = 0.75
CUBE_REGION = Region(
    low=(REACH_M[0], -AZIMUTH_RAD), high=(REACH_M[1], AZIMUTH_RAD), room_below=(0.020, 0.45), room_above=(0.035, 0.45)
)
"""By distance [m] and direction [rad] from the shoulder's axis."""
CUBE_TURN_RAD = 0.30
"""Largest angle between a cube's faces and the direction from the shoulder to the cube."""
CUBE_SPACING_M = 0.065
"""Least distance between two cubes' centres: an open gripper fits between them."""
PLATE_REGION = Region(low=(0.160, -0.95), high=(0.220, 0.95), room_below=(0.015, 0.35), room_above=(0.035, 0.35))
PLATE_SPACING_M = PLATE_RADIUS_M + 0.035
PLATE_CHANCE = 0.3
OTHER_CUBES = (1, 2)

PUSH_REGION = Region(low=(0.150, -0.090), high=(0.205, 0.030), room_below=(0.015, 0.050), room_above=(0.025, 0.030))
"""Start of the pushed cube, so that its end is within reach: metres ahead of the shoulder, and along the push."""
PUSH_SWEEP_M = (-0.035, 0.085)
"""What cube and gripper pass over, along the push direction from the cube's start."""
TRIES = 40

HOME_RAD = (0.0, -1.10, 0.55, 1.45, 0.0, 0.10)
HOME_JITTER_RAD = 0.06
CAMERA_SHIFT_M, CAMERA_AIM_M = 0.006, 0.005
TABLE_RGB = ((0.55, 0.42, 0.30), (0.42, 0.44, 0.47), (0.62, 0.58, 0.50), (0.32, 0.28, 0.27), (0.52, 0.56, 0.60))


@dataclass(frozen=True, kw_only=True)
class Cube:
    """One cube standing on the table."""

    x_m: float
    y_m: float
    turn_rad: float
    """Angle of its faces about z."""
    half_m: float
    rgb: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What changes the pictures and nothing else."""

    table_rgb: NDArray[np.float64]
    lamp_position_m: NDArray[np.float64]
    lamp_rgb: NDArray[np.float64]
    ambient: float
    camera_shifts_m: NDArray[np.float64]
    """[camera (front, wrist), what (position, aim), xyz] in the frame of the camera's body."""
    room_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Colour of the light that comes from no lamp."""
    headlight: float = HEADLIGHT
    """Strength of the light that comes from where the camera is."""
    front_roll_rad: float = 0.0
    """Turn of the front camera about its own axis."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One scene and what is to be done in it."""

    task: str
    target: str
    """Colour of the cube that the instruction names."""
    side: str
    """Where to push it; only the push task uses it."""
    cubes: dict[str, Cube]
    plate_m: tuple[float, float] | None
    """The plate's centre, or None where there is no plate."""
    home_rad: NDArray[np.float64]
    """[6] joint angles at the start."""
    look: Look
    distractors: tuple[Distractor, ...] = ()
    """Things that no task is about; the model must have been built with them."""


def draw_layout(seed: int, task: str, *, spatial: float = 0.0) -> Layout:
    """The scene of a seed and a task; the same on every machine.

    `spatial` is how far cubes and plate are moved out of their regions, from 0 to 1.
    """
    rng = np.random.default_rng((seed, zlib.crc32(task.encode())))
    colours = [str(colour) for colour in rng.permutation(COLOURS)]
    colours = colours[: 1 + int(rng.integers(OTHER_CUBES[0], OTHER_CUBES[1], endpoint=True))]
    side = str(rng.choice(sorted(SIDES)))
    with_plate = task == "plate" or bool(rng.random() < PLATE_CHANCE)
    cubes, plate_m = draw_objects(rng, task, SIDES[side], colours, with_plate, spatial)
    home = np.asarray(HOME_RAD) + rng.uniform(-HOME_JITTER_RAD, HOME_JITTER_RAD, 6)
    return Layout(
        task=task,
        target=colours[0],
        side=side,
        cubes=cubes,
        plate_m=plate_m,
        home_rad=home,
        look=draw_look(rng),
    )


def draw_objects(
    rng: np.random.Generator, task: str, direction: float, colours: list[str], with_plate: bool, spatial: float
) -> tuple[dict[str, Cube], tuple[float, float] | None]:
    """Places on the table: the named cube first, then plate and other cubes where nothing is in the way."""
    while True:
        is_push = task == "push"
        target = draw_push_start(rng, direction, spatial) if is_push else draw_place(rng, CUBE_REGION, spatial)
        sweep_m = np.multiply(PUSH_SWEEP_M if is_push else (0.0, 0.0), direction)
        plate = draw_plate(rng, target, sweep_m, spatial) if with_plate else None
        places = draw_other_cubes(rng, target, sweep_m, plate, len(colours) - 1, spatial)
        if places is not None and (plate is not None or not with_plate):
            break
    places = [target, *places]
    cubes = {colour: draw_cube(rng, colour, place) for colour, place in zip(colours, places, strict=True)}
    return cubes, None if plate is None else (float(plate[0]), float(plate[1]))


def draw_plate(
    rng: np.random.Generator, target: NDArray[np.float64], sweep_m: NDArray[np.float64], spatial: float
) -> NDArray[np.float64] | None:
    """A place [2] for the plate away from the named cube; None where none was found."""
    for _ in range(TRIES):
        place = draw_place(rng, PLATE_REGION, spatial)
        if distance_to_sweep(place, target, sweep_m) > PLATE_SPACING_M:
            return place
    return None


def draw_other_cubes(
    rng: np.random.Generator,
    target: NDArray[np.float64],
    sweep_m: NDArray[np.float64],
    plate: NDArray[np.float64] | None,
    count: int,
    spatial: float,
) -> list[NDArray[np.float64]] | None:
    """Places [2] for `count` more cubes, away from each other and all else; None where they were not found."""
    places: list[NDArray[np.float64]] = []
    for _ in range(TRIES):
        place = draw_place(rng, CUBE_REGION, spatial)
        clear_of_plate = plate is None or math.dist(place, plate) > PLATE_SPACING_M
        clear_of_cubes = all(math.dist(place, other) > CUBE_SPACING_M for other in places)
        if clear_of_plate and clear_of_cubes and distance_to_sweep(place, target, sweep_m) > CUBE_SPACING_M:
            places.append(place)
        if len(places) == count:
            return places
    return None


def distance_to_sweep(place: NDArray[np.float64], start: NDArray[np.float64], sweep_m: NDArray[np.float64]) -> float:
    """Distance in metres from a place to the line along y that a cube and the gripper behind it pass over."""
    across, along = place - start
    return math.hypot(across, along - np.clip(along, *sorted(sweep_m)))


def draw_place(rng: np.random.Generator, region: Region, spatial: float) -> NDArray[np.float64]:
    """A point [2] on the table, from a region of distances and directions from the shoulder's axis."""
    reach, azimuth = region.draw(rng, spatial).tolist()
    return np.array((PAN_AXIS_X_M + reach * math.cos(azimuth), reach * math.sin(azimuth)))


def draw_push_start(rng: np.random.Generator, direction: float, spatial: float) -> NDArray[np.float64]:
    """Where a cube [2] starts that will be pushed along y."""
    return (PAN_AXIS_X_M, 0.0) + (1.0, direction) * PUSH_REGION.draw(rng, spatial)


def draw_cube(rng: np.random.Generator, colour: str, place: NDArray[np.float64]) -> Cube:
    """Size, shade and turn of a cube that stands at `place` [2]."""
    radial = math.atan2(place[1], place[0] - PAN_AXIS_X_M)
    shade = np.clip(np.asarray(CUBE_RGB[colour]) * rng.uniform(0.85, 1.15) + rng.uniform(-0.03, 0.03, 3), 0, 1)
    return Cube(
        x_m=float(place[0]),
        y_m=float(place[1]),
        turn_rad=radial + rng.uniform(-CUBE_TURN_RAD, CUBE_TURN_RAD),
        half_m=rng.uniform(*CUBE_HALF_M),
        rgb=tuple(shade.tolist()),
    )


def draw_look(rng: np.random.Generator) -> Look:
    """Light, table colour and small camera errors."""
    table = np.asarray(TABLE_RGB)[rng.integers(len(TABLE_RGB))] * rng.uniform(0.8, 1.2) + rng.uniform(-0.04, 0.04, 3)
    return Look(
        table_rgb=np.clip(table, 0, 1),
        lamp_position_m=rng.uniform((-0.3, -0.7, 1.0), (0.8, 0.7, 1.4)),
        lamp_rgb=rng.uniform(0.45, 0.75) * rng.uniform(0.92, 1.0, 3),
        ambient=rng.uniform(0.30, 0.45),
        camera_shifts_m=rng.uniform(-1, 1, (2, 2, 3)) * np.array((CAMERA_SHIFT_M, CAMERA_AIM_M))[None, :, None],
    )


def apply_layout(model: mujoco.MjModel, data: mujoco.MjData, layout: Layout) -> None:
    """Bring model and state to the start of the layout's scene."""
    mujoco.mj_resetData(model, data)
    data.qpos[:6] = np.clip(layout.home_rad, *model.jnt_range[:6].T)
    data.ctrl[:] = data.qpos[:6]
    for colour in COLOURS:
        place_cube(model, data, colour, layout.cubes.get(colour))
    model.body("plate").pos = PARKED_M if layout.plate_m is None else (*layout.plate_m, 0.0)
    place_distractors(model, data, layout.distractors)
    apply_look(model, layout.look)
    mujoco.mj_forward(model, data)


def place_cube(model: mujoco.MjModel, data: mujoco.MjData, colour: str, cube: Cube | None) -> None:
    """Stand a cube on the table, or park it out of sight, weightless, where it touches nothing."""
    body, geom = model.body(colour), model.geom(colour)
    address = model.joint(colour).qposadr[0]
    model.body_gravcomp[body.id] = float(cube is None)
    geom.contype = geom.conaffinity = int(cube is not None)
    if cube is None:
        data.qpos[address : address + 7] = (*PARKED_M, 1, 0, 0, 0)
        return
    half_turn = cube.turn_rad / 2
    data.qpos[address : address + 7] = (cube.x_m, cube.y_m, cube.half_m, math.cos(half_turn), 0, 0, math.sin(half_turn))
    geom.size = cube.half_m
    geom.rgba[:3] = cube.rgb
    body.inertia = CUBE_MASS_KG * (2 * cube.half_m) ** 2 / 6


def apply_look(model: mujoco.MjModel, look: Look) -> None:
    """Write light, colours and camera poses into the model."""
    model.geom("table").rgba[:3] = look.table_rgb
    lamp = model.light(LAMP)
    lamp.pos = look.lamp_position_m
    lamp.dir = (0.2, 0.0, 0.0) - look.lamp_position_m
    lamp.diffuse = look.lamp_rgb
    model.vis.headlight.ambient = np.multiply(look.room_rgb, look.ambient)
    model.vis.headlight.diffuse = np.multiply(look.room_rgb, look.headlight)
    for name, (position_m, aim_m, _), (shift, aim_shift) in zip(
        ("front", "wrist"), (FRONT_CAMERA, WRIST_CAMERA), look.camera_shifts_m, strict=True
    ):
        camera = model.camera(name)
        camera.pos = position_m + shift
        camera.quat = look_at(camera.pos, aim_m + aim_shift)
    model.camera("front").quat = rolled(model.camera("front").quat, look.front_roll_rad)
