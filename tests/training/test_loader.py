"""Batches are a function of the step: whoever prepares them, and however the work is shared out."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_run import small_config, small_data, small_encoder, small_stage, small_start
from torch import Tensor

from molmoact2.training.batch import TrainBatch
from molmoact2.training.loader import StepBatches

START = small_start()
CONFIG = small_config(stages=(small_stage(num_steps=3, rows_per_pass=4), small_stage(name="later", num_steps=2)))


def loader(rank: int = 0, num_ranks: int = 1, **changes: Any) -> StepBatches:
    config = replace(CONFIG, **changes)
    return StepBatches(small_data().streams, small_encoder(START), config, rank=rank, num_ranks=num_ranks)


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors of batches, in order."""
    match value:
        case Tensor():
            yield value
        case list() | tuple():
            for part in value:
                yield from tensors(part)
        case str() | int() | float() | None | dict():
            pass
        case _:
            for part in vars(value).values():
                yield from tensors(part)


def assert_same(found: list[list[TrainBatch]], expected: list[list[TrainBatch]]):
    assert [[batch.origins for batch in step] for step in found] == [[b.origins for b in step] for step in expected]
    assert [[batch.weights for batch in step] for step in found] == [[b.weights for b in step] for step in expected]
    pairs = list(zip(tensors(found), tensors(expected), strict=True))
    assert len(pairs) > 20 * len(found)
    assert all(torch.equal(*pair) for pair in pairs)


def test_two_workers_prepare_what_none_prepares():
    assert_same(list(loader(num_workers=2).steps(1, 5)), list(loader().steps(1, 5)))


def test_steps_are_what_is_asked_for_one_by_one():
    batches = loader()
    assert len(batches) == 5
    assert_same(list(batches.steps(2, 5)), [batches[step] for step in (2, 3, 4)])


@pytest.mark.parametrize("num_ranks", [2, 3, 7])
def test_ranks_share_out_the_examples_of_a_step(num_ranks: int):
    for step in (0, 4):
        whole = [example.origin for example in loader().examples(step)]
        shares = [[e.origin for e in loader(rank, num_ranks).examples(step)] for rank in range(num_ranks)]
        assert sorted(origin for share in shares for origin in share) == sorted(whole)
        sizes = list(map(len, shares))
        assert max(sizes) - min(sizes) <= 1


def test_an_example_is_the_same_on_every_rank():
    (alone,) = [e for e in loader().examples(3) if e.origin == "motion 10"]
    (shared,) = [e for rank in (0, 1) for e in loader(rank, 2).examples(3) if e.origin == "motion 10"]
    assert alone.action is not None
    assert shared.action is not None
    assert (alone.action.noise == shared.action.noise).all()
    assert (alone.encoded.crops == shared.encoded.crops).all()


def test_streams_draw_apart_from_one_another():
    """The same number of two streams, and two seeds, draw other noise."""
    batches = loader()
    batches.streams = {**batches.streams, "other": batches.streams["robot"]}
    stage = CONFIG.stages[0]
    first, second = batches.encode("robot", 4, stage), batches.encode("other", 4, stage)
    assert first.action is not None
    assert second.action is not None
    assert (first.action.actions == second.action.actions).all()
    assert (first.action.noise != second.action.noise)[..., :6].all()


def test_an_unknown_stream_is_refused_with_the_closest_name():
    stage = small_stage(examples_per_step={"robots": 1})
    with pytest.raises(ValueError, match=r"Unknown stream of examples 'robots'\. Did you mean 'robot'"):
        loader(stages=(small_stage(), stage))


def test_more_ranks_than_examples_are_refused():
    with pytest.raises(ValueError, match="Stage 'act' has 7 examples per step for 8 ranks"):
        loader(0, 8)


def test_what_a_worker_cannot_encode_names_its_example():
    batches = loader(num_workers=1, stages=(small_stage(tokens_per_row=30),))
    with pytest.raises(ValueError, match="a row holds 30"):
        list(batches.steps(0, 1))
