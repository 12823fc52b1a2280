"""How far the answers of another checkpoint are from those that were recorded, in robot units."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from molmoact2.embodiments import EMBODIMENTS
from molmoact2.evaluation.film import named_images
from molmoact2.serving.flight.replay import Replayed
from molmoact2.types import ActionChunk, Image

SIDE = 240
"""Pixels of the longer side of a small picture."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One exchange: what was planned, and what the other checkpoint plans."""

    number: int
    """Of the exchange."""
    session: str
    embodiment: str
    instruction: str
    pictures: Mapping[str, bytes]
    """Camera -> what it saw, as a small JPEG."""
    other: NDArray[np.float32]
    """[rows, action_dim] as many rows as both have."""
    recorded: NDArray[np.float32]
    """[rows, action_dim]"""

    @property
    def mean(self) -> NDArray[np.float64]:
        """[action_dim] mean absolute difference over the rows."""
        return np.abs(self.other.astype(np.float64) - self.recorded).mean(axis=0)

    @property
    def largest(self) -> NDArray[np.float64]:
        """[action_dim] largest absolute difference over the rows."""
        return np.abs(self.other.astype(np.float64) - self.recorded).max(axis=0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One embodiment of a flight."""

    embodiment: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    differences: Sequence[Difference]
    """At least one."""

    @property
    def mean(self) -> NDArray[np.float64]:
        """[action_dim] mean absolute difference over all rows of all exchanges."""
        return np.average(
            [one.mean for one in self.differences], axis=0, weights=[len(one.other) for one in self.differences]
        )

    @property
    def largest(self) -> NDArray[np.float64]:
        """[action_dim]"""
        return np.max([one.largest for one in self.differences], axis=0)

    def most_different(self, count: int) -> list[Difference]:
        """The exchanges that differ most, each joint measured by how much it differs on the whole; largest first."""
        usual = np.maximum(self.mean, np.finfo(np.float32).tiny)
        return sorted(self.differences, key=lambda one: -float((one.mean / usual).mean()))[:count]


def difference(replayed: Replayed) -> Difference | None:
    """How far the answer is from the recorded one; None where one of them is missing.

    Raises ValueError where they have different dimensions.
    """
    recorded, answer = replayed.exchange.chunk, replayed.answer
    if recorded is None or not isinstance(answer, ActionChunk):
        return None
    if recorded.actions.shape[1] != answer.actions.shape[1]:
        raise ValueError(
            f"The recorded policy plans {recorded.actions.shape[1]} numbers for {replayed.exchange.question.embodiment}"
            f", the other one {answer.actions.shape[1]}: they cannot be compared."
        )
    rows = min(len(recorded.actions), len(answer.actions))
    observation = replayed.exchange.question.observation
    return Difference(
        number=replayed.exchange.number,
        session=replayed.exchange.session,
        embodiment=replayed.exchange.question.embodiment,
        instruction=observation.instruction,
        pictures={name: thumbnail(image) for name, image in named_images(observation).items()},
        other=answer.actions[:rows],
        recorded=recorded.actions[:rows],
    )


def thumbnail(image: Image) -> bytes:
    """A small JPEG of a uint8 image."""
    picture, file = PillowImage.fromarray(image), io.BytesIO()
    picture.thumbnail((SIDE, SIDE))
    picture.save(file, "JPEG", quality=80)
    return file.getvalue()


def comparisons(differences: Sequence[Difference]) -> list[Comparison]:
    """The differences by embodiment, in the order in which the embodiments came."""
    tags = dict.fromkeys(one.embodiment for one in differences)
    return [compared(tag, [one for one in differences if one.embodiment == tag]) for tag in tags]


def compared(tag: str, differences: Sequence[Difference]) -> Comparison:
    """The comparison of one embodiment; dimensions that nobody named are numbered."""
    known, width = EMBODIMENTS.get(tag), differences[0].other.shape[1]
    is_ours = known is not None and len(known.action_names) == width
    return Comparison(
        embodiment=tag,
        names=known.action_names if known and is_ours else tuple(str(index) for index in range(width)),
        units=known.action_units if known and is_ours else ("unknown",) * width,
        differences=differences,
    )
