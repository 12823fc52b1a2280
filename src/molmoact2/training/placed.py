"""Streams of examples that say where things are: rendered scenes, and frames of recordings with labels."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import require
from molmoact2.data.robot_stream import RobotSource, RobotStream
from molmoact2.data.scenes import LABEL_COLUMNS, ScenePool, unflatten_labels
from molmoact2.training.examples import PlacedExample, Places

GOAL = "plate"


def named_and_goal(instruction: str, things: tuple[str, ...]) -> tuple[int, int]:
    """Index of the thing that an instruction names (the first one in it), and of its goal or -1.

    Raises:
        ValueError: it names nothing that is known.
    """
    found = sorted((instruction.find(thing), o) for o, thing in enumerate(things) if thing in instruction)
    if not found:
        raise ValueError(f"The instruction {instruction!r} names none of {', '.join(things)}.")
    return found[0][1], next((o for _, o in found[1:] if things[o] == GOAL), -1)


@dataclass(frozen=True, kw_only=True)
class SceneStream:
    """Scenes with an instruction drawn anew each time, so that no state or picture gives the answer away."""

    pool: ScenePool
    tag: str
    """Embodiment."""
    horizon: int
    action_dim: int
    seed: int
    in_order: bool = False
    """Scene i for example i instead of one drawn at random, for measuring."""

    @cached_property
    def things(self) -> tuple[str, ...]:
        """Kinds of things."""
        return tuple(str(thing) for thing in self.pool.things)

    def example(self, number: int) -> PlacedExample:
        """A scene and a thing to do with one of its cubes; there are no actions to learn."""
        pool, rng = self.pool, np.random.default_rng((self.seed, number))
        index = number % len(pool) if self.in_order else int(rng.integers(len(pool)))
        instruction = self.instruction(pool.is_present[index], rng)
        named, goal = named_and_goal(instruction, self.things)
        return PlacedExample(
            images=tuple(pool.images[index]),
            state=pool.state[index],
            instruction=instruction,
            actions=np.zeros((self.horizon, self.action_dim), np.float32),
            is_valid=np.zeros(self.horizon, bool),
            tag=self.tag,
            origin=f"scene {index}",
            places=Places(
                place_m=pool.place_m[index],
                is_present=pool.is_present[index],
                pixel=pool.pixel[index],
                named=named,
                goal=goal,
            ),
        )

    def instruction(self, is_present: NDArray[np.bool_], rng: np.random.Generator) -> str:
        """Something to do with one of the cubes that are there, with the plate only where there is one."""
        cube = rng.choice([t for t, here in zip(self.things, is_present, strict=True) if here and t.endswith("cube")])
        side = rng.choice(["left", "right"])
        texts = [f"pick up the {cube}", f"push the {cube} to the {side}", f"put the {cube} on the plate"]
        return texts[rng.integers(2 + is_present[self.things.index(GOAL)])]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedStream:
    """A stream over one dataset that was recorded with labels of where things are, with those labels."""

    stream: RobotStream
    things: tuple[str, ...]
    """Kinds of things, in the order of the labels."""

    def __post_init__(self) -> None:
        first, *others = self.stream.sources
        shown = {first.card.camera_sets, first.camera_order}
        require(
            not others and shown == {(first.dataset.cameras,), "fixed"},
            f"Labels are of one dataset with its cameras in their own order, {', '.join(first.dataset.cameras)}; got "
            f"{1 + len(others)} datasets, {first.card.camera_sets} and camera_order={first.camera_order!r}.",
        )

    @property
    def source(self) -> RobotSource:
        """The dataset."""
        return self.stream.sources[0]

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """[frames] rows in the dataset of the frames that are kept."""
        return self.source.rows

    @cached_property
    def labels(self) -> dict[str, NDArray]:
        """The fields `place_m`, `is_present` and `pixel` of all rows of the dataset."""
        dataset = self.source.dataset
        columns = {name: dataset.column(name) for name in LABEL_COLUMNS}
        return unflatten_labels(columns, num_cameras=len(dataset.cameras), num_things=len(self.things))

    def example(self, number: int) -> PlacedExample:
        """The stream's example, with labels."""
        example = self.stream.example(number)
        row = self.rows[self.stream.place(number).position]
        named, goal = named_and_goal(example.instruction, self.things)
        labels = {name: values[row] for name, values in self.labels.items()}
        return PlacedExample(**vars(example), places=Places(named=named, goal=goal, **labels))
