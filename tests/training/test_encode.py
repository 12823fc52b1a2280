"""What an example is made into: the policy's own prompt, the answer, and what its number draws."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import HORIZON, JOINTS, small_data, small_encoder, small_stage, small_start

from molmoact2.data.augmentation import Augmentation
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.tokens.action import read_action_codes
from molmoact2.training.encode import ExampleEncoder, TrainExample, answer_weights, flow_times
from molmoact2.training.examples import PlacedExample, QuestionExample
from molmoact2.types import Observation

START = small_start()
ENCODER = small_encoder(START)
PLAIN = Augmentation(mode="none")
STREAMS = small_data().streams
STAGE = small_stage(augmentation=PLAIN, state_jitter_bins=0.0)
WHOLE, CUT_OFF = 1, 3
"""Numbers of examples whose chunk is whole, and whose chunk reaches beyond the end of its episode."""


def robot(number: int, **changes: Any) -> PlacedExample:
    example = STREAMS["robot"].example(number)
    assert isinstance(example, PlacedExample)
    return replace(example, **changes)


def encode(number: int, encoder: ExampleEncoder = ENCODER, **changes: Any) -> TrainExample:
    return encoder(robot(number), replace(STAGE, **changes), (number,))


def test_the_prompt_is_the_one_the_policy_reads():
    example, encoded = robot(WHOLE), encode(WHOLE)
    observation = Observation(images=list(example.images), state=example.state, instruction=example.instruction)
    prompt = START.processor.encode(observation, SO101_TABLETOP.tag)
    assert encoded.num_prompt == len(prompt.token_ids)
    np.testing.assert_array_equal(encoded.encoded.token_ids[: encoded.num_prompt], prompt.token_ids)
    np.testing.assert_array_equal(encoded.encoded.image_mask[: encoded.num_prompt], prompt.image_mask)
    assert not encoded.encoded.image_mask[encoded.num_prompt :].any()
    np.testing.assert_array_equal(encoded.encoded.crops, prompt.crops)
    np.testing.assert_array_equal(encoded.encoded.pooling, prompt.pooling)


def test_a_spoken_answer_is_read_back_as_the_actions():
    example, words = encode(WHOLE), START.processor.vocabulary
    answer = example.encoded.token_ids[example.num_prompt :]
    assert words.action is not None
    assert START.action_tokenizer is not None
    assert example.encoded.token_ids[example.num_prompt - 1] == words.action.output
    assert (answer[0], answer[-2], answer[-1]) == (words.action.start, words.action.end, words.end_of_turn)
    codes = read_action_codes(answer, words.action)
    actions = START.action_tokenizer.decode([codes], horizon=HORIZON, action_dim=JOINTS)[0]
    np.testing.assert_allclose(actions, robot(WHOLE).actions, atol=0.1)
    np.testing.assert_allclose(example.label_weight, 2 / len(answer) ** 0.5, rtol=1e-6)


def test_a_chunk_that_is_cut_off_is_not_spoken_but_flows_as_far_as_it_goes():
    example = encode(CUT_OFF)
    assert len(example) == example.num_prompt
    assert example.label_weight.size == 0
    assert example.action is not None
    np.testing.assert_array_equal(example.action.is_valid, robot(CUT_OFF).is_valid)
    assert 0 < example.action.is_valid.sum() < HORIZON


def test_a_stage_that_does_not_speak_or_flow_asks_for_neither():
    assert len(silent := encode(WHOLE, says_actions=False)) == silent.num_prompt
    assert encode(WHOLE, flow_samples=0).action is None
    nothing = ENCODER(robot(WHOLE, is_valid=np.zeros(HORIZON, bool)), STAGE, (0,))
    assert nothing.action is None


def test_actions_are_normalised_and_padded_to_the_networks_width():
    action = encode(WHOLE).action
    assert action is not None
    assert action.actions.shape == (HORIZON, 8)
    np.testing.assert_allclose(action.actions[:, :JOINTS], robot(WHOLE).actions, atol=1e-6)
    assert not action.actions[:, JOINTS:].any()
    assert not action.noise[..., JOINTS:].any()
    assert (action.noise[..., :JOINTS] != 0).all()
    assert action.action_dim == JOINTS


def test_a_network_that_does_not_mask_padding_learns_where_it_flows():
    encoder = small_encoder(small_start(mask_action_dim_padding=False))
    action = encode(WHOLE, encoder).action
    assert action is not None
    assert (action.noise != 0).all()
    assert action.action_dim == 8


def draws(example: TrainExample) -> list[bytes]:
    assert example.action is not None
    return [example.action.noise.tobytes(), example.action.t.tobytes(), example.encoded.crops.tobytes(),
            example.encoded.token_ids.tobytes()]  # fmt: skip


def test_everything_that_is_drawn_follows_from_the_number_and_the_seed():
    stage = replace(STAGE, augmentation=Augmentation(), state_jitter_bins=9.0)
    first = draws(ENCODER(robot(WHOLE), stage, (0, 5)))
    ENCODER(robot(WHOLE), stage, (1, 5))
    assert draws(ENCODER(robot(WHOLE), stage, (0, 5))) == first
    others = [ENCODER(robot(WHOLE), stage, (0, 6)), replace(ENCODER, seed=1)(robot(WHOLE), stage, (0, 5))]
    for other in map(draws, others):
        assert all(one != another for one, another in zip(first, other, strict=True))


@settings(max_examples=20)
@given(bins=st.floats(0.1, 20), number=st.integers(0, 30))
def test_the_state_is_moved_by_so_many_bins_at_most(bins: float, number: int):
    words = START.processor.vocabulary.state
    assert words is not None
    moved, still = (encode(number, state_jitter_bins=b).encoded.token_ids for b in (bins, 0.0))
    at = (still >= words.first) & (still < words.first + words.count)
    difference = moved[at] - still[at]
    assert at.sum() == JOINTS
    assert (np.abs(difference) <= np.ceil(bins + 0.5)).all()
    assert (moved[~at][: encode(number).num_prompt - JOINTS] == still[~at][: encode(number).num_prompt - JOINTS]).all()


def test_jitter_moves_the_state_both_ways():
    words = START.processor.vocabulary.state
    assert words is not None
    differences = []
    for number in range(20):
        moved, still = (encode(number, state_jitter_bins=b).encoded.token_ids for b in (5.0, 0.0))
        differences.append((moved - still)[(still >= words.first) & (still < words.first + words.count)])
    assert np.min(differences) < -2
    assert np.max(differences) > 2
    assert abs(np.mean(differences)) < 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["state", "actions"])
def test_values_that_are_not_finite_are_refused_with_the_examples_origin(name: str, value: float):
    broken = np.array(vars(robot(WHOLE))[name])
    broken.flat[2] = value
    with pytest.raises(ValueError, match=rf"motion {WHOLE}: state and actions must be finite"):
        ENCODER(robot(WHOLE, **{name: broken}), STAGE, (0,))


def test_to_say_actions_there_must_be_words_and_a_tokenizer():
    mute = ExampleEncoder(
        processor=START.processor, action_tokenizer=None, config=START.model.config, seed=0
    )  # fmt: skip
    with pytest.raises(ValueError, match="needs action tokens and an action tokenizer"):
        encode(WHOLE, mute)
    assert encode(WHOLE, mute, says_actions=False).action is not None


def test_a_question_is_asked_as_a_policy_is_asked_and_answered_to_the_end_of_the_turn():
    asked = STREAMS["questions"].example(3)
    assert isinstance(asked, QuestionExample)
    example = ENCODER(replace(asked, weight=0.2), STAGE, (0,))
    prompt, words = START.processor.encode_question(asked.question, list(asked.images)), START.processor.vocabulary
    np.testing.assert_array_equal(example.encoded.token_ids[: example.num_prompt], prompt.token_ids)
    *said, last = example.encoded.token_ids[example.num_prompt :]
    assert words.decode(np.array(said)) == asked.answer
    assert last == words.end_of_turn
    np.testing.assert_allclose(example.label_weight, 0.2 * 2 / (len(said) + 1) ** 0.5, rtol=1e-6)
    assert (example.action, example.pointing) == (None, None)


def test_a_question_without_images_has_none():
    example = ENCODER(STREAMS["words"].example(0), STAGE, (0,))
    assert len(example.encoded.crops) == len(example.encoded.pooling) == 0
    assert not example.encoded.image_mask.any()


@given(count=st.integers(1, 5000))
def test_an_answer_weighs_two_roots_of_its_length(count: int):
    weights = answer_weights(count)
    assert float(weights.sum(dtype=np.float64)) == pytest.approx(2 * count**0.5, rel=1e-5)
    assert len(set(weights.tolist())) == 1
    assert answer_weights(0).shape == (0,)


@pytest.mark.parametrize(("cutoff", "highest"), [(1.0, 1.0), (0.6, 0.6), (7.0, 1.0)])
def test_flow_times_are_those_of_the_paper(cutoff: float, highest: float):
    """0.001 + (cutoff - 0.001) · Beta(1, 1.5): mean 1 / 2.5, density falling towards the action."""
    config = replace(START.model.config, flow_matching_cutoff=cutoff)
    t = flow_times(40_000, config, np.random.default_rng(0))
    assert t.dtype == np.float32
    assert t.min() >= 0.001
    assert t.max() <= highest
    fraction = (t - 0.001) / (highest - 0.001)
    assert fraction.mean() == pytest.approx(1 / 2.5, abs=3e-3)
    below = [float((fraction < x).mean()) for x in (0.25, 0.5, 0.75)]
    assert below == pytest.approx([1 - (1 - x) ** 1.5 for x in (0.25, 0.5, 0.75)], abs=1e-2)
    assert (np.histogram(fraction, bins=4)[0][:-1] > np.histogram(fraction, bins=4)[0][1:]).all()
