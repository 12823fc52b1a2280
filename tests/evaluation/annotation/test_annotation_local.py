"""A checkpoint that is asked: one picture per camera; and a random one, which fails in so many words."""

import numpy as np
import pytest
from fake_endpoint import record_dataset

from molmoact2.data.annotated_tasks import ANNOTATIONS_PATH, read_annotations
from molmoact2.evaluation.annotation.asking import Asking, Manner
from molmoact2.evaluation.annotation.local import LocalModel, load_annotator
from molmoact2.evaluation.annotation.place import folder_beside
from molmoact2.evaluation.annotation.run import run_annotation
from molmoact2.inference.decoding import DecodingError
from molmoact2.testing import tiny_checkpoint


class Parrot:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def ask(self, question, images=(), *, max_tokens=256):
        self.asked.append((question, list(images), max_tokens))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(dataset, annotator, **manner):
    asking = Asking(annotator=annotator, manner=Manner(**manner))
    count = len(dataset.episodes)
    return run_annotation(dataset, asking, folder_beside(dataset), episodes=range(count), num_workers=1)


def test_a_checkpoint_is_shown_a_sheet_per_camera(tmp_path):
    dataset = record_dataset(tmp_path / "toys", "wm")
    parrot = Parrot("A red block", DecodingError("never ended"), "Push the red block", "Push the green block")
    records = run(dataset, LocalModel(name="parrot", identity="parrot", policy=parrot))
    assert read_annotations(dataset.root) == {0: "Push the red block", 1: "Push the green block"}
    assert [len(images) for _, images, _ in parrot.asked] == [2, 2, 2, 1]
    question, images, _ = parrot.asked[0]
    assert question.startswith("Picture 1 is the camera front: 12 moments in reading order, 4 in a row. Picture 2 is")
    assert images[0].shape == (3 * 32, 4 * 48, 3)
    assert images[0].dtype == np.uint8
    assert [attempt["complaint"] for attempt in records[0]["attempts"]] == [
        "it is not an order that begins with its verb",
        "never ended",
        "",
    ]
    assert "not usable" in parrot.asked[1][0]


def test_a_random_checkpoint_says_nothing_and_that_is_told(tmp_path):
    dataset = record_dataset(tmp_path / "toys", "mm")
    annotator = load_annotator(str(tiny_checkpoint(tmp_path / "checkpoint")), "cpu", "float32")
    with pytest.raises(ValueError, match=r"None of 2 episodes has a usable answer; the last one because .*decoded"):
        run(dataset, annotator, num_attempts=1)
    assert not (dataset.root / ANNOTATIONS_PATH).exists()


def test_the_identity_follows_the_weights(tmp_path):
    first = load_annotator(str(tiny_checkpoint(tmp_path / "one")), "cpu", "float32").identity
    again = load_annotator(str(tmp_path / "one"), "cpu", "float32").identity
    tiny_checkpoint(tmp_path / "one", seed=1)
    changed = load_annotator(str(tmp_path / "one"), "cpu", "float32").identity
    assert first == again != changed
