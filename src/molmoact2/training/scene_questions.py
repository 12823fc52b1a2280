"""Questions about rendered scenes, answered in words: vision-language data that a small network can learn from.

The nano counterpart of the embodied question answering and pointing of Molmo2-ER (paper section 2).
"""

from dataclasses import dataclass

import numpy as np

from molmoact2.data.scenes import ScenePool
from molmoact2.training.examples import QuestionExample

QUESTIONS = (
    "where is the {thing} in image {camera}?",
    "how many cubes are there?",
    "is there a {thing}?",
    "which cube is further to the left, the {thing} or the {other}?",
)
NUMBERS = ("none", "one", "two", "three", "four", "five")
POINT_LEVELS = 100
"""A point is said in hundredths of the image's width and height."""


@dataclass(frozen=True, kw_only=True)
class SceneQuestions:
    """An endless stream of questions about the scenes of a pool."""

    pool: ScenePool
    seed: int

    def example(self, number: int) -> QuestionExample:
        """A question about a scene; both are drawn from the number."""
        pool, rng = self.pool, np.random.default_rng((self.seed, number))
        index = int(rng.integers(len(pool)))
        things = [str(thing) for thing in pool.things]
        here = [o for o in np.flatnonzero(pool.is_present[index]) if things[o].endswith("cube")]
        first, second = rng.choice(here, 2, replace=False)
        camera, kind = int(rng.integers(len(pool.cameras))), int(rng.integers(len(QUESTIONS)))
        asked = int(rng.integers(len(things) - 1)) if kind == 2 else int(first)
        pixel = pool.pixel[index, camera, first]
        left = first if pool.place_m[index, first, 1] > pool.place_m[index, second, 1] else second
        answers = (
            "not seen" if (pixel < 0).any() else "{} {}".format(*np.floor(pixel * (POINT_LEVELS - 1e-3)).astype(int)),
            NUMBERS[len(here)],
            "yes" if pool.is_present[index, asked] else "no",
            things[left],
        )
        return QuestionExample(
            images=tuple(pool.images[index]),
            question=QUESTIONS[kind].format(thing=things[asked], other=things[second], camera=camera + 1),
            answer=answers[kind],
            origin=f"question {number} about scene {index}",
        )
