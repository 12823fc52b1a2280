"""What other projects' clients call the cameras, the state and the instruction of a robot: a table, and its reader.

Every name is written down here or is the checkpoint's own; what has no name is refused, never guessed from an order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.embodiments import EMBODIMENTS, SO_JOINTS
from molmoact2.processing.norm_stats import TagStats
from molmoact2.processing.observation import PREFIX
from molmoact2.serving.computing import PARTIAL_VIEWS
from molmoact2.types import Observation
from molmoact2.wire.limits import Limits, WireError
from molmoact2.wire.observation import checked_observation

INSTRUCTION = ("instruction", "prompt", "task", "question", "task_description")
STATE = (("state",), ("states",), ("observation/state",), ("observation.state",))
"""Alternatives, each the keys whose values make up the state, in order."""
MOST_NAMES, LONGEST_NAME = 24, 48
"""Of a client's own words that are said back to it."""
CAMERA_PREFIXES = ("", PREFIX, "observation/images/", "observation/")


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Other names of one robot."""

    cameras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Camera of the embodiment -> what clients call it."""
    state: tuple[tuple[str, ...], ...] = ()


NAMING: Mapping[str, Naming] = {
    "franka_droid": Naming(
        cameras={
            "exterior_1_left": ("external_cam", "observation/exterior_image_1_left"),
            "exterior_2_left": ("observation/exterior_image_2_left",),
            "wrist_left": ("wrist_cam", "observation/wrist_image_left"),
        },
        state=(("observation/joint_position", "observation/gripper_position"),),
    ),
    "yam_dual_molmoact2": Naming(cameras=EMBODIMENTS["yam_dual_molmoact2"].camera_aliases),
    "libero": Naming(
        cameras={
            "image": ("observation/image", "agentview", "image1"),
            "wrist_image": ("observation/wrist_image", "wrist", "image2"),
        }
    ),
    "so101_tabletop": Naming(state=(tuple(f"{joint}.pos" for joint in SO_JOINTS), SO_JOINTS)),
    "so100_so101_molmoact2": Naming(state=(tuple(f"{joint}.pos" for joint in SO_JOINTS), SO_JOINTS)),
}
"""Embodiment -> other names. One that is not here goes by the checkpoint's own names."""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """An observation in our words."""

    observation: Observation
    unknown: tuple[str, ...]
    """Fields that mean nothing here."""


def heard(fields: Mapping[str, Any], stats: TagStats, limits: Limits, *, known: Iterable[str] = ()) -> Heard:
    """The observation in `fields` of a foreign client; `known` are names of fields that say something else.

    WireError where a camera, the state or the instruction is missing, comes twice, or is not what it has to be.
    """
    cameras = cameras_in(fields, stats)
    state = one_of(fields, STATE + NAMING.get(stats.tag, Naming()).state, "the state")
    instruction = one_of(fields, [(name,) for name in INSTRUCTION], "the instruction")
    observation = checked_observation(
        {camera: fields[name] for camera, name in cameras.items()},
        vector([fields[name] for name in state]),
        fields[instruction[0]],
        limits,
    )
    used = {*cameras.values(), *state, *instruction, *known}
    return Heard(observation=observation, unknown=shortened(sorted(fields.keys() - used)))


def cameras_in(fields: Mapping[str, Any], stats: TagStats) -> dict[str, str]:
    """Camera -> the field that holds its image; where the checkpoint names no cameras, every image is one."""
    own = [name.removeprefix(PREFIX) for name in stats.camera_keys]
    if not own:
        return {name: name for name, value in fields.items() if isinstance(value, np.ndarray) and value.ndim == 3}
    found = {camera: [name for name in names_of(camera, stats.tag) if name in fields] for camera in own}
    twice = {camera: names for camera, names in found.items() if len(names) > 1}
    if twice:
        raise WireError(f"Each camera once: {twice}.", code="unfit")
    given = {camera: names[0] for camera, names in found.items() if names}
    if given.keys() not in (set(own), set(PARTIAL_VIEWS.get(stats.tag, own))):
        missing = {camera: names_of(camera, stats.tag) for camera in own if camera not in given}
        text = "; ".join(f"{camera} (as {', '.join(names)})" for camera, names in missing.items())
        raise WireError(f"{stats.tag} has cameras that are missing: {text}. Got {listed(fields)}.", code="unfit")
    return given


def names_of(camera: str, tag: str) -> list[str]:
    """Everything that a camera may be called."""
    other = NAMING.get(tag, Naming()).cameras.get(camera, ())
    return list(dict.fromkeys((*(prefix + camera for prefix in CAMERA_PREFIXES), *other)))


def one_of(fields: Mapping[str, Any], ways: Sequence[tuple[str, ...]], what: str) -> tuple[str, ...]:
    """The one of these ways in which something is said."""
    said = [way for way in ways if fields.keys() >= set(way)]
    if len(said) != 1:
        allowed = ", or ".join(" and ".join(way) for way in ways)
        found = ", or ".join(" and ".join(way) for way in said) or f"none in {listed(fields)}"
        raise WireError(f"{what} must be given once, as {allowed}; got {found}.", code="unfit")
    return said[0]


def vector(values: Sequence[Any]) -> NDArray[np.floating]:
    """Numbers, lists and arrays of numbers, one after the other."""
    rows = [np.ravel(value) if isinstance(value, np.ndarray) else numbers(value) for value in values]
    return np.concatenate(rows)


def numbers(value: Any) -> NDArray[np.float64]:
    """A number or a list of them."""
    listed = value if isinstance(value, list) else [value]
    if not all(type(one) in (int, float) for one in listed):
        raise WireError("The state must be numbers, a list of numbers, or an array.", code="unfit")
    return np.array(listed, np.float64)


def shortened(names: Sequence[str]) -> tuple[str, ...]:
    """The first of some names that a stranger chose, none of them long."""
    return tuple(name[:LONGEST_NAME] for name in names[:MOST_NAMES])


def listed(names: Iterable[str]) -> str:
    """Some names that a stranger chose, as text."""
    return ", ".join(shortened(list(names))) or "nothing"
