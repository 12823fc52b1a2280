"""What a dataset is to a policy: which robot, which columns and which cameras, in which order.

A dataset says so itself in `meta/molmoact2.json`, or a user does: with the tag of a known embodiment, with the path of
a card (TOML or JSON), or with "new:NAME" for a robot that nobody has described. A card names only what differs from the
table of embodiments, or, for an unknown tag, from what the dataset's own features say:

    tag = "my_arm"
    setup = "single my arm on a desk"
    cameras = ["overhead", "wrist"]
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import expect, malformed, require
from molmoact2.data.files import read_json, write_json
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.schema import ACTION, STATE
from molmoact2.embodiments import DELTA_POSE_MODE, EMBODIMENTS, JOINT_POSE_MODE, ROBOT_TYPES, Embodiment
from molmoact2.registry import unknown
from molmoact2.tokens.reading import is_a

CARD_PATH = "meta/molmoact2.json"
NEW = "new:"
"""Before the name of a robot that is described by the dataset alone."""
MOST_CAMERAS = 5
"""Images that a prompt holds (training.md B.3)."""
ACTION_KEYS = {"franka_molmoact": "action.del_ee_action"}
"""Tag -> column of its actions, where that is not "action" (training.md E.7)."""
FIX = 'Name a known embodiment, or "new:NAME", or the path of a card (see docs/mixtures.md).'


class Kind(NamedTuple):
    """What a field of a card may hold."""

    words: str
    is_right: Callable[[Any], bool]
    convert: Callable[[Any], Any] = lambda value: value


def _are(value: Any, kind: type) -> bool:
    return isinstance(value, list | tuple) and all(is_a(item, kind) for item in value)


def _is_range(value: Any) -> bool:
    return _are(value, float) and len(value) == 2


TEXT = Kind("a text that is not empty", lambda value: is_a(value, str) and bool(value.strip()))
TEXTS = Kind("a list of distinct texts", lambda value: _are(value, str) and len(set(value)) == len(value), tuple)
LABELS = Kind("a list of texts", lambda value: _are(value, str), tuple)
COUNT = Kind("a whole number from 1 on", lambda value: is_a(value, int) and value >= 1)
RATE = Kind("a positive number", lambda value: is_a(value, float) and value > 0, float)
FLAG = Kind("true or false", lambda value: is_a(value, bool))
RANGE = Kind("two numbers", _is_range, lambda value: tuple(map(float, value)))
RANGES = Kind(
    "a list of pairs of numbers",
    lambda value: isinstance(value, list | tuple) and all(map(_is_range, value)),
    lambda value: tuple(tuple(map(float, pair)) for pair in value),
)
KINDS: dict[str, Kind] = {
    "tag": TEXT, "setup": TEXT, "control_mode": TEXT, "state_keys": TEXTS, "action_key": TEXT, "state_names": TEXTS,
    "action_names": TEXTS, "action_units": LABELS, "cameras": TEXTS, "cameras_alternative": TEXTS,
    "camera_roles": LABELS, "control_hz": RATE, "action_horizon": COUNT, "n_action_steps": COUNT,
    "normalize_gripper": FLAG, "gripper_range": RANGE, "action_limits": RANGES, "state_limits": RANGES,
}  # fmt: skip
"""Field of a card -> what it may hold."""


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """A robot as one dataset records it."""

    robot: Embodiment
    """The embodiment, with the dataset's own cameras and rate."""
    state_keys: tuple[str, ...] = (STATE,)
    """Columns that are joined, in this order, to the state."""
    action_key: str = ACTION
    """Column of the actions."""
    cameras_alternative: tuple[str, ...] = ()
    """Cameras that take the place of `robot.cameras` in half of the training examples; empty for none."""

    def __post_init__(self) -> None:
        robot = self.robot
        groups = {
            "state_names": (robot.state_names, robot.state_limits or robot.state_names),
            "action_names": (robot.action_names, robot.action_units, robot.action_limits or robot.action_names),
            "cameras": (robot.cameras, robot.camera_roles or robot.cameras),
        }
        uneven = [name for name, lists in groups.items() if len(set(map(len, lists))) > 1]
        require(not uneven, f"The card of {self.tag!r} has lists of other lengths than its {', '.join(uneven)}.")
        is_chunk = 1 <= robot.n_action_steps <= robot.action_horizon and robot.control_hz > 0
        require(
            is_chunk,
            f"The card of {self.tag!r} needs 1 <= n_action_steps <= action_horizon and a positive control_hz, got "
            f"{robot.n_action_steps}, {robot.action_horizon} and {robot.control_hz}.",
        )

    @property
    def tag(self) -> str:
        """Tag of the embodiment."""
        return self.robot.tag

    @property
    def camera_sets(self) -> tuple[tuple[str, ...], ...]:
        """The one or two choices of cameras, each in the order in which the policy sees them."""
        return tuple(cameras for cameras in (self.robot.cameras, self.cameras_alternative) if cameras)

    def states(self, dataset: LeRobotDataset) -> NDArray[np.float32]:
        """[frames, state_dim] in robot units."""
        columns = [dataset.column(key).reshape(len(dataset), -1) for key in self.state_keys]
        return np.concatenate(columns, axis=1) if len(columns) > 1 else columns[0]

    def actions(self, dataset: LeRobotDataset) -> NDArray[np.float32]:
        """[frames, action_dim] in robot units."""
        return dataset.column(self.action_key).reshape(len(dataset), -1)


def card_for(
    dataset: LeRobotDataset, embodiment: str | Path | None = None, *, cameras: Sequence[str] = ()
) -> DatasetCard:
    """The card of a dataset.

    Args:
        dataset: an open dataset.
        embodiment: tag of a known embodiment, path of a card, or "new:NAME". None believes the dataset: its
            `meta/molmoact2.json`, then its `robot_type`, then its names, cameras and rate if they fit one robot only.
        cameras: cameras of the dataset in the order in which the policy is to see them, in place of the card's.

    Raises:
        ValueError: nobody says what the robot is, or what is said does not fit the dataset.
    """
    document = dict(_document(dataset, embodiment))
    if cameras:
        document |= {"cameras": tuple(cameras), "cameras_alternative": (), "camera_roles": ()}
    return _card(dataset, document)


def read_card(path: Path) -> dict[str, Any]:
    """Read what a card says, checked: field -> value, with lists as tuples.

    Raises:
        ValueError: naming the file, when it is missing or malformed, or says something that is no field of a card.
    """
    fix = f"A card has a tag and any of the fields {', '.join(KINDS)}."
    content = read_toml(path) if path.suffix == ".toml" else read_json(path)
    other = sorted(content.keys() - KINDS.keys())
    expect(not other, path, f"it has the unknown fields {other}", fix)
    expect("tag" in content, path, "it has no tag", fix)
    for name, value in content.items():
        expect(KINDS[name].is_right(value), path, f"{name!r} must be {KINDS[name].words}, got {value!r}", fix)
    return {name: KINDS[name].convert(value) for name, value in content.items()}


def write_card(root: Path, card: DatasetCard) -> Path:
    """Write everything that a card says to `meta/molmoact2.json` of the dataset at `root`, atomically."""
    said = vars(card.robot) | vars(card)
    write_json(root / CARD_PATH, {name: said[name] for name in KINDS if said[name] is not None})
    return root / CARD_PATH


def feature_names(dataset: LeRobotDataset, key: str) -> tuple[str, ...]:
    """Names of a column's dimensions; "state_0" and so on where the dataset does not name each of them."""
    if key not in dataset.features:
        raise unknown("column", key, dataset.features)
    feature = dataset.features[key]
    names, width = _flat(feature.get("names")), int(np.prod(feature["shape"]))
    numbered = tuple(f"{key.rsplit('.', 1)[-1]}_{i}" for i in range(width))
    return names if len(names) == len(set(names)) == width else numbered


def listed(names: Sequence[str], most: int = 16) -> str:
    """Names for a message, the first ones of many."""
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most) or "none"


def _flat(names: Any) -> tuple[str, ...]:
    """The names in any of the ways that datasets write them: a list, lists in a list or by part, name -> index."""
    match names:
        case str():
            return (names,)
        case dict() if names and all(is_a(index, int) for index in names.values()):
            return tuple(sorted(names, key=names.__getitem__))
        case dict():
            return _flat([*names.values()])
        case list():
            return tuple(chain.from_iterable(map(_flat, names)))
    return ()


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ValueError, naming the file, when there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise malformed(path, "the file is missing", "Check the path.") from error
    except ValueError as error:
        raise malformed(path, f"it is not valid TOML ({error})", "Correct it.") from error


def _document(dataset: LeRobotDataset, embodiment: str | Path | None) -> Mapping[str, Any]:
    """What is said about the dataset, by whoever says it first."""
    own = dataset.root / CARD_PATH
    match str(embodiment or ""):
        case "":
            return read_card(own) if own.exists() else {"tag": _recognised(dataset)}
        case name if name in EMBODIMENTS:
            return {"tag": name}
        case name if name.endswith((".toml", ".json")):
            return read_card(Path(name))
        case name if name.startswith(NEW) and name != NEW:
            tag = name.removeprefix(NEW)
            require(tag not in EMBODIMENTS, f"{tag!r} is no new robot. Give {tag!r} to use what is known about it.")
            return {"tag": tag}
    raise ValueError(f"{unknown('embodiment', str(embodiment), EMBODIMENTS)} {FIX}")


def _recognised(dataset: LeRobotDataset) -> str:
    """The tag of the robot that a dataset's own words mean; ValueError unless it is one."""
    robot_type, names = dataset.info.get("robot_type"), [feature_names(dataset, key) for key in (STATE, ACTION)]
    fitting = [
        robot.tag
        for robot in EMBODIMENTS.values()
        if [robot.canonical(part) for part in names] == [robot.state_names, robot.action_names]
        and dataset.fps == robot.control_hz
        and None not in _located(dataset, robot)
    ]
    tags = [ROBOT_TYPES[robot_type]] if robot_type in ROBOT_TYPES else fitting
    found = (
        f"robot_type {robot_type!r}, {dataset.fps:g} frames per second, the cameras {listed(dataset.cameras)}, the "
        f"state {listed(names[0])}, the action {listed(names[1])}"
    )
    require(
        len(tags) == 1,
        f"{dataset.root} does not say for which robot it is (it has no {CARD_PATH}), and what it does say fits "
        f"{len(tags)} of the known embodiments {', '.join(EMBODIMENTS)}: it has {found}. {FIX}",
    )
    return tags[0]


def _located(dataset: LeRobotDataset, robot: Embodiment) -> tuple[str | None, ...]:
    """The dataset's name of each of the robot's cameras, or None; all its own where the robot leaves it open."""
    known = {camera: (camera, *robot.camera_aliases.get(camera, ())) for camera in robot.cameras}
    named = (next((name for name in names if name in dataset.cameras), None) for names in known.values())
    return tuple(named) if robot.cameras else dataset.cameras


def _card(dataset: LeRobotDataset, document: Mapping[str, Any]) -> DatasetCard:
    """The card that a document means for a dataset, after checking that it fits."""
    tag = document["tag"]
    own_key = ACTION_KEYS.get(tag, ACTION)
    columns = {
        "state_keys": document.get("state_keys", (STATE,)),
        "action_key": document.get("action_key", own_key if own_key in dataset.features else ACTION),
    }
    actions = feature_names(dataset, columns["action_key"])
    prefixes = {key: f"{key}:" * (len(columns["state_keys"]) > 1) for key in columns["state_keys"]}
    states = tuple(prefixes[key] + name for key in prefixes for name in feature_names(dataset, key))
    known = EMBODIMENTS.get(tag)
    robot = _as_told(dataset, tag, states, actions) if known is None else _as_known(dataset, known, states, document)
    told = {field.name: document[field.name] for field in fields(robot) if field.name in document}
    roles = {"camera_roles": ()} if "cameras" in told else {}
    card = DatasetCard(
        robot=replace(robot, **{**roles, **told}),
        cameras_alternative=document.get("cameras_alternative", ()),
        **columns,
    )
    _check(dataset, card, states, actions)
    return card


def _as_known(
    dataset: LeRobotDataset, robot: Embodiment, states: tuple[str, ...], document: Mapping[str, Any]
) -> Embodiment:
    """A robot of the table. What its state holds is the dataset's business where its arm is moved by pose deltas."""
    cameras = document.get("cameras", _located(dataset, robot))
    missing = [name for name, found in zip(robot.cameras, cameras, strict=False) if found is None]
    require(
        not missing,
        f"{dataset.root} has the cameras {listed(dataset.cameras)}, but {robot.tag!r} needs "
        f"{listed(robot.cameras)}. Name those of the dataset in this order, in a card or as cameras.",
    )
    is_own = robot.control_mode == DELTA_POSE_MODE and len(states) != len(robot.state_names)
    state = {"state_names": robot.canonical(states), "state_limits": None} if is_own else {}
    return replace(robot, cameras=tuple(map(str, cameras)), control_hz=float(dataset.fps), **state)


def _as_told(dataset: LeRobotDataset, tag: str, states: tuple[str, ...], actions: tuple[str, ...]) -> Embodiment:
    """A robot that only its dataset describes: it plans one second ahead, and actions mean what their names say."""
    horizon = max(1, round(dataset.fps))
    columns = ((states, dataset.states), (actions, dataset.actions))
    widest = [np.abs(values[:, i]).max(initial=0) for names, values in columns for i, name in enumerate(names)
              if "gripper" in name.lower() and values.shape[1] == len(names)]  # fmt: skip
    return Embodiment(
        tag=tag,
        cameras=dataset.cameras,
        state_names=states,
        action_names=actions,
        action_units=("unknown",) * len(actions),
        control_hz=float(dataset.fps),
        action_horizon=horizon,
        n_action_steps=horizon,
        setup=f"{tag.replace('_', ' ')} robot",
        control_mode=DELTA_POSE_MODE if {"x", "y", "z"} <= set(actions) else JOINT_POSE_MODE,
        normalize_gripper=bool(max(widest, default=0) > 1),
    )


def _check(dataset: LeRobotDataset, card: DatasetCard, states: tuple[str, ...], actions: tuple[str, ...]) -> None:
    """Refuse a card that does not fit its dataset."""
    robot = card.robot
    for what, own, said in (("state", states, robot.state_names), ("action", actions, robot.action_names)):
        own = robot.canonical(own)
        is_right = len(own) == len(said) and (own == said or set(own) != set(said))
        require(
            is_right,
            f"{dataset.root} has the {what} {listed(own)}; {card.tag!r} has {listed(said)}. Numbers and order "
            f"must agree. {FIX}",
        )
    for cameras in card.camera_sets or ((),):
        missing = [camera for camera in cameras if camera not in dataset.cameras]
        require(
            not missing and 1 <= len(set(cameras)) == len(cameras) <= MOST_CAMERAS,
            f"A policy sees 1 to {MOST_CAMERAS} distinct cameras, and {dataset.root} has "
            f"{listed(dataset.cameras)}; got {listed(cameras)}. Name them in a card.",
        )
