"""What a policy is told in a training example: the recorded task, or an instruction that was written for the episode.

    task         what the recording says
    annotated    the new instruction of the episode, where it has one
    sampled      the new instruction of any episode that was recorded for the same task, drawn for every example

Facts: training.md E.6. Episodes in which no camera shows anything happen are named, so that training leaves them out.
"""

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.annotated_tasks import (
    ALL_FROZEN,
    ANNOTATIONS_PATH,
    REWRITE,
    TASK_EPISODES_PATH,
    read_annotations,
    read_task_episodes,
)
from molmoact2.data.errors import expect
from molmoact2.data.reader import LeRobotDataset

Language: TypeAlias = Literal["task", "annotated", "sampled"]


class Instructions:
    """The instructions of one dataset."""

    def __init__(self, dataset: LeRobotDataset, language: Language = "task") -> None:
        """Read the new instructions, where the dataset has any.

        Raises:
            ValueError: naming the file, when it is damaged or annotates episodes that are not there.
        """
        self.language = language
        path, num_episodes = dataset.root / ANNOTATIONS_PATH, len(dataset.episodes)
        self.is_annotated: bool = path.exists()
        """Whether the dataset has new instructions at all."""
        written = read_annotations(dataset.root) if self.is_annotated else {}
        foreign = sorted(index for index in written if index >= num_episodes)
        expect(not foreign, path, f"it is about the episodes {foreign[:10]} of {num_episodes}", REWRITE)
        self.frozen: tuple[int, ...] = tuple(sorted(index for index, text in written.items() if text == ALL_FROZEN))
        """Episodes with nothing to learn from, whatever they are told."""
        self._tasks = dataset.tasks
        self._task_index, self._episode_index = dataset.column("task_index"), dataset.column("episode_index")
        usable = {index: text for index, text in written.items() if text != ALL_FROZEN}
        self._written = {} if language == "task" else usable
        self._pools = self._paraphrases(dataset) if language == "sampled" and self.is_annotated else {}

    def draw(self, row: int, rng: np.random.Generator) -> str:
        """The instruction of the frame at this row; "sampled" draws once from `rng`, the others do not."""
        task, episode = int(self._task_index[row]), int(self._episode_index[row])
        pool = self._pools.get(task, ())
        if len(pool):
            return pool[int(rng.integers(len(pool)))]
        return self._written.get(episode, self._tasks[task])

    def _paraphrases(self, dataset: LeRobotDataset) -> dict[int, tuple[str, ...]]:
        """Task index -> the new instructions of its episodes, one per episode."""
        has_file = (dataset.root / TASK_EPISODES_PATH).exists()
        episodes = read_task_episodes(dataset.root) if has_file else self._episodes_of_tasks()
        return {
            task: tuple(self._written[index] for index in members.tolist() if index in self._written)
            for task, members in episodes.items()
        }

    def _episodes_of_tasks(self) -> dict[int, NDArray[np.int64]]:
        return {task: np.unique(self._episode_index[self._task_index == task]) for task in self._tasks}
