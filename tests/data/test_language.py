"""What a policy is told comes from the recording or from the annotations of its own task, never from elsewhere."""

import numpy as np
import pytest

from molmoact2.data import LeRobotDataset
from molmoact2.data.annotated_tasks import ALL_FROZEN, TASK_EPISODES_PATH, write_annotations
from molmoact2.data.language import Instructions

RECORDED = ("pick up the red cube", "grüße den Würfel")
TEXTS = {0: "grasp the cube", 2: "lift the red block", 3: "wave at it", 4: ALL_FROZEN}


@pytest.fixture
def annotated(dataset_root) -> LeRobotDataset:
    """Episodes 0, 2 and 4 are of the first task, 1 and 3 of the second."""
    dataset = LeRobotDataset(dataset_root)
    columns = {name: dataset.column(name) for name in ("task_index", "episode_index")}
    write_annotations(dataset_root, TEXTS, **columns)
    return dataset


def told(instructions: Instructions, dataset: LeRobotDataset, episode: int, draws: int = 40) -> set[str]:
    rng = np.random.default_rng(0)
    return {instructions.draw(dataset.episodes[episode].from_index + 1, rng) for _ in range(draws)}


def test_the_recorded_task(annotated):
    instructions = Instructions(annotated)
    for episode in range(5):
        assert told(instructions, annotated, episode) == {RECORDED[episode % 2]}
    assert instructions.frozen == (4,), "there is nothing to learn from it, whatever it is told"
    assert instructions.is_annotated


def test_the_instruction_of_the_episode(annotated):
    instructions = Instructions(annotated, "annotated")
    assert [told(instructions, annotated, episode) for episode in range(4)] == [
        {"grasp the cube"},
        {RECORDED[1]},
        {"lift the red block"},
        {"wave at it"},
    ]


@pytest.mark.parametrize("has_pools", [True, False])
def test_instructions_of_episodes_of_the_same_task(annotated, has_pools):
    if not has_pools:
        (annotated.root / TASK_EPISODES_PATH).unlink()
    instructions = Instructions(annotated, "sampled")
    first = {"grasp the cube", "lift the red block"}
    assert [told(instructions, annotated, episode) for episode in range(4)] == [first, {"wave at it"}] * 2


def test_only_sampling_draws(annotated):
    for language, is_drawn in (("task", False), ("annotated", False), ("sampled", True)):
        rng = np.random.default_rng(0)
        Instructions(annotated, language).draw(0, rng)
        assert (rng.random() != np.random.default_rng(0).random()) == is_drawn


def test_a_dataset_without_annotations(recorded_once):
    dataset = LeRobotDataset(recorded_once)
    instructions = Instructions(dataset, "sampled")
    assert not instructions.is_annotated
    assert instructions.frozen == ()
    assert told(instructions, dataset, 1) == {RECORDED[1]}


def test_annotations_of_another_dataset_are_refused(dataset_root):
    write_annotations(dataset_root, {7: "fly"}, task_index=np.zeros(8), episode_index=np.arange(8))
    with pytest.raises(ValueError, match=r"tasks_annotated.*the episodes \[7\] of 5"):
        Instructions(LeRobotDataset(dataset_root))
