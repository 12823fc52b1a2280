"""How far a scene is from those that policies were trained on, in four respects, each from 0 (not at all) to 1 (hard).

    spatial       things start outside the region of the recordings, still within reach
    lighting      direction, colour and strength of the light, and the table's tint
    distractors   further objects that no task is about
    camera        the outer camera is a few centimetres and degrees from where it was, the same for a whole episode

What they are in a scene is for each environment to say. Each is drawn from the episode's seed on its own: the same seed
always gives the same light, with or without distractors, and a larger magnitude goes farther in the same direction
(where things would then stand in each other's way, their places are drawn anew).
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from molmoact2.registry import unknown


@dataclass(frozen=True, kw_only=True)
class Variations:
    """The magnitude of every variation, in [0, 1]; ValueError for any other number."""

    spatial: float = 0.0
    lighting: float = 0.0
    distractors: float = 0.0
    camera: float = 0.0

    def __post_init__(self) -> None:
        wrong = {name: magnitude for name, magnitude in vars(self).items() if not 0 <= magnitude <= 1}
        for name, magnitude in wrong.items():
            raise ValueError(f"The magnitude of a variation is from 0 (none) to 1 (hard); got {name}={magnitude}.")

    @classmethod
    def parse(cls, words: Iterable[str]) -> "Variations":
        """Those of words like "lighting=0.5"; a name alone stands for magnitude 1.

        Raises:
            ValueError: an unknown or repeated name, or a magnitude that is no number from 0 to 1.
        """
        magnitudes: dict[str, float] = {}
        names = [field.name for field in fields(cls)]
        for word in words:
            name, _, magnitude = word.partition("=")
            if name not in names:
                raise unknown("variation", name, names)
            if name in magnitudes:
                raise ValueError(f"The variation {name!r} is given twice: give each of them once.")
            magnitudes[name] = parse_magnitude(word, magnitude or "1")
        return cls(**magnitudes)

    @property
    def active(self) -> dict[str, float]:
        """Name -> magnitude of those that are not 0, in a fixed order."""
        return {name: float(magnitude) for name, magnitude in vars(self).items() if magnitude}

    def rng(self, name: str, seed: int, task: str) -> np.random.Generator:
        """The random numbers of one variation in one episode; none of them depends on a magnitude."""
        return np.random.default_rng((seed, zlib.crc32(task.encode()), zlib.crc32(name.encode())))


NOMINAL = Variations()
"""Scenes as they were recorded."""


def parse_magnitude(word: str, magnitude: str) -> float:
    """The number after the equals sign of `word`."""
    try:
        return float(magnitude)
    except ValueError:
        raise ValueError(
            f"A variation is written as name=magnitude, for instance lighting=0.5; got {word!r}."
        ) from None
