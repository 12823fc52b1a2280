"""Where things truly are, as flat arrays; a learner may be asked to point at them.

The things come in the environment's own fixed order. One that is not in the scene has zeros, and False in the mask
beside it.

    label.points           float32 [things * 3]             metres in the robot's base frame
    label.points_present   bool [things]                    whether the thing is in the scene
    label.pixels           float32 [cameras * things * 2]   fractions of the image's width and height from its top left
    label.pixels_inside    bool [cameras * things]          whether the point is within the image; else at 0, 0
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from molmoact2.registry import unknown
from molmoact2.types import Environment

GRIPPER = "gripper"
THINGS = ("red cube", "green cube", "blue cube", "plate", GRIPPER)
"""Those of the SO-101's table."""

POINTS, POINTS_PRESENT = "label.points", "label.points_present"
PIXELS, PIXELS_INSIDE = "label.pixels", "label.pixels_inside"


class PixelLike(Protocol):
    """Where a camera sees a point; `molmoact2.envs.so101_labels.Pixel`."""

    @property
    def u(self) -> float:
        """Pixels from the left edge."""
        ...

    @property
    def v(self) -> float:
        """Pixels from the top edge."""
        ...

    @property
    def inside(self) -> bool:
        """Whether it is within the image."""
        ...


class ScenePointLike(Protocol):
    """A thing and where it is; `molmoact2.envs.so101_labels.ScenePoint`."""

    @property
    def name(self) -> str:
        """One of the environment's things."""
        ...

    @property
    def position_m(self) -> NDArray[np.float64]:
        """[3] in the robot's base frame."""
        ...

    @property
    def pixels(self) -> Mapping[str, PixelLike]:
        """Camera name -> pixel."""
        ...


class LabelledEnvironment(Environment, Protocol):
    """An environment that says where things truly are."""

    cameras: tuple[str, ...]
    things: tuple[str, ...]
    """Names of all that may be in a scene, in the order of the columns."""
    image_size: tuple[int, int]
    """(height, width) of the observed images."""

    def scene_points(self) -> Sequence[ScenePointLike]:
        """The things that are in the scene now, in any order."""
        ...


def label_row(environment: LabelledEnvironment) -> dict[str, NDArray]:
    """The columns' values at this moment, each flat, in the order of the module's table."""
    things = {point.name: point for point in environment.scene_points()}
    if strangers := things.keys() - set(environment.things):
        raise unknown("thing in the scene", min(strangers), environment.things)
    height, width = environment.image_size
    points = np.zeros((len(environment.things), 3), np.float32)
    pixels = np.zeros((len(environment.cameras), len(environment.things), 2), np.float32)
    inside = np.zeros(pixels.shape[:2], np.bool_)
    for index, name in enumerate(environment.things):
        if name not in things:
            continue
        points[index] = things[name].position_m
        for view, camera in enumerate(environment.cameras):
            pixel = things[name].pixels[camera]
            inside[view, index] = pixel.inside
            if pixel.inside:
                pixels[view, index] = pixel.u / width, pixel.v / height
    return {
        POINTS: points.ravel(),
        POINTS_PRESENT: np.array([name in things for name in environment.things]),
        PIXELS: pixels.ravel(),
        PIXELS_INSIDE: inside.ravel(),
    }
