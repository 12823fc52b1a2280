# pyright: reportAttributeAccessIssue=false
"""Things on the table that no task is about: none of them a cube, none of them red, green or blue.

They are bodies of the model only where an environment asks for distractors, so that scenes without them are computed
by the very same model as ever.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from molmoact2.envs.headless import mujoco
from molmoact2.tokens.reading import require


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a thing is; its size is MuJoCo's for its type."""

    kind: mujoco.mjtGeom
    size_m: tuple[float, ...]
    half_height_m: float
    """Of its centre above the table, as it lies."""
    radius_m: float
    """Of the circle on the table that holds it."""
    lying: bool = False
    """Whether it is laid on its side."""


SHAPES = {
    "can": Shape(kind=mujoco.mjtGeom.mjGEOM_CYLINDER, size_m=(0.016, 0.019), half_height_m=0.019, radius_m=0.016),
    "ball": Shape(kind=mujoco.mjtGeom.mjGEOM_SPHERE, size_m=(0.016,), half_height_m=0.016, radius_m=0.016),
    "bar": Shape(kind=mujoco.mjtGeom.mjGEOM_BOX, size_m=(0.030, 0.009, 0.009), half_height_m=0.009, radius_m=0.031),
    "tile": Shape(kind=mujoco.mjtGeom.mjGEOM_BOX, size_m=(0.022, 0.022, 0.004), half_height_m=0.004, radius_m=0.031),
    "egg": Shape(
        kind=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size_m=(0.021, 0.015, 0.013), half_height_m=0.013, radius_m=0.021
    ),
    "pill": Shape(
        kind=mujoco.mjtGeom.mjGEOM_CAPSULE, size_m=(0.010, 0.016), half_height_m=0.010, radius_m=0.026, lying=True
    ),
}
PALETTE = (
    (0.92, 0.78, 0.10),
    (0.50, 0.16, 0.62),
    (0.95, 0.48, 0.06),
    (0.10, 0.68, 0.74),
    (0.94, 0.50, 0.68),
    (0.38, 0.24, 0.13),
    (0.92, 0.92, 0.88),
    (0.12, 0.12, 0.13),
)
"""Yellow, purple, orange, turquoise, pink, brown, white, black."""
MASS_KG = 0.030
PARKED_M = (0.0, 0.0, -5.0)


@dataclass(frozen=True, kw_only=True)
class Distractor:
    """One of the `SHAPES` on the table."""

    shape: str
    x_m: float
    y_m: float
    turn_rad: float
    """Angle of its long side about z."""
    rgb: tuple[float, float, float]


def add_distractors(spec: mujoco.MjSpec) -> None:
    """One body for each of the `SHAPES`, parked out of sight until a layout places it."""
    for name, shape in SHAPES.items():
        body = spec.worldbody.add_body(name=name, pos=PARKED_M, gravcomp=1)
        body.add_freejoint(name=name)
        size = (*shape.size_m, 0.0, 0.0)[:3]
        # The friction against rolling and turning lets a ball stay where it was put.
        body.add_geom(name=name, type=shape.kind, size=size, mass=MASS_KG, condim=6, friction=(1.0, 0.005, 0.002))


def place_distractors(model: mujoco.MjModel, data: mujoco.MjData, distractors: Sequence[Distractor]) -> None:
    """Lay `distractors` on the table and park the others; the state is that of a reset.

    Raises:
        ValueError: the model was built without them.
    """
    modelled = SHAPES.keys() & {model.body(index).name for index in range(model.nbody)}
    require(
        modelled or not distractors,
        "This environment was made without distractors: make it with variations=Variations(distractors=1).",
    )
    for name in modelled:
        set_present(model, name, is_present=any(one.shape == name for one in distractors))
    for one in distractors:
        shape, address = SHAPES[one.shape], model.joint(one.shape).qposadr[0]
        quaternion = np.empty(4)
        mujoco.mju_euler2Quat(quaternion, (one.turn_rad, shape.lying * math.pi / 2, 0.0), "zyx")
        data.qpos[address : address + 7] = (one.x_m, one.y_m, shape.half_height_m, *quaternion)
        model.geom(one.shape).rgba[:3] = one.rgb


def set_present(model: mujoco.MjModel, name: str, *, is_present: bool) -> None:
    """Let a body fall and touch, or float where it is and touch nothing."""
    geom = model.geom(name)
    model.body_gravcomp[model.body(name).id] = float(not is_present)
    geom.contype = geom.conaffinity = int(is_present)
