"""What a robot is: its cameras in order, its joints with names and units, its rates and its words in the prompt.

The table holds the embodiments that MolmoAct2 was released for (paper Table 1, `norm_stats.json` of the releases) and
our simulated SO-101. What a checkpoint says about a tag in its norm statistics always wins over this table.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SO_JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
YAM_JOINTS = tuple(
    f"{side}_{joint}.pos" for side in ("left", "right") for joint in (*(f"joint_{i}" for i in range(6)), "gripper")
)
FRANKA_JOINTS = (*(f"joint_{i}" for i in range(1, 8)), "gripper")
DELTA_POSE_MODE = "delta end-effector pose"
JOINT_POSE_MODE = "absolute joint pose"
DELTA_POSE = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")

SO_ALIASES = {
    f"{prefix}{joint}{suffix}": joint
    for joint in SO_JOINTS
    for prefix in ("", "main_", "left_", "right_")
    for suffix in ("", ".pos")
}
YAM_MOTORS = {"gripper": "gripper", **{f"m{i}": "gripper" for i in (7, 8, 9)}} | {
    f"{word}{i + 1}": f"joint_{i}" for word in ("joint", "m") for i in range(6)
}
YAM_ALIASES = {f"{side}_{old}": f"{side}_{new}.pos" for side in ("left", "right") for old, new in YAM_MOTORS.items()}
"""Recordings count joints or motors from 1; the motor after the sixth, whatever its number, is the gripper's."""


@dataclass(frozen=True, kw_only=True)
class Embodiment:
    """One kind of robot, as a policy and a controller need to know it."""

    tag: str
    """Key in a checkpoint's norm statistics."""
    cameras: tuple[str, ...]
    """Camera names in the order the policy sees them; empty means that a dataset's own cameras are used."""
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    """Unit of each action dimension: "deg", "rad", "m", "fraction" or "percent"; "unknown" where nobody says."""
    control_hz: float
    """Actions per second."""
    action_horizon: int
    """Steps that the policy plans."""
    n_action_steps: int
    """Steps that are executed before it looks again."""
    setup: str
    """The robot, in the words of the prompt."""
    control_mode: str
    """What an action means, in the words of the prompt."""
    normalize_gripper: bool = False
    """Whether the gripper is scaled like a joint, or passed through because it is in [0, 1] already."""
    gripper_range: tuple[float, float] | None = None
    """Command of a closed and of an open gripper, in this order, where documented."""
    action_limits: tuple[tuple[float, float], ...] | None = None
    """Lowest and highest command of each action dimension, where known."""
    state_limits: tuple[tuple[float, float], ...] | None = None
    """Lowest and highest value of each state dimension, where known; see the table for whether the hardware says so or
    the data do."""
    camera_roles: tuple[str, ...] = ()
    """What each camera shows, "scene" or "wrist"; empty where that is not fixed."""
    camera_aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    """Camera -> other names that it has in data of this robot."""
    name_aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Other name of a dimension in data of this robot -> its name here (training.md C.3)."""

    def canonical(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names of dimensions as this table spells them; a name that it does not know stays as it is."""
        return tuple(self.name_aliases.get(name, name) for name in names)


SO101_TABLETOP = Embodiment(
    tag="so101_tabletop",
    cameras=("front", "wrist"),
    state_names=SO_JOINTS,
    action_names=SO_JOINTS,
    action_units=("deg", "deg", "deg", "deg", "deg", "percent"),
    control_hz=15.0,
    action_horizon=16,
    n_action_steps=12,
    setup="single so101 robotic arm in simulation",
    control_mode=JOINT_POSE_MODE,
    normalize_gripper=True,
    gripper_range=(0.0, 100.0),
    action_limits=((-110.0, 110.0), (-100.0, 100.0), (-96.8, 96.8), (-95.0, 95.0), (-157.2, 162.8), (0.0, 100.0)),
    camera_roles=("scene", "wrist"),
    name_aliases=SO_ALIASES,
)

FRANKA_LIMITS_RAD = (
    (-2.8973, 2.8973), (-1.7628, 1.7628), (-2.8973, 2.8973), (-3.0718, -0.0698), (-2.8973, 2.8973), (-0.0175, 3.7525),
    (-2.8973, 2.8973),
)  # fmt: skip
"""Joint ranges of the Franka Emika Panda, from its data sheet."""
YAM_OBSERVED = (
    (-1.988, 1.808), (-0.007, 3.199), (-0.003, 3.151), (-1.696, 1.593), (-1.573, 1.589), (-2.184, 2.208), (0.0, 1.0),
    (-1.677, 2.441), (-0.007, 3.108), (-0.003, 3.153), (-1.706, 1.665), (-1.629, 1.595), (-2.143, 2.164), (0.0, 1.0),
)  # fmt: skip
"""Smallest and largest action in the 76 million frames of BimanualYAM, from the release's `norm_stats.json`."""

EMBODIMENTS: dict[str, Embodiment] = {
    e.tag: e
    for e in (
        SO101_TABLETOP,
        Embodiment(
            tag="so100_so101_molmoact2",
            cameras=(),
            state_names=SO_JOINTS,
            action_names=SO_JOINTS,
            action_units=("deg", "deg", "deg", "deg", "deg", "percent"),
            control_hz=30.0,
            action_horizon=30,
            n_action_steps=30,
            setup="single so100/so101 robotic arm in molmoact2",
            control_mode=JOINT_POSE_MODE,
            normalize_gripper=True,
            gripper_range=(0.0, 100.0),
            name_aliases=SO_ALIASES,
        ),
        Embodiment(
            tag="yam_dual_molmoact2",
            cameras=("top", "left", "right"),
            state_names=YAM_JOINTS,
            action_names=YAM_JOINTS,
            action_units=("rad", "rad", "rad", "rad", "rad", "rad", "fraction") * 2,
            control_hz=30.0,
            action_horizon=30,
            n_action_steps=30,
            setup="bimanual yam robotic arms in molmoact2",
            control_mode=JOINT_POSE_MODE,
            gripper_range=(0.0, 1.0),
            state_limits=YAM_OBSERVED,
            camera_roles=("scene", "wrist", "wrist"),
            camera_aliases={
                "top": ("camera_front", "top_cam"),
                "left": ("camera_left", "left_cam"),
                "right": ("camera_right", "right_cam"),
            },
            name_aliases=YAM_ALIASES,
        ),
        Embodiment(
            tag="franka_droid",
            cameras=("exterior_1_left", "exterior_2_left", "wrist_left"),
            state_names=FRANKA_JOINTS,
            action_names=FRANKA_JOINTS,
            action_units=(*("rad",) * 7, "fraction"),
            control_hz=15.0,
            action_horizon=15,
            n_action_steps=15,
            setup="single franka robotic arm in droid",
            control_mode=JOINT_POSE_MODE,
            gripper_range=(1.0, 0.0),
            state_limits=(*FRANKA_LIMITS_RAD, (0.0, 1.0)),
            camera_roles=("scene", "scene", "wrist"),
        ),
        Embodiment(
            tag="franka_molmoact",
            cameras=("primary", "secondary"),
            state_names=DELTA_POSE,
            action_names=DELTA_POSE,
            action_units=("m", "m", "m", "rad", "rad", "rad", "fraction"),
            control_hz=10.0,
            action_horizon=10,
            n_action_steps=10,
            setup="single franka robotic arm in molmoact2",
            control_mode=DELTA_POSE_MODE,
            camera_roles=("scene", "scene"),
        ),
        Embodiment(
            tag="libero",
            cameras=("image", "wrist_image"),
            state_names=("x", "y", "z", "roll", "pitch", "yaw", "gripper_left", "gripper_right"),
            action_names=DELTA_POSE,
            action_units=("m", "m", "m", "rad", "rad", "rad", "fraction"),
            control_hz=10.0,
            action_horizon=10,
            n_action_steps=10,
            setup="single franka robotic arm in libero",
            control_mode=DELTA_POSE_MODE,
            gripper_range=(1.0, -1.0),
            camera_roles=("scene", "wrist"),
            camera_aliases={"wrist_image": ("image2",)},
        ),
        Embodiment(
            tag="google_robot_bc_z",
            cameras=("image",),
            state_names=DELTA_POSE,
            action_names=DELTA_POSE,
            action_units=("m", "m", "m", "rad", "rad", "rad", "fraction"),
            control_hz=10.0,
            action_horizon=10,
            n_action_steps=10,
            setup="google robot in bc_z",
            control_mode=DELTA_POSE_MODE,
            camera_roles=("scene",),
        ),
        Embodiment(
            tag="google_robot_fractal",
            cameras=("image",),
            state_names=DELTA_POSE,
            action_names=DELTA_POSE,
            action_units=("m", "m", "m", "rad", "rad", "rad", "fraction"),
            control_hz=3.0,
            action_horizon=3,
            n_action_steps=3,
            setup="google robot in rt_1",
            control_mode=DELTA_POSE_MODE,
            camera_roles=("scene",),
        ),
        Embodiment(
            tag="widowx_bridge",
            cameras=("image_0", "image_1", "image_2", "image_3"),
            state_names=DELTA_POSE,
            action_names=DELTA_POSE,
            action_units=("m", "m", "m", "rad", "rad", "rad", "fraction"),
            control_hz=5.0,
            action_horizon=5,
            n_action_steps=5,
            setup="single widowx robotic arm in bridge",
            control_mode=DELTA_POSE_MODE,
            camera_roles=("scene",) * 4,
        ),
    )
}

ROBOT_TYPES: dict[str, str] = {
    **{tag: tag for tag in EMBODIMENTS},
    **dict.fromkeys(("so100", "so101", "so100_follower", "so101_follower"), "so100_so101_molmoact2"),
    "molmoact_dual_arm": "yam_dual_molmoact2",
}
"""What the `robot_type` of a LeRobot dataset says -> the embodiment that it means."""
