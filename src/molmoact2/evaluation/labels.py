"""The columns of a recorded dataset that say where things truly are; `envs/labels.py` fills them."""

from collections.abc import Sequence

from molmoact2.data.schema import ExtraColumn
from molmoact2.envs.labels import PIXELS, PIXELS_INSIDE, POINTS, POINTS_PRESENT


def label_columns(cameras: Sequence[str], things: Sequence[str]) -> dict[str, ExtraColumn]:
    """The columns, with a name for every number."""
    seen = [f"{camera}: {thing}" for camera in cameras for thing in things]
    return {
        POINTS: ExtraColumn(names=tuple(f"{thing} {axis}" for thing in things for axis in "xyz")),
        POINTS_PRESENT: ExtraColumn(dtype="bool", names=tuple(things)),
        PIXELS: ExtraColumn(names=tuple(f"{name} {axis}" for name in seen for axis in "uv")),
        PIXELS_INSIDE: ExtraColumn(dtype="bool", names=tuple(seen)),
    }
