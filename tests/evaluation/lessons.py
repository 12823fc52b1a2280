"""A dataset whose actions follow from what is seen, said and felt in a known way, and policies that use parts of it.

In an episode the joints stand still, the front camera shows one brightness g, and the words say left or right. What is
recorded is state + side * 20 * g in every joint, at every step.
"""

import numpy as np

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, LeRobotDataset
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.processing import TagStats
from molmoact2.testing import made_up_statistics
from molmoact2.training.fresh import NORM_MODE

REACH, LENGTH, HORIZON = 20.0, 10, 16
SIDES = {"go left": -1.0, "go right": 1.0}
TAG = TagStats.read(SO101_TABLETOP.tag, made_up_statistics(SO101_TABLETOP), NORM_MODE)


def write_lessons(root, *, num_episodes=12, tasks=("go left", "go right")):
    """Write the dataset; the task changes with every episode."""
    schema = DatasetSchema.for_embodiment(SO101_TABLETOP, image_size=(16, 16))
    rng = np.random.default_rng(0)
    with DatasetWriter(root, schema) as writer:
        for number in range(num_episodes):
            task, level = tasks[number % len(tasks)], int(rng.integers(1, 5) * 50)
            state = np.tile(rng.uniform(20, 75, 6), (LENGTH, 1)).astype(np.float32)
            front = np.full((LENGTH, 16, 16, 3), level, np.uint8)
            action = state + np.float32(SIDES[task] * REACH * level / 255)
            images = {"front": front, "wrist": np.full_like(front, 90)}
            writer.add_episode(Episode(images=images, state=state, action=action, task=task))
    return LeRobotDataset(root)


def repeated(rows):
    """[b, horizon, 6] the same row at every step."""
    return np.repeat(np.array(rows, np.float32)[:, None], HORIZON, axis=1)


def attentive(observations, _rows, _draw):
    """Sees, listens and feels: as recorded, up to what the video loses."""
    return repeated(
        [o.state + SIDES.get(o.instruction, 0) * REACH * o.images["front"].mean() / 255 for o in observations]
    )


def deaf(observations, _rows, _draw):
    """Sees and feels, and always goes left."""
    return repeated([o.state - REACH * o.images["front"].mean() / 255 for o in observations])


def blind(observations, _rows, _draw):
    """Only feels: it stays where it is."""
    return repeated([o.state for o in observations])


def asleep(observations, _rows, _draw):
    """Does the same everywhere."""
    return repeated([np.zeros(6) for _ in observations])
