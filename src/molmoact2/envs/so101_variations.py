"""The variations of `variations.py` as they are for the simulated SO-101."""

import colorsys
import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.so101_distractors import PALETTE, SHAPES, Distractor
from molmoact2.envs.so101_layout import (
    PLATE_SPACING_M,
    PUSH_SWEEP_M,
    SIDES,
    Layout,
    Look,
    draw_layout,
)
from molmoact2.envs.so101_scene import PAN_AXIS_X_M
from molmoact2.envs.variations import Variations

LAMP_AIM_M, LAMP_DISTANCE_M = (0.2, 0.0, 0.0), 1.2
LAMP_ELEVATION_RAD = (0.35, 0.70)
DIM = {"lamp": (0.15, 0.25), "ambient": (0.10, 0.14), "headlight": (0.08, 0.14)}
BRIGHT = {"lamp": (1.00, 1.40), "ambient": (0.55, 0.75), "headlight": (0.25, 0.40)}
LAMP_SATURATION, ROOM_SATURATION = (0.50, 0.80), (0.25, 0.45)
TABLE_SATURATION, TABLE_VALUE = (0.40, 0.60), (0.25, 0.75)

CAMERA_SHIFT_M, CAMERA_AIM_M, CAMERA_ROLL_RAD = 0.050, 0.035, 0.10
"""Of the front camera at magnitude 1: 5 cm aside, 3.5 cm past its aim (4 degrees), 6 degrees about its axis."""

DISTRACTOR_REGIONS = (((0.13, 0.29), 0.90), ((0.13, 0.40), 1.20))
"""Range of reach [m] and largest azimuth [rad]: in sight of the front camera, and where that is full, beyond."""
DISTRACTOR_GAP_M, FINGER_ROOM_M = 0.012, 0.050
"""Least gap between two distractors, and between a distractor's rim and a cube's centre: open jaws fit between them."""
PLACES_TRIED = 1000


def draw_varied_layout(seed: int, task: str, variations: Variations) -> Layout:
    """The scene of a seed and a task under variations; with none of them it is that of `draw_layout`."""
    nominal, layout = draw_layout(seed, task), draw_layout(seed, task, spatial=variations.spatial)
    look = vary_light(nominal.look, variations.lighting, variations.rng("lighting", seed, task))
    look = vary_camera(look, variations.camera, variations.rng("camera", seed, task))
    distractors = draw_distractors(layout, variations.distractors, variations.rng("distractors", seed, task))
    return replace(layout, home_rad=nominal.home_rad, look=look, distractors=distractors)


def vary_light(look: Look, magnitude: float, rng: np.random.Generator) -> Look:
    """Part of the way from a look to an extreme one: low, coloured light, too dim or too bright, on a tinted table."""
    azimuth, elevation = rng.uniform(-math.pi, math.pi), rng.uniform(*LAMP_ELEVATION_RAD)
    direction = np.array((math.cos(azimuth), math.sin(azimuth), math.tan(elevation))) * math.cos(elevation)
    strength = (DIM, BRIGHT)[rng.integers(2)]
    lamp_rgb = draw_tint(rng, LAMP_SATURATION, strength["lamp"])
    ambient, headlight = rng.uniform(*strength["ambient"]), rng.uniform(*strength["headlight"])
    room_rgb = draw_tint(rng, ROOM_SATURATION, (1.0, 1.0))
    table_rgb = draw_tint(rng, TABLE_SATURATION, TABLE_VALUE)
    return replace(
        look,
        lamp_position_m=blend(look.lamp_position_m, LAMP_AIM_M + LAMP_DISTANCE_M * direction, magnitude),
        lamp_rgb=blend(look.lamp_rgb, lamp_rgb, magnitude),
        ambient=look.ambient + magnitude * (ambient - look.ambient),
        headlight=look.headlight + magnitude * (headlight - look.headlight),
        room_rgb=tuple(blend(np.array(look.room_rgb), room_rgb, magnitude).tolist()),
        table_rgb=blend(look.table_rgb, table_rgb, magnitude),
    )


def vary_camera(look: Look, magnitude: float, rng: np.random.Generator) -> Look:
    """Another pose of the front camera: moved, aimed beside its aim and rolled, by fixed amounts, any way."""
    shifts_m = look.camera_shifts_m.copy()
    shifts_m[0] += magnitude * np.stack([CAMERA_SHIFT_M * draw_direction(rng), CAMERA_AIM_M * draw_direction(rng)])
    roll_rad = look.front_roll_rad + magnitude * CAMERA_ROLL_RAD * float(rng.choice((-1.0, 1.0)))
    return replace(look, camera_shifts_m=shifts_m, front_roll_rad=roll_rad)


def draw_distractors(layout: Layout, magnitude: float, rng: np.random.Generator) -> tuple[Distractor, ...]:
    """As many of the shapes as the magnitude says, where they are in the way of nothing.

    Fewer of them are the first of more, at the same places.
    """
    shapes, colours = rng.permutation(list(SHAPES)), rng.permutation(np.array(PALETTE))
    places = np.concatenate([draw_places(rng, *region) for region in DISTRACTOR_REGIONS])
    turns = rng.uniform(-math.pi, math.pi, len(shapes))
    chosen: list[Distractor] = []
    for shape, colour, turn in zip(shapes[: math.ceil(magnitude * len(shapes))], colours, turns, strict=False):
        free = places[clearance_m(places, layout, chosen) > SHAPES[shape].radius_m]
        assert len(free), "a table with room for nothing more"
        x, y = free[0].tolist()
        chosen.append(Distractor(shape=str(shape), x_m=x, y_m=y, turn_rad=float(turn), rgb=tuple(colour.tolist())))
    return tuple(chosen)


def draw_places(rng: np.random.Generator, reach_m: tuple[float, float], azimuth_rad: float) -> NDArray[np.float64]:
    """Points [n, 2] on the table, by distance and direction from the shoulder's axis."""
    reach, azimuth = rng.uniform((reach_m[0], -azimuth_rad), (reach_m[1], azimuth_rad), (PLACES_TRIED, 2)).T
    return np.stack([PAN_AXIS_X_M + reach * np.cos(azimuth), reach * np.sin(azimuth)], axis=1)


def clearance_m(places: NDArray[np.float64], layout: Layout, distractors: list[Distractor]) -> NDArray[np.float64]:
    """Largest radius [n] in metres of a thing at each of `places` [n, 2]; negative where there is no room for any."""
    target = layout.cubes[layout.target]
    across, along = (places - (target.x_m, target.y_m)).T
    sweep_m = np.multiply(PUSH_SWEEP_M, SIDES[layout.side] * (layout.task == "push"))
    from_sweep = np.hypot(across, along - np.clip(along, *sorted(sweep_m)))
    taken = [((cube.x_m, cube.y_m), FINGER_ROOM_M) for cube in layout.cubes.values()]
    taken += [(plate_m, PLATE_SPACING_M) for plate_m in [layout.plate_m] if plate_m is not None]
    taken += [((one.x_m, one.y_m), SHAPES[one.shape].radius_m + DISTRACTOR_GAP_M) for one in distractors]
    rooms = [np.hypot(*(places - place).T) - radius_m for place, radius_m in taken]
    return np.min([from_sweep - FINGER_ROOM_M, *rooms], axis=0)


def blend(here: NDArray[np.float64], there: NDArray[np.float64], magnitude: float) -> NDArray[np.float64]:
    """Part of the way from here to there; exactly here for magnitude 0."""
    return here + magnitude * (there - here)


def draw_tint(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> NDArray[np.float64]:
    """A colour [3] of any hue."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)))


def draw_direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """A unit vector [3], every direction alike."""
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)
