"""What one training example is before it is encoded, and the streams that examples come from.

A stream gives example `number` as a function of that number alone. So a run continues where it stopped, and the ranks
and workers of a large run share the work, by arithmetic and without keeping any state.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.robot_stream import RobotExample


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where o things are, as v cameras see them."""

    place_m: NDArray[np.float32]
    """[o, 3] in the robot's base frame; any value where not present."""
    is_present: NDArray[np.bool_]
    """[o]"""
    pixel: NDArray[np.float32]
    """[v, o, 2] fractions of the image's width and height, -1 where the camera does not see the thing."""
    named: int
    """Index of the thing that the instruction names."""
    goal: int
    """Index of the thing that it is to be brought to, -1 for none."""


@dataclass(frozen=True, kw_only=True)
class PlacedExample(RobotExample):
    """A robot example that also says where things are."""

    places: Places


@dataclass(frozen=True, kw_only=True)
class QuestionExample:
    """Something asked in words about images, and the right answer."""

    images: tuple[NDArray[np.uint8], ...]
    """[h, w, 3] RGB each; none for a question of text alone."""
    question: str
    answer: str
    origin: str
    """Where it is from, for messages."""
    weight: float = 1.0
    """Factor on its share of the loss (the paper gives pointing 0.2)."""


Example = RobotExample | QuestionExample


@runtime_checkable
class Stream(Protocol):
    """An endless supply of examples."""

    def example(self, number: int) -> Example:
        """Example `number`, the same whenever it is asked for."""
        ...
