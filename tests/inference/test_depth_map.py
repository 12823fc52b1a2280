"""Depth maps guessed whole and mended are those that are said one cell after the other, in fewer passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_cases import cases
from molmoact2.inference.decoding import DecodingError, Speech
from molmoact2.inference.depth_map import DepthMaps
from molmoact2.model.inputs import ModelInputs
from molmoact2.processing import collate
from step_by_step import think_step_by_step

CASE = cases("depth_continuous")[0]
MODEL, FAMILY, GRID = CASE.policy.model, CASE.processor.vocabulary.depth, CASE.processor.images.grid
CELLS, ROOM = 16, 40
CODES = FAMILY.count
INSTRUCTIONS = ("wave", "put the red cube on the plate", "wave at everybody who looks at you")


def prompt(instruction: str) -> ModelInputs:
    return CASE.policy.encode(replace(CASE.observation(), instruction=instruction), CASE.tag, think=True).inputs


def batch() -> ModelInputs:
    asked = [replace(CASE.observation(), instruction=instruction) for instruction in INSTRUCTIONS]
    return collate([CASE.policy.encode(one, CASE.tag, think=True) for one in asked])


@torch.inference_mode()
def begin(inputs: ModelInputs, draft: np.ndarray) -> DepthMaps:
    features = MODEL.image_features(inputs, GRID)
    return DepthMaps.begin(MODEL, inputs, features, family=FAMILY, draft=draft, room=ROOM)


@torch.inference_mode()
def speech(inputs: ModelInputs) -> Speech:
    return Speech.begin(MODEL, inputs, MODEL.image_features(inputs, GRID), room=ROOM)


@st.composite
def drafts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the last call, and which cells changed since."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.integers(CODES, size=CELLS), rng.random(CELLS) < draw(st.sampled_from([0, 0.1, 0.5, 1]))


@settings(max_examples=40, deadline=None)
@given(drafts(), st.sampled_from(INSTRUCTIONS))
@torch.inference_mode()
def test_it_is_the_map_said_one_cell_after_the_other(given: tuple[np.ndarray, np.ndarray], instruction: str):
    previous, changed = given
    inputs = prompt(instruction)
    twin = speech(inputs)
    expected, passes = think_step_by_step(twin, FAMILY, previous=previous, changed=changed)
    maps = begin(inputs, previous[None])
    maps.settle(changed[None])
    np.testing.assert_array_equal(maps.codes[0], expected)
    assert maps.passes <= 1 + changed.sum() <= 1 + passes
    assert maps.transcript.token_ids[0, -CELLS - 2 :].tolist() == FAMILY.span(expected).tolist()
    twin.say([FAMILY.end])
    for (key, value), (key_twin, value_twin) in zip(
        maps.transcript.context()[0], twin.transcript.context()[0], strict=True
    ):
        torch.testing.assert_close(key, key_twin, rtol=0, atol=1e-5)
        torch.testing.assert_close(value, value_twin, rtol=0, atol=1e-5)
    torch.testing.assert_close(MODEL.logits(maps.last[0, 1]), twin.logits, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_map_in_which_nothing_changed_costs_no_pass_of_its_own():
    codes = np.arange(CELLS)[None] % CODES
    maps = begin(batch(), codes.repeat(3, axis=0))
    maps.settle(np.zeros((3, CELLS), bool))
    assert maps.passes == 1
    np.testing.assert_array_equal(maps.codes, codes.repeat(3, axis=0))


@torch.inference_mode()
def test_a_right_guess_is_one_pass_though_everything_changed():
    first = begin(prompt("wave"), np.zeros((1, CELLS), np.int64))
    first.settle(np.ones((1, CELLS), bool))
    again = begin(prompt("wave"), first.codes.numpy())
    again.settle(np.ones((1, CELLS), bool))
    assert first.passes > again.passes == 1
    assert torch.equal(first.codes, again.codes)


@torch.inference_mode()
def test_settling_twice_changes_nothing():
    maps = begin(prompt("wave"), np.zeros((1, CELLS), np.int64))
    maps.settle(np.ones((1, CELLS), bool))
    passes, codes = maps.passes, maps.codes
    maps.settle(np.ones((1, CELLS), bool))
    assert maps.passes == passes
    assert torch.equal(maps.codes, codes)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
@torch.inference_mode()
def test_a_batch_is_its_prompts_one_by_one(seed: int):
    rng = np.random.default_rng(seed)
    previous, changed = rng.integers(CODES, size=(3, CELLS)), rng.random((3, CELLS)) < rng.random((3, 1))
    maps = begin(batch(), previous)
    maps.settle(changed)
    layers, token_ids, valid = maps.transcript.context()
    for row, instruction in enumerate(INSTRUCTIONS):
        alone = begin(prompt(instruction), previous[row : row + 1])
        alone.settle(changed[row : row + 1])
        assert torch.equal(maps.codes[row], alone.codes[0])
        own_layers, own_ids, _ = alone.transcript.context()
        assert torch.equal(token_ids[row][valid[row]], own_ids[0])
        for (_, value), (_, own_value) in zip(layers, own_layers, strict=True):
            torch.testing.assert_close(value[row][:, valid[row]], own_value[0], rtol=0, atol=1e-5)


def test_a_code_that_is_not_in_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match=f"stands for .{CODES}., but this checkpoint has <depth_0>"):
        begin(prompt("wave"), np.full((1, CELLS), CODES))


@torch.inference_mode()
def test_a_map_that_goes_on_is_followed_to_its_end_or_refused():
    """The released code lets a network speak on until it says the end of its map."""
    maps = begin(prompt("wave"), CASE["depth_bins"])
    after = Speech.after(maps, horizon=6)
    assert after.generated == CASE["generated_token_ids"][0].tolist()
    silent = replace_end(FAMILY)
    with pytest.raises(DecodingError, match="without ending its depth map"):
        Speech.after(replace(begin(prompt("wave"), CASE["depth_bins"]), family=silent), horizon=6)


def replace_end(family):
    """The family with an end that the network never says: one of its own codes is as good as any."""
    return replace(family, end=family.start)
