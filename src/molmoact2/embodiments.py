"""What a robot is: its cameras in order, its joints with names and units, its rates and its words in the prompt.

The table holds the embodiments that MolmoAct2 was released for (paper Table 1, `norm_stats.json` of the releases) and
our simulated SO-101. What a checkpoint says about a tag in its norm statistics always wins over this table.
"""

from dataclasses import dataclass

SO_JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
YAM_JOINTS = tuple(
    f"{side}_{joint}.pos" for side in ("left", "right") for joint in (*(f"joint_{i}" for i in range(6)), "gripper")
)
FRANKA_JOINTS = (*(f"joint_{i}" for i in range(1, 8)), "gripper")
DELTA_POSE = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


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
    """Unit of each action dimension: "deg", "rad", "m", "fraction" (0 closed, 1 open) or "percent" (0 closed)."""
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
    action_limits: tuple[tuple[float, float], ...] | None = None
    """Lowest and highest command of each action dimension, where known."""


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
    control_mode="absolute joint pose",
    normalize_gripper=True,
    action_limits=((-110.0, 110.0), (-100.0, 100.0), (-96.8, 96.8), (-95.0, 95.0), (-157.2, 162.8), (0.0, 100.0)),
)

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
            control_mode="absolute joint pose",
            normalize_gripper=True,
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
            control_mode="absolute joint pose",
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
            control_mode="absolute joint pose",
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
            control_mode="delta end-effector pose",
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
            control_mode="delta end-effector pose",
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
            control_mode="delta end-effector pose",
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
            control_mode="delta end-effector pose",
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
            control_mode="delta end-effector pose",
        ),
    )
}
