"""Examples that say where things are: labels belong to the frame, the camera and the thing that they are said of."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_run import THINGS, scene_pool, scene_stream

from molmoact2.data import DatasetSchema, DatasetWriter, Episode, ExtraColumn
from molmoact2.data.card import card_for
from molmoact2.data.datasets import open_dataset
from molmoact2.data.robot_stream import RobotStream, open_source
from molmoact2.embodiments import SO101_TABLETOP, SO_JOINTS
from molmoact2.training.placed import PlacedStream, named_and_goal
from molmoact2.training.scene_questions import NUMBERS, SceneQuestions

RED, GREEN, BLUE, PLATE, GRIPPER = range(5)
NUM_CAMERAS, NUM_THINGS = 2, len(THINGS)
EPISODES = {6: "push the green cube to the left", 9: "put the blue cube on the plate"}
"""Length -> task."""


def columns(first_row: int, length: int) -> dict[str, np.ndarray]:
    """Labels that say which row, camera and thing they are of; in odd rows the camera `wrist` sees no red cube."""
    rows = np.arange(first_row, first_row + length, dtype=np.float32)
    inside = np.ones((length, NUM_CAMERAS, NUM_THINGS), bool)
    inside[rows % 2 == 1, 1, RED] = False
    thing, camera = np.arange(NUM_THINGS) / 100, np.arange(NUM_CAMERAS)[:, None] / 10
    pixels = np.stack(np.broadcast_arrays(rows[:, None, None] / 1000, camera + thing), axis=-1)
    points = np.stack(np.broadcast_arrays(rows[:, None], thing, 0.5), axis=-1)
    return {
        "label.points": points.reshape(length, -1).astype(np.float32),
        "label.points_present": np.ones((length, NUM_THINGS), bool),
        "label.pixels": pixels.reshape(length, -1).astype(np.float32),
        "label.pixels_inside": inside.reshape(length, -1),
    }


def record(root: Path, cameras: tuple[str, ...] = ("front", "wrist")) -> Path:
    """Two episodes in which the state is the row."""
    names = [str(i) for i in range(NUM_CAMERAS * NUM_THINGS * 2)]
    schema = DatasetSchema(
        fps=15, robot_type="so101", state_names=SO_JOINTS, action_names=SO_JOINTS,
        image_sizes=dict.fromkeys(cameras, (32, 32)),
        extras={
            "label.points": ExtraColumn(names=tuple(names[:15])),
            "label.points_present": ExtraColumn(dtype="bool", names=tuple(names[:5])),
            "label.pixels": ExtraColumn(names=tuple(names)),
            "label.pixels_inside": ExtraColumn(dtype="bool", names=tuple(names[:10])),
        },
    )  # fmt: skip
    row = 0
    with DatasetWriter(root, schema) as writer:
        for length, task in EPISODES.items():
            rows = np.repeat(np.arange(row, row + length, dtype=np.float32)[:, None], 6, axis=1)
            images = {name: np.full((length, 32, 32, 3), 40, np.uint8) for name in cameras}
            writer.add_episode(
                Episode(images=images, state=rows, action=rows, task=task, extras=columns(row, length))
            )  # fmt: skip
            row += length
    return root


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("placed") / "data")


def robot_stream(root: Path, **changes) -> RobotStream:
    dataset = open_dataset(root)
    source = open_source(dataset, card_for(dataset, SO101_TABLETOP.tag), show_progress=False, **changes)
    return RobotStream([source], [1.0], seed=4)


@pytest.mark.parametrize("episodes", [None, [1]])
def test_labels_are_those_of_the_frame(recorded: Path, episodes: list[int] | None):
    stream = PlacedStream(stream=robot_stream(recorded, episodes=episodes), things=THINGS)
    rows = set()
    for number in range(20):
        example = stream.example(number)
        row = int(example.state[0])
        rows.add(row)
        expected = columns(row, 1)
        np.testing.assert_array_equal(example.places.place_m.ravel(), expected["label.points"][0])
        pixel, inside = example.places.pixel, expected["label.pixels_inside"].reshape(NUM_CAMERAS, NUM_THINGS)
        np.testing.assert_array_equal(
            pixel[inside], expected["label.pixels"].reshape(NUM_CAMERAS, NUM_THINGS, 2)[inside]
        )
        assert (pixel[~inside] == -1).all()
        assert (row % 2 == 1) == bool((~inside).any())
        wanted = (GREEN, -1) if row < 6 else (BLUE, PLATE)
        assert (example.places.named, example.places.goal) == wanted
    assert rows == set(range(15) if episodes is None else range(6, 15))


@pytest.mark.parametrize(
    "changes", [{"camera_order": "episode"}, {"camera_order": "example"}], ids=["shuffled by episode", "by example"]
)
def test_cameras_that_change_places_are_refused(recorded: Path, changes: dict):
    with pytest.raises(ValueError, match="Labels are of one dataset with its cameras in their own order, front, wrist"):
        PlacedStream(stream=robot_stream(recorded, **changes), things=THINGS)


def test_cameras_in_another_order_than_the_labels_are_refused(tmp_path: Path):
    """The policy sees front before wrist; a dataset that has them the other way round has its labels so as well."""
    with pytest.raises(ValueError, match="Labels are of one dataset with its cameras in their own order, wrist, front"):
        PlacedStream(stream=robot_stream(record(tmp_path / "turned", ("wrist", "front"))), things=THINGS)


def test_several_datasets_are_refused(recorded: Path):
    first = robot_stream(recorded).sources[0]
    other = replace(first, name="other")
    with pytest.raises(ValueError, match="got 2 datasets"):
        PlacedStream(stream=RobotStream([first, other], [1.0, 1.0], seed=0), things=THINGS)


def test_instructions_name_the_first_thing_and_bring_it_to_the_plate():
    assert named_and_goal("put the blue cube on the plate", THINGS) == (BLUE, PLATE)
    assert named_and_goal("pick up the red cube", THINGS) == (RED, -1)
    assert named_and_goal("push the green cube to the red cube", THINGS) == (GREEN, -1)
    with pytest.raises(ValueError, match="'wave' names none of red cube, green cube, blue cube, plate, gripper"):
        named_and_goal("wave", THINGS)


def test_a_scene_is_asked_about_every_cube_in_it_and_only_about_those():
    pool = scene_pool(4)
    pool.is_present[:, GREEN] = False
    pool.is_present[:2, PLATE] = False
    drawn = [scene_stream(pool).example(number) for number in range(200)]
    assert {example.places.named for example in drawn} == {RED, BLUE}
    assert Counter(example.origin for example in drawn).keys() == {f"scene {i}" for i in range(4)}
    for example in drawn:
        assert not example.is_valid.any()
        assert (example.places.goal == PLATE) == ("plate" in example.instruction)
        assert example.places.is_present[PLATE] or example.places.goal == -1
        assert THINGS[example.places.named] in example.instruction


def test_scenes_follow_from_seed_and_number_and_can_come_in_order():
    stream = scene_stream(scene_pool(4))
    first, again = stream.example(7), scene_stream(scene_pool(4)).example(7)
    assert (first.instruction, first.origin) == (again.instruction, again.origin)
    assert [stream.example(n).origin for n in range(9)] != [replace(stream, seed=1).example(n).origin for n in range(9)]
    ordered = replace(stream, in_order=True)
    assert [ordered.example(number).origin for number in range(6)] == [f"scene {i % 4}" for i in range(6)]


def test_questions_about_scenes_are_answered_right():
    pool = scene_pool(4)
    pool.is_present[1, GREEN] = False
    pool.pixel[2, 1] = -1
    stream, kinds = SceneQuestions(pool=pool, seed=0), Counter()
    for number in range(300):
        asked = stream.example(number)
        scene = int(asked.origin.split()[-1])
        named = [o for o, thing in enumerate(THINGS) if thing in asked.question]
        here = [o for o in (RED, GREEN, BLUE) if pool.is_present[scene, o]]
        kinds[asked.question.split()[0]] += 1
        match asked.question.split()[0]:
            case "how":
                assert asked.answer == NUMBERS[len(here)]
            case "is":
                assert asked.answer == ("yes" if pool.is_present[scene, named[0]] else "no")
            case "where":
                u, v = pool.pixel[scene, int(asked.question[-2]) - 1, named[0]]
                assert asked.answer == ("not seen" if u < 0 else f"{int(u * 99.999)} {int(v * 99.999)}")
            case "which":
                y = {THINGS[o]: pool.place_m[scene, o, 1] for o in named}
                assert asked.answer == max(y, key=lambda thing: y[thing])
                assert set(named) <= set(here)
    assert set(kinds) == {"how", "is", "where", "which"}
    again = SceneQuestions(pool=pool, seed=0)
    assert [again.example(number).question for number in range(9)] == [stream.example(n).question for n in range(9)]
