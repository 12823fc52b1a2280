"""The ways of making a training step that are compared do the same thing."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.learning import Learner, Way, stage
from benchmarks.memory import highest_mark, in_own_process

HELD = 400_000_000
"""Bytes."""


def test_a_prompt_read_once_or_many_times_gives_the_same_gradients():
    robot = stage(robot=2)
    standing = replace(robot, optimizer=replace(robot.optimizer, learning_rate=1e-12))
    learner = Learner("nano", standing, num_workers=0)
    once, in_one_pass, in_passes = (
        learner.step(learner.batches(way), "float32")
        for way in (Way(), Way(is_shared=False), Way(is_shared=False, in_one_pass=False))
    )
    for many in (in_one_pass, in_passes):
        for name, total in once.totals.items():
            mean = float(total) / once.divisors[name]
            assert float(many.totals[name]) / many.divisors[name] == pytest.approx(mean, rel=1e-5), name
        assert many.norms == pytest.approx(once.norms, rel=1e-4)


def test_a_process_of_its_own_has_a_mark_of_its_own():
    held = bytearray(b"x") * HELD
    assert highest_mark() > len(held)
    assert in_own_process(highest_mark) < HELD / 2
    assert in_own_process(marked_with, HELD) > HELD


def marked_with(count: int) -> int:
    return highest_mark() if bytearray(b"x") * count else 0
