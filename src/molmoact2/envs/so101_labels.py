# pyright: reportAttributeAccessIssue=false
"""Exact answers to "where is ...": positions in the robot's frame and in the cameras' pixels."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.envs.headless import mujoco


@dataclass(frozen=True, kw_only=True)
class Pixel:
    """Where a camera sees a point, whether or not something stands before it."""

    u: float
    """Pixels from the image's left edge; the first pixel's centre is at 0.5. NaN behind the camera."""
    v: float
    """Pixels from the image's top edge."""
    inside: bool
    """Whether the point is in front of the camera and within the image."""


@dataclass(frozen=True, kw_only=True)
class ScenePoint:
    """A thing in the scene and where it is."""

    name: str
    """"red cube", "green cube", "blue cube", "plate" or "gripper"."""
    position_m: NDArray[np.float64]
    """[3] its centre in the robot's base frame; for the gripper the point between the finger tips."""
    pixels: Mapping[str, Pixel]
    """Camera name -> where that camera sees the centre."""


def project(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    camera: str,
    position_m: NDArray[np.float64],
    image_size: tuple[int, int],
) -> Pixel:
    """Where `camera` sees a point [3] of the world, in an image of `image_size` (height, width)."""
    height, width = image_size
    index = model.camera(camera).id
    right, up, backward = (position_m - data.cam_xpos[index]) @ data.cam_xmat[index].reshape(3, 3)
    if backward >= 0:
        return Pixel(u=math.nan, v=math.nan, inside=False)
    focal_pixels = height / 2 / math.tan(math.radians(model.cam_fovy[index]) / 2)
    u = float(width / 2 - focal_pixels * right / backward)
    v = float(height / 2 + focal_pixels * up / backward)
    return Pixel(u=u, v=v, inside=0 <= u < width and 0 <= v < height)
