"""What a LIBERO result was measured under: every number that changes it, and the presets that others published under.

Two results compare only when their protocols do; `LiberoProtocol.digest` tells protocols apart in result files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
PRO_SUITES = tuple(f"{suite}_{change}" for suite in SUITES[:-1] for change in ("lan", "object", "swap", "task"))
"""LIBERO-PRO's variants."""

STEPS_OPENPI: Mapping[str, int] = dict(zip(SUITES, (220, 280, 300, 520, 400), strict=True))
STEPS_LEROBOT: Mapping[str, int] = dict(zip(SUITES, (280, 280, 300, 520, 400), strict=True))
NO_OPERATION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
"""Stay, and open the gripper."""


@dataclass(frozen=True, kw_only=True)
class LiberoProtocol:
    """How episodes are set up, what a policy sees and how its actions are executed."""

    name: str
    """What people call it."""
    settle_steps: int
    """Control steps of `settle_action` after the initial state was set, so that things come to rest."""
    settle_action: tuple[float, ...] = NO_OPERATION
    max_steps: Mapping[str, int] = field(hash=False)
    """Suite -> control steps after which an episode has failed; settling does not count."""
    control_hz: int = 20
    """Actions per simulated second. The released tag "libero" says 10, the rate written into its data sets; one row of
    a chunk is one step of the simulator all the same."""
    rendered_px: int
    """Height and width at which cameras are rendered."""
    delivered_px: int
    """Height and width that the policy sees; resampled (bilinear, antialiased) where it is not `rendered_px`."""
    half_turn: bool = True
    """Whether images are turned by 180 degrees, once. The simulator's are upside down; turned, they are upright and
    mirrored, which is what policies were trained on."""
    fold_rotation: bool = False
    """Whether a quaternion with negative w is negated before it becomes an axis-angle. robosuite does not: the angle
    then is between pi and 2 pi."""
    gripper: Literal["raw", "sign"] = "raw"
    """The gripper command: given to the simulator as it is, which closes at more than 0 and opens at less; or as -1
    below 0 and 1 otherwise."""
    initial_states: Literal["official", "fresh"] = "official"
    """The suite's own initial states, where episode n starts from the one numbered n modulo their count; or new ones
    from the task's own placement samplers, for recordings."""
    simulator_seed: int
    """Seed of the reset before the initial state is set. It decides what an initial state does not hold, the places of
    fixtures."""
    seed_advances: bool = False
    """Whether the number of the initial state is added to `simulator_seed`."""
    success: Literal["after any step"] = "after any step"
    """When the simulator's goal predicate is asked; the episode ends there."""

    def __post_init__(self) -> None:
        if self.settle_steps < 0 or self.rendered_px < 1 or self.delivered_px < 1 or self.control_hz <= 0:
            raise ValueError(
                "A protocol settles for 0 or more steps, shows at least 1 pixel and has a positive rate; got "
                f"{self.settle_steps} steps, {self.rendered_px} and {self.delivered_px} px, {self.control_hz} Hz."
            )

    def digest(self) -> str:
        """16 hexadecimal digits that change with every number above, and with nothing else."""
        numbers = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(numbers.encode()).hexdigest()[:16]

    def facts(self) -> dict[str, str]:
        """What goes into the protocol of a result file."""
        return {"libero_protocol": self.name, "libero_protocol_digest": self.digest()}

    def at(self, pixels: int) -> "LiberoProtocol":
        """The same with images that are rendered and delivered at `pixels` x `pixels`."""
        return replace(self, name=f"{self.name}, {pixels} px", rendered_px=pixels, delivered_px=pixels)

    def with_fresh_scenes(self) -> "LiberoProtocol":
        """The same with new initial states, for recordings."""
        return replace(self, name=f"{self.name}, fresh scenes", initial_states="fresh")


LEROBOT = LiberoProtocol(
    name="lerobot",
    settle_steps=10,
    max_steps=STEPS_LEROBOT,
    rendered_px=360,
    delivered_px=360,
    simulator_seed=1000,
    seed_advances=True,
)
"""What LeRobot's evaluation does."""
PAPER = replace(LEROBOT, name="molmoact2-paper", settle_steps=50)
"""What the published MolmoAct2 numbers were measured under: LeRobot's, settling five times as long."""
OPENPI = LiberoProtocol(
    name="openpi", settle_steps=10, max_steps=STEPS_OPENPI, rendered_px=256, delivered_px=224, simulator_seed=7
)
"""What openpi's example does. It seeds the simulator once for all episodes of a task, we before each."""
SMALL = PAPER.at(128)
"""Small pictures, for small policies; not comparable with anything published."""

PRESETS: Mapping[str, LiberoProtocol] = {"molmoact2-paper": PAPER, "openpi": OPENPI, "lerobot": LEROBOT, "small": SMALL}


LIBERO_NAMES: Mapping[str, tuple[str, LiberoProtocol]] = {
    **{suite: (suite, PAPER) for suite in (*SUITES, *PRO_SUITES)},
    **{f"{suite}-{name}": (suite, PRESETS[name]) for suite in SUITES for name in ("openpi", "lerobot", "small")},
}
"""Name of an environment -> its suite and its protocol: "libero_object" is measured as in the paper,
"libero_object-openpi" as openpi does, and so on."""
