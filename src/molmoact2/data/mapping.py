"""What the features of an RLDS data set mean for a robot: a small table per data set, or a TOML file of the user.

fps = 5
robot_type = "widowx_bridge"
state = ["observation/state"]
action = ["action"]
instruction = "language_instruction"

[cameras]
image_0 = "observation/image_0"
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from molmoact2 import registry
from molmoact2.data.errors import expect, malformed, require
from molmoact2.embodiments import EMBODIMENTS


@dataclass(frozen=True, kw_only=True)
class RldsMapping:
    """Which features of the steps are the state, the action, the cameras and the instruction."""

    fps: int
    """Steps per second; RLDS does not say."""
    robot_type: str
    """What the robot is; the tag of an embodiment gives the dimensions their names, where as many."""
    state: tuple[str, ...] = ("observation/state",)
    """Tensors of one row per step that make up the state, one after the other."""
    action: tuple[str, ...] = ("action",)
    """Tensors that make up the action."""
    cameras: Mapping[str, str] = field(default_factory=dict)
    """Camera -> image feature."""
    instruction: str = "language_instruction"
    """The text of an episode; it must be the same in all its steps."""
    no_instruction: str = ""
    """What is written for an episode whose instruction is empty; without it, such an episode is refused."""

    def __post_init__(self) -> None:
        is_rate = type(self.fps) is int and self.fps > 0
        require(is_rate, f"fps of a mapping must be an int of at least 1, got {self.fps!r}.")
        require(bool(self.state and self.action), "A mapping needs at least one state and one action feature.")

    def names(self, what: str, width: int) -> tuple[str, ...]:
        """Names of the `width` dimensions of the "state" or "action", numbered where the embodiment has others."""
        tags = [EMBODIMENTS[tag] for tag in (self.robot_type,) if tag in EMBODIMENTS]
        known = [{"state": tag.state_names, "action": tag.action_names}[what] for tag in tags]
        numbered = tuple(f"{what}_{index}" for index in range(width))
        return next((names for names in known if len(names) == width), numbered)


MAPPINGS = {
    "bridge_dataset": RldsMapping(
        fps=5,
        robot_type="widowx_bridge",
        cameras={camera: f"observation/{camera}" for camera in EMBODIMENTS["widowx_bridge"].cameras},
    ),
}
"""Name of an RLDS data set -> what its features mean."""


def mapping_for(name: str, file: Path | None) -> RldsMapping:
    """The mapping in a file of the user, else that of a known data set; ValueError where there is neither."""
    if file is not None:
        return read_mapping(file)
    require(
        name in MAPPINGS,
        f"What the features of {name!r} mean is not known, only those of {', '.join(MAPPINGS)}. Give a TOML file with "
        "fps, robot_type, state, action, instruction and [cameras]; docs/datasets.md shows one.",
    )
    return MAPPINGS[name]


def read_mapping(path: Path) -> RldsMapping:
    """Read a mapping from a TOML file. Raises ValueError, naming the file, for fields that are unknown or wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise malformed(path, "the file is missing", "Give the path of a TOML file.") from error
    except ValueError as error:
        raise malformed(path, f"it is no valid TOML ({error})", "Correct it.") from error
    known = {entry.name: FIELD_KINDS.get(entry.name, _is_text) for entry in fields(RldsMapping)}
    for name, value in content.items():
        if name not in known:
            raise registry.unknown("field of a mapping", name, known)
        expect(known[name](value), path, f"{name} is {value!r}", "Correct it as docs/datasets.md shows.")
    missing = {"fps", "robot_type"} - set(content)
    expect(not missing, path, f"it does not say {', '.join(sorted(missing))}", "Add it.")
    lists: dict[str, Any] = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    return RldsMapping(**(content | lists))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


FIELD_KINDS = {
    "fps": lambda value: type(value) is int,
    "state": _are_texts,
    "action": _are_texts,
    "cameras": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
}
"""Field of a mapping -> whether a value is right for it; all others are texts."""
