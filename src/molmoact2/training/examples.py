"""Where training examples come from: frames of recorded episodes, and scenes to point at.

Both give `Examples`, raw and in robot units; `training/encode.py` turns them into what the network reads. What is drawn
depends on the caller's random generator alone.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.chunks import action_chunks
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.scenes import LABEL_COLUMNS, ScenePool, unflatten_labels

GOAL = "plate"


@dataclass(frozen=True, kw_only=True)
class Examples:
    """b examples: v cameras, o things."""

    images: NDArray[np.uint8]
    """[b, v, height, width, 3]"""
    state: NDArray[np.float32]
    """[b, state_dim] in robot units."""
    instruction: NDArray[np.object_]
    """[b] strings."""
    actions: NDArray[np.float32]
    """[b, horizon, action_dim] in robot units."""
    is_valid: NDArray[np.bool_]
    """[b, horizon] steps that may be learned from; none of them where an example has no actions."""
    place_m: NDArray[np.float32]
    """[b, o, 3] where things are."""
    is_present: NDArray[np.bool_]
    """[b, o]"""
    pixel: NDArray[np.float32]
    """[b, v, o, 2] where things are in the images, as fractions of width and height, -1 where unseen."""
    named: NDArray[np.int64]
    """[b] index of the thing that the instruction names."""
    goal: NDArray[np.int64]
    """[b] index of the thing that it is to be brought to, -1 for none."""

    @classmethod
    def join(cls, parts: list["Examples"]) -> "Examples":
        """One batch of several."""
        return cls(**{f.name: np.concatenate([vars(part)[f.name] for part in parts]) for f in fields(cls)})


def parse_instructions(
    instructions: NDArray[np.object_], things: tuple[str, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of the thing that each instruction names (the first one in it), and of its goal or -1.

    Raises:
        ValueError: an instruction names nothing that is known.
    """
    unique, inverse = np.unique(instructions.astype(str), return_inverse=True)
    named, goals = [], []
    for text in unique:
        found = sorted((text.find(thing), o) for o, thing in enumerate(things) if thing in text)
        if not found:
            raise ValueError(f"The instruction {text!r} names none of {', '.join(things)}.")
        named.append(found[0][1])
        goals.append(next((o for _, o in found[1:] if things[o] == GOAL), -1))
    return np.array(named)[inverse], np.array(goals)[inverse]


class SceneSource:
    """Scenes with an instruction drawn anew each time, so that no state or picture gives the answer away."""

    def __init__(self, pool: ScenePool, *, horizon: int, action_dim: int) -> None:
        self.pool = pool
        self.things = tuple(str(thing) for thing in pool.things)
        self.horizon, self.action_dim = horizon, action_dim
        self.cubes = [o for o, thing in enumerate(self.things) if thing.endswith("cube")]
        self.plate = self.things.index(GOAL)

    def draw(self, rng: np.random.Generator, count: int) -> Examples:
        """Draw `count` scenes and for each a thing to do with one of its cubes."""
        return self.at(rng.integers(len(self.pool), size=count), rng)

    def at(self, index: NDArray[np.int64], rng: np.random.Generator) -> Examples:
        """The given scenes with instructions drawn from `rng`."""
        pool, count = self.pool, len(index)
        present = pool.is_present[index]
        cube = np.where(present[:, self.cubes], rng.random((count, len(self.cubes))), -1).argmax(axis=1)
        named = np.array(self.cubes)[cube]
        kind = np.where(present[:, self.plate], rng.integers(3, size=count), rng.choice([0, 2], size=count))
        side = rng.choice(["left", "right"], size=count)
        instruction = np.array(
            [self._words(k, self.things[o], s) for k, o, s in zip(kind.tolist(), named, side, strict=True)], object
        )
        return Examples(
            images=pool.images[index],
            state=pool.state[index],
            instruction=instruction,
            actions=np.zeros((count, self.horizon, self.action_dim), np.float32),
            is_valid=np.zeros((count, self.horizon), bool),
            place_m=pool.place_m[index],
            is_present=present,
            pixel=pool.pixel[index],
            named=named,
            goal=np.where(kind == 1, self.plate, -1),
        )

    @staticmethod
    def _words(kind: int, thing: str, side: str) -> str:
        return (f"pick up the {thing}", f"put the {thing} on the plate", f"push the {thing} to the {side}")[kind]


@dataclass(frozen=True, kw_only=True)
class EpisodeSource:
    """Frames of recorded episodes with the actions that followed."""

    images: dict[str, NDArray[np.uint8]]
    """Camera -> [frames, height, width, 3], in the order the policy sees them."""
    state: NDArray[np.float32]
    """[frames, state_dim]"""
    actions: NDArray[np.float32]
    """[frames, action_dim]"""
    episode_ends: NDArray[np.int64]
    """[frames] the row just after the last one of the frame's episode."""
    instruction: NDArray[np.object_]
    """[frames]"""
    things: tuple[str, ...]
    place_m: NDArray[np.float32]
    """[frames, o, 3]"""
    is_present: NDArray[np.bool_]
    """[frames, o]"""
    pixel: NDArray[np.float32]
    """[frames, v, o, 2]"""
    horizon: int

    def draw(self, rng: np.random.Generator, count: int) -> Examples:
        """Draw `count` frames uniformly."""
        index = np.sort(rng.integers(len(self.state), size=count))
        chunks, is_pad = action_chunks(self.actions, index, self.episode_ends[index], self.horizon)
        images = np.stack([frames[index] for frames in self.images.values()], axis=1)
        instruction = self.instruction[index]
        named, goal = parse_instructions(instruction, self.things)
        return Examples(
            images=images,
            state=self.state[index],
            instruction=instruction,
            actions=chunks.astype(np.float32),
            is_valid=~is_pad,
            place_m=self.place_m[index],
            is_present=self.is_present[index],
            pixel=self.pixel[index],
            named=named,
            goal=goal,
        )


def episode_source(
    dataset: LeRobotDataset, images: dict[str, NDArray[np.uint8]], things: tuple[str, ...], horizon: int
) -> EpisodeSource:
    """The frames of a LeRobot dataset that was recorded with labels of where things are."""
    columns = {name: dataset.column(name) for name in LABEL_COLUMNS}
    texts = np.array([dataset.tasks[index] for index in range(len(dataset.tasks))], object)
    return EpisodeSource(
        images=images,
        state=dataset.states,
        actions=dataset.actions,
        episode_ends=dataset.episode_ends,
        instruction=texts[dataset.column("task_index")],
        things=things,
        horizon=horizon,
        **unflatten_labels(columns, num_cameras=len(images), num_things=len(things)),
    )
