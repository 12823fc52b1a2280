"""Rules about what a dataset says it is: widths, names, cameras and rate, against the robot of the table."""

from collections.abc import Iterator

from molmoact2.data.quality.findings import Found, Place, Rule, Severity
from molmoact2.data.quality.material import Material, canonical
from molmoact2.embodiments import Embodiment

RATE_TOLERANCE = 0.02
"""Relative difference of two rates that are the same."""


def _expected(embodiment: Embodiment) -> dict[str, tuple[str, ...]]:
    names = {"state": embodiment.state_names, "action": embodiment.action_names}
    return {kind: tuple(map(canonical, each)) for kind, each in names.items()}


def unknown_robot(material: Material) -> Iterator[Found]:
    """The robot type is none of the table, and none was named."""
    yield from [
        Found(measured=f"robot type {material.facts.get('robot type')!r} is not in the table of embodiments")
        for _ in range(material.embodiment is None)
    ]


def wrong_width(material: Material) -> Iterator[Found]:
    """States or actions have another number of dimensions than the robot."""
    for vector in material.vectors:
        names = _expected(material.robot)[vector.kind]
        if len(names) != len(vector.names):
            yield Found(
                measured=f"the {vector.kind} has {len(vector.names)} dimensions, the robot has {len(names)}: "
                f"{', '.join(names)}"
            )


def nameless(material: Material) -> Iterator[Found]:
    """Dimensions have no names."""
    yield from [Found(measured="the features do not name every dimension") for _ in range(not material.has_names)]


def renamed(material: Material) -> Iterator[Found]:
    """Dimensions have other names than the robot's."""
    for vector in material.vectors:
        names = _expected(material.robot)[vector.kind]
        strange = [name for name in vector.names if canonical(name) not in names]
        if strange and material.has_names:
            places = tuple(Place(dimension=f"{vector.kind} {name}") for name in strange)
            yield Found(
                measured=f"{vector.kind}: {', '.join(strange)}; the robot has {', '.join(names)}", places=places
            )


def reordered(material: Material) -> Iterator[Found]:
    """The robot's dimensions are there, in another order."""
    for vector in material.vectors:
        names = _expected(material.robot)[vector.kind]
        found = tuple(map(canonical, vector.names))
        if sorted(found) == sorted(names) and found != names:
            yield Found(measured=f"{vector.kind}: {', '.join(found)}; the robot has {', '.join(names)}")


def no_camera(material: Material) -> Iterator[Found]:
    """There is nothing to see."""
    yield from [Found(measured="no RGB camera among the features") for _ in range(not material.cameras)]


def missing_camera(material: Material) -> Iterator[Found]:
    """Cameras of the robot are not in the dataset."""
    wanted = material.robot.cameras
    missing = [camera for camera in wanted if camera not in material.cameras]
    if missing and material.cameras:
        places = tuple(Place(camera=camera) for camera in missing)
        yield Found(measured=f"{', '.join(missing)} missing, there are {', '.join(material.cameras)}", places=places)


def other_rate(material: Material) -> Iterator[Found]:
    """The frame rate is not the robot's control rate."""
    rate_hz = material.robot.control_hz
    if abs(material.fps / rate_hz - 1) > RATE_TOLERANCE:
        yield Found(measured=f"{material.fps:g} frames per second, the robot is controlled at {rate_hz:g} Hz")


def missing_videos(material: Material) -> Iterator[Found]:
    """Video files that the table of episodes names are not there."""
    episodes = sorted({episode for found in material.missing_videos.values() for episode in found})
    places = tuple(Place(episode=episode) for episode in episodes)
    if episodes:
        first = next(iter(material.missing_videos))
        measured = f"{len(material.missing_videos)} files of {len(episodes)} episodes are not there, first {first}"
        yield Found(measured=measured, places=places)


RULES = (
    Rule(
        name="unknown_robot",
        severity=Severity.NOTE,
        title="The robot is not known",
        why="Without it units, limits, names and rate cannot be checked, and the prompt has no words for the robot.",
        fix="Name it: --embodiment TAG, with a tag of `molmoact2.embodiments`.",
        look=unknown_robot,
    ),
    Rule(
        name="wrong_width",
        severity=Severity.ERROR,
        title="Not the robot's number of dimensions",
        why="A checkpoint of this robot predicts one number per dimension of the table, and the data do not fit it.",
        fix="Choose the right --embodiment, or remove or add the dimensions.",
        look=wrong_width,
        needs=("embodiment",),
    ),
    Rule(
        name="nameless",
        severity=Severity.WARNING,
        title="Dimensions without names",
        why="The gripper is found by its name. Without names it is scaled like a joint, and units cannot be checked.",
        fix='Fill in "names" of observation.state and action in meta/info.json, one per dimension.',
        look=nameless,
    ),
    Rule(
        name="renamed",
        severity=Severity.WARNING,
        title="Names that the robot does not have",
        why="Dimensions are matched by name with the robot's units and limits; these are left out of the match.",
        fix="Rename them in meta/info.json as the robot's table does, or choose another --embodiment.",
        look=renamed,
        needs=("embodiment",),
    ),
    Rule(
        name="reordered",
        severity=Severity.ERROR,
        title="Dimensions in another order",
        why="States and actions go to the network by position. A checkpoint of this robot would move the wrong joints.",
        fix="Put the columns and their names into the robot's order.",
        look=reordered,
        needs=("embodiment",),
    ),
    Rule(
        name="no_camera",
        severity=Severity.ERROR,
        title="No camera",
        why="The policy acts on what it sees.",
        fix="Record with a camera; MolmoAct2 takes one to five.",
        look=no_camera,
    ),
    Rule(
        name="missing_camera",
        severity=Severity.WARNING,
        title="Cameras of the robot are missing",
        why="A checkpoint of this robot expects its cameras by name and in their order.",
        fix="Rename the camera features as the robot's table does, or choose another --embodiment.",
        look=missing_camera,
        needs=("embodiment",),
    ),
    Rule(
        name="other_rate",
        severity=Severity.WARNING,
        title="Not the robot's rate",
        why="A plan has a fixed number of steps. At another rate they last another time and move at another speed.",
        fix="Resample to the robot's rate, or fine-tune with a tag of your own that says this rate.",
        look=other_rate,
        needs=("embodiment",),
    ),
    Rule(
        name="missing_video",
        severity=Severity.ERROR,
        title="Videos are missing",
        why="Frames without images cannot be trained on.",
        fix="Copy the files again, or keep the complete episodes only: molmoact2 data filter.",
        look=missing_videos,
    ),
)
