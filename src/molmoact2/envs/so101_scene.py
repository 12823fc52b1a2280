# pyright: reportAttributeAccessIssue=false
"""The tabletop as a MuJoCo model: one SO-101, a table, three cubes, a plate, a lamp and three cameras.

It is compiled once. `so101_layout` then changes the compiled model's fields for every scene. The world frame is the
robot's base frame: x forward, y to the robot's left, z up, the table top at z = 0; metres.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from molmoact2.envs.headless import mujoco
from molmoact2.envs.so101_distractors import add_distractors
from molmoact2.envs.so101_meshes import arm_assets, light_meshes

COLOURS = ("red", "green", "blue")
CUBE_RGB = {"red": (0.80, 0.08, 0.08), "green": (0.10, 0.60, 0.15), "blue": (0.08, 0.20, 0.80)}
CUBE_MASS_KG = 0.030
LARGEST_CUBE_HALF_M = 0.017
PLATE_RADIUS_M = 0.050
PLATE_HALF_HEIGHT_M = 0.003
PAD_RGBA = (0.16, 0.16, 0.18, 1)
VISIBLE_GROUP = 2
LAMP = "lamp"
HEADLIGHT = 0.25

PHYSICS_STEPS_PER_CONTROL_STEP = 16
CONTROL_HZ = 15.0
PAN_AXIS_X_M = 0.0388
"""The shoulder turns about the vertical line through (PAN_AXIS_X_M, 0)."""

FRONT_CAMERA = ((0.50, 0.0, 0.42), (0.180, 0.0, 0.0), 45.0)
OVERVIEW_CAMERA = ((0.62, -0.42, 0.42), (0.13, 0.0, 0.06), 42.0)
WRIST_CAMERA = ((0.005, -0.075, -0.015), (0.012, 0.0, -0.11), 70.0)
"""Each camera's position and aim in the frame of its body [m], and vertical field of view [degrees]."""

PAD_CONTACT = {"condim": 4, "friction": (1.5, 0.05, 0.001), "solref": (0.01, 1.0), "priority": 1}
FIXED_SIDE = ("fixed_jaw_pad", "fixed_finger")
MOVING_SIDE = ("moving_jaw_pad", "moving_jaw")


def look_at(position_m: ArrayLike, aim_m: ArrayLike) -> NDArray[np.float64]:
    """Quaternion [4] (w first) of a camera at `position_m` that looks at `aim_m`, its up side up."""
    backward = np.subtract(position_m, aim_m)
    backward /= np.linalg.norm(backward)
    right = np.cross((0.0, 0.0, 1.0), backward)
    right /= np.linalg.norm(right)
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(backward, right), backward], axis=1).ravel())
    return quaternion


def rolled(quaternion: NDArray[np.float64], roll_rad: float) -> NDArray[np.float64]:
    """Quaternion [4] of a camera that is turned about its own axis: positive turns the picture clockwise."""
    result = np.empty(4)
    mujoco.mju_mulQuat(result, quaternion, (math.cos(roll_rad / 2), 0.0, 0.0, math.sin(roll_rad / 2)))
    return result


def build_model(*, with_distractors: bool = False) -> mujoco.MjModel:
    """Compile the scene; about 0.2 s. `with_distractors` adds the things of `so101_distractors`.

    Raises:
        ImportError: the package that holds the arm is not installed.
    """
    spec = mujoco.MjSpec.from_file(str(arm_assets() / "so101_new_calib.xml"))
    use_light_meshes(spec)
    set_physics(spec)
    prepare_arm(spec)
    add_room(spec)
    add_objects(spec)
    if with_distractors:
        add_distractors(spec)
    add_cameras(spec)
    return spec.compile()


def use_light_meshes(spec: mujoco.MjSpec) -> None:
    """Replace the arm's mesh files by their light versions."""
    light = light_meshes()
    for mesh in spec.meshes:
        name = mesh.file.removesuffix(".stl")
        vertices, faces = light[name]
        mesh.name, mesh.file = name, ""
        mesh.uservert, mesh.userface = vertices.ravel(), faces.ravel()


def set_physics(spec: mujoco.MjSpec) -> None:
    """Time step and solver: friction strong enough to hold a cube between two pads."""
    spec.option.timestep = 1 / (CONTROL_HZ * PHYSICS_STEPS_PER_CONTROL_STEP)
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.option.noslip_iterations = 3
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST


def prepare_arm(spec: mujoco.MjSpec) -> None:
    """Let only the fingers collide, and let the motors hold the arm's own weight as the real servos do."""
    for geom in spec.geoms:
        if geom.name in ("fixed_jaw_pad", "moving_jaw_pad"):
            make_touchable(geom)
            geom.group, geom.rgba = VISIBLE_GROUP, PAD_RGBA
        elif geom.contype and geom.meshname == "moving_jaw_so101_v1":
            geom.name = "moving_jaw"
            make_touchable(geom)
        else:
            geom.contype = geom.conaffinity = 0
    for material in spec.materials:
        material.specular = 0.1
    gripper = spec.body("gripper")
    finger = gripper.add_geom(
        name="fixed_finger",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=(-0.0165, -0.0002, -0.080),
        size=(0.0045, 0.007, 0.022),
        group=3,
        mass=0,
    )
    make_touchable(finger)
    gripper.add_site(name="pinch", pos=(0.0135, -0.0002, -0.0972), group=3)
    for body in spec.bodies[1:]:
        body.gravcomp = 1


def make_touchable(geom: mujoco.MjsGeom) -> None:
    """Give a finger's collision shape the contact that grips."""
    geom.contype = geom.conaffinity = 1
    geom.condim, geom.priority = PAD_CONTACT["condim"], PAD_CONTACT["priority"]
    geom.friction, geom.solref = PAD_CONTACT["friction"], PAD_CONTACT["solref"]


def add_room(spec: mujoco.MjSpec) -> None:
    """Table, floor, walls' colour and lamp."""
    spec.visual.headlight.ambient = (0.35, 0.35, 0.35)
    spec.visual.headlight.diffuse = (HEADLIGHT,) * 3
    spec.visual.headlight.specular = (0.0, 0.0, 0.0)
    spec.visual.quality.shadowsize = 4096
    spec.visual.map.shadowclip = 2.0
    spec.visual.map.znear, spec.visual.map.zfar = 0.02, 30
    spec.stat.extent, spec.stat.center = 0.5, (0.2, 0.0, 0.1)
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.80, 0.84, 0.88),
        rgb2=(0.55, 0.58, 0.62),
        width=64,
        height=64,
    )
    world = spec.worldbody
    world.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(0.45, 0.60, 0.05), pos=(0.25, 0, 0))
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(8, 8, 1), pos=(0, 0, -0.75), contype=0, conaffinity=0
    )
    world.geoms[-1].rgba = (0.62, 0.62, 0.64, 1)
    world.add_light(
        name=LAMP, pos=(0.3, 0.2, 1.2), dir=(-0.1, -0.2, -1.0), type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    )


def add_objects(spec: mujoco.MjSpec) -> None:
    """Three cubes that move, and a plate that stays where it is put."""
    for colour in COLOURS:
        # Weightless unless a layout puts it on the table: a cube that is not in the scene floats out of sight.
        cube = spec.worldbody.add_body(name=colour, gravcomp=1)
        cube.add_freejoint(name=colour)
        cube.add_geom(
            name=colour,
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=(LARGEST_CUBE_HALF_M,) * 3,
            mass=CUBE_MASS_KG,
            condim=4,
            friction=(1.0, 0.005, 0.0001),
        )
    plate = spec.worldbody.add_body(name="plate")
    plate.add_geom(
        name="plate",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(PLATE_RADIUS_M, PLATE_HALF_HEIGHT_M, 0),
        pos=(0, 0, PLATE_HALF_HEIGHT_M),
        rgba=(0.93, 0.93, 0.90, 1),
    )
    plate.add_geom(
        name="plate_middle",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        size=(PLATE_RADIUS_M * 0.72, PLATE_HALF_HEIGHT_M, 0),
        pos=(0, 0, PLATE_HALF_HEIGHT_M + 0.0004),
        rgba=(0.80, 0.81, 0.80, 1),
        contype=0,
        conaffinity=0,
    )


def add_cameras(spec: mujoco.MjSpec) -> None:
    """Front and wrist for the policy; overview for people."""
    cameras = (
        (spec.worldbody, "front", FRONT_CAMERA),
        (spec.worldbody, "overview", OVERVIEW_CAMERA),
        (spec.body("gripper"), "wrist", WRIST_CAMERA),
    )
    for body, name, (position_m, aim_m, fovy_degrees) in cameras:
        body.add_camera(
            name=name,
            pos=position_m,
            fovy=fovy_degrees,
            quat=look_at(position_m, aim_m),
        )
