"""Rows, places and weights of a pass, against the examples they are made of, one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import encoded, small_encoder, small_stage, small_start

from molmoact2.data.augmentation import Augmentation
from molmoact2.training.batch import ROW_MULTIPLE, TrainBatch, make_batch, make_batches
from molmoact2.training.encode import TrainExample

START = small_start()
ENCODER = small_encoder(START)
STAGE = small_stage(augmentation=Augmentation(mode="none"), residual_dropout=0.25)
NAMES = [(name, number) for name in ("robot", "scenes", "questions", "words") for number in range(4)]
EXAMPLES = dict(zip(NAMES, encoded(ENCODER, STAGE, *NAMES), strict=True))

FEW = settings(max_examples=25)
ROWS = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), min_size=1, max_size=3)


def found(rows: list[list[tuple[str, int]]]) -> list[list[TrainExample]]:
    return [[EXAMPLES[name] for name in row] for row in rows]


def flat_begins(rows: list[list[TrainExample]], width: int) -> list[int]:
    """Flat place of the first token of every example."""
    begins = []
    for number, row in enumerate(rows):
        at = number * width
        for example in row:
            begins.append(at)
            at += len(example)
    return begins


@FEW
@given(names=ROWS)
def test_every_token_stands_where_its_example_puts_it(names: list[list[tuple[str, int]]]):
    rows = found(names)
    inputs = make_batch(rows, STAGE).inputs
    height, width = inputs.token_ids.shape
    longest = max(sum(map(len, row)) for row in rows)
    assert (height, width) == (len(rows), -(-longest // ROW_MULTIPLE) * ROW_MULTIPLE)
    is_filled = torch.zeros(height * width, dtype=torch.bool)
    examples = [example for row in rows for example in row]
    for example, begin in zip(examples, flat_begins(rows, width), strict=True):
        places = slice(begin, begin + len(example))
        assert not is_filled[places].any()
        is_filled[places] = True
        assert inputs.token_ids.flatten()[places].tolist() == example.encoded.token_ids.tolist()
        assert inputs.image_mask.flatten()[places].tolist() == example.encoded.image_mask.tolist()
        assert inputs.positions.flatten()[places].tolist() == list(range(len(example))), "positions start again"
    assert torch.equal(inputs.valid.flatten(), is_filled)
    assert (inputs.segment is not None) == any(len(row) > 1 for row in rows)


@FEW
@given(names=ROWS)
def test_segments_tell_the_examples_of_a_row_apart(names: list[list[tuple[str, int]]]):
    rows = found(names)
    inputs = make_batch([*rows, [EXAMPLES["words", 0], EXAMPLES["words", 1]]], STAGE).inputs
    assert inputs.segment is not None
    for row, segment, valid in zip(rows, inputs.segment, inputs.valid, strict=False):
        expected = [number for number, example in enumerate(row) for _ in range(len(example))]
        assert segment[valid].tolist() == expected


@FEW
@given(names=ROWS)
def test_every_window_pools_the_patches_of_its_own_example(names: list[list[tuple[str, int]]]):
    rows = found(names)
    inputs = make_batch(rows, STAGE).inputs
    patches = inputs.crops.flatten(0, 1)
    expected = [
        example.encoded.crops.reshape(-1, patches.shape[1])[window]
        for row in rows for example in row for window in example.encoded.pooling
    ]  # fmt: skip
    assert len(inputs.pooling) == len(expected)
    for window, pooled in zip(inputs.pooling, expected, strict=True):
        np.testing.assert_array_equal(patches[window].numpy(), pooled)


@FEW
@given(names=ROWS)
def test_answers_are_predicted_from_the_token_before(names: list[list[tuple[str, int]]]):
    rows = found(names)
    batch = make_batch(rows, STAGE)
    examples = [example for row in rows for example in row]
    begins = flat_begins(rows, batch.inputs.token_ids.shape[1])
    said = [(b + i - 1, e.encoded.token_ids[i], w) for e, b in zip(examples, begins, strict=True)
            for i, w in zip(range(e.num_prompt, len(e)), e.label_weight, strict=True)]  # fmt: skip
    answers = batch.answers
    told = zip(answers.place.tolist(), answers.token_id.tolist(), answers.weight.tolist(), strict=True)
    assert list(told) == [(place, int(token), float(weight)) for place, token, weight in said]
    assert batch.inputs.token_ids.flatten()[answers.place + 1].tolist() == answers.token_id.tolist()
    assert batch.weights["language"] == batch.weights["z"] == pytest.approx(sum(w for _, _, w in said), rel=1e-6)
    assert batch.origins == tuple(example.origin for example in examples)


@FEW
@given(names=ROWS)
def test_chunks_look_at_their_own_prompt_and_not_at_the_answer(names: list[list[tuple[str, int]]]):
    rows = found(names)
    batch = make_batch(rows, STAGE)
    acting = [example for row in rows for example in row if example.action is not None]
    if not acting:
        assert batch.chunks is None
        assert "flow" not in batch.weights
        return
    chunks = batch.chunks
    assert chunks is not None
    tokens, count = batch.inputs.token_ids.flatten()[chunks.place], 0
    for i, example in enumerate(acting):
        assert example.action is not None
        prompt = example.encoded.token_ids[: example.num_prompt]
        assert tokens[i, chunks.is_prompt[i]].tolist() == prompt.tolist()
        assert int(chunks.is_prompt[i].sum()) == example.num_prompt
        np.testing.assert_array_equal(chunks.actions[i].numpy(), example.action.actions)
        np.testing.assert_array_equal(chunks.noise[i].numpy(), example.action.noise)
        np.testing.assert_array_equal(chunks.t[i].numpy(), example.action.t)
        count += int(example.action.is_valid.sum()) * example.action.action_dim * STAGE.flow_samples
    assert batch.weights["flow"] == count


@FEW
@given(names=ROWS)
def test_dropout_spares_answers(names: list[list[tuple[str, int]]]):
    rows = found(names)
    batch = make_batch(rows, STAGE)
    assert batch.drop_rate is not None
    begins, examples = flat_begins(rows, batch.drop_rate.shape[1]), [example for row in rows for example in row]
    for example, begin in zip(examples, begins, strict=True):
        rates = batch.drop_rate.flatten()[begin : begin + len(example)]
        assert (rates[: example.num_prompt] == 0.25).all()
        assert not rates[example.num_prompt :].any()
    assert make_batch(rows, replace(STAGE, residual_dropout=0.0)).drop_rate is None


def test_pointing_places_are_image_tokens_and_triggers():
    rows = found([[("words", 0), ("scenes", 0)], [("robot", 1)], [("questions", 0), ("robot", 2)]])
    batch = make_batch(rows, STAGE)
    assert batch.pointing is not None
    words, token_ids = START.processor.vocabulary, batch.inputs.token_ids.flatten()
    assert words.action is not None
    assert (token_ids[batch.pointing.image_tokens] == words.image.patch).all()
    assert token_ids[batch.pointing.trigger].tolist() == [words.action.output] * 3
    counted = batch.pointing.image_tokens.flatten().unique()
    assert len(counted) == batch.pointing.image_tokens.numel() == 3 * 2 * 4
    assert (batch.pointing.image_tokens[:, 0].amax(1) < batch.pointing.image_tokens[:, 1].amin(1)).all()


def test_chunks_of_robots_with_other_horizons_are_padded_with_steps_that_do_not_count():
    short, long = EXAMPLES["robot", 1], EXAMPLES["robot", 2]
    assert short.action is not None
    first = {name: vars(short.action)[name][:5] for name in ("actions", "is_valid")}
    cut = replace(short, action=replace(short.action, noise=short.action.noise[:, :5], **first))
    chunks = make_batch([[cut], [long]], STAGE).chunks
    assert chunks is not None
    assert chunks.actions.shape[1] == 16
    assert chunks.is_valid.sum(dim=1).tolist() == [5, 16]
    assert not chunks.actions[0, 5:].any()
    assert not chunks.noise[0, :, 5:].any()


@FEW
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=9),
    capacity=st.none() | st.integers(80, 300),
    per_pass=st.none() | st.integers(1, 4),
)
def test_every_example_is_in_one_pass_whatever_the_layout(
    names: list[tuple[str, int]], capacity: int | None, per_pass: int | None
):
    stage = replace(STAGE, tokens_per_row=capacity, rows_per_pass=per_pass)
    batches = make_batches([EXAMPLES[name] for name in names], stage)
    origins = sorted(origin for batch in batches for origin in batch.origins)
    assert origins == sorted(EXAMPLES[name].origin for name in names)
    for batch in batches:
        rows, width = batch.inputs.token_ids.shape
        assert rows <= (per_pass or rows)
        assert width <= ROW_MULTIPLE * -(-(capacity or 999) // ROW_MULTIPLE)


def test_an_example_that_is_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="a row holds 20"):
        make_batches([EXAMPLES["robot", 0]], replace(STAGE, tokens_per_row=20))


def test_a_batch_moves_to_another_device_whole():
    batch = make_batch(found([[("robot", 1), ("questions", 0)]]), STAGE).to(torch.device("meta"))

    def devices(value: object) -> set[str]:
        if isinstance(value, torch.Tensor):
            return {value.device.type}
        return {name for part in vars(value).values() if hasattr(part, "to") for name in devices(part)}

    assert isinstance(batch, TrainBatch)
    assert devices(batch) == {"meta"}
