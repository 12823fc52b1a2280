"""Greedy decoding: with the cache, within what is allowed, and with an end."""

from collections.abc import Iterator

import pytest
import torch

from molmoact2.inference.decoding import DecodingError, Speech
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.testing import random_model
from slow_twins import decode_reading_anew, with_more
from small_networks import GRID, prompts, single, small_config
from step_by_step import say_restricted

ALL = {"first_id": 0, "num_ids": 96}
DEPTH = {"first_id": 33, "num_ids": 8}


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def model() -> MolmoAct2:
    return random_model(small_config(), seed=0)


@pytest.fixture
def inputs(model: MolmoAct2) -> ModelInputs:
    return single(prompts(model.config), 0)


def begin(model: MolmoAct2, inputs: ModelInputs, room: int = 20) -> Speech:
    return Speech.begin(model, inputs, model.image_features(inputs, GRID), room=room)


@pytest.mark.parametrize("allowed", [ALL, DEPTH], ids=["every token", "depth codes"])
def test_decoding_with_a_cache_is_reading_everything_anew(model: MolmoAct2, inputs: ModelInputs, allowed: dict):
    chosen = say_restricted(begin(model, inputs), count=10, **allowed)
    features = model.image_features(inputs, GRID)
    assert chosen == decode_reading_anew(model, inputs, features, count=10, **allowed)
    assert all(allowed["first_id"] <= token < allowed["first_id"] + allowed["num_ids"] for token in chosen)


def test_what_was_said_has_been_read(model: MolmoAct2, inputs: ModelInputs):
    speech = begin(model, inputs)
    chosen = say_restricted(speech, count=4, **DEPTH)
    hidden = model.read(with_more(inputs, chosen), model.image_features(inputs, GRID)).hidden
    torch.testing.assert_close(speech.logits, model.logits(hidden[0, -1]), rtol=1e-5, atol=1e-5)
    assert speech.transcript.token_ids[0].tolist() == [*inputs.token_ids[0].tolist(), *chosen]


def test_known_tokens_may_be_said_together_or_one_by_one(model: MolmoAct2, inputs: ModelInputs):
    together, apart = begin(model, inputs), begin(model, inputs)
    together.say([33, 36, 50])
    for token in (33, 36, 50):
        apart.say([token])
    torch.testing.assert_close(together.logits, apart.logits, rtol=1e-5, atol=1e-5)


def test_what_is_taken_back_leaves_no_trace(model: MolmoAct2, inputs: ModelInputs):
    speech, other = begin(model, inputs), begin(model, inputs)
    length = speech.transcript.token_ids.shape[1]
    speech.say([33, 36, 50])
    speech.transcript.rewind(length + 1)
    speech.say([40])
    other.say([33])
    other.say([40])
    assert torch.equal(speech.transcript.token_ids, other.transcript.token_ids)
    torch.testing.assert_close(speech.logits, other.logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(speech.transcript.cache.valid, other.transcript.cache.valid)


def test_free_decoding_ends_with_its_stop_token(model: MolmoAct2, inputs: ModelInputs):
    free = say_restricted(begin(model, inputs), count=12, **ALL)
    place = free.index(free[-1])
    speech = begin(model, inputs)
    speech.go_on_until(free[-1], max_tokens=place + 1, what="speech")
    assert speech.generated == free[: place + 1]
    with pytest.raises(DecodingError, match=f"decoded {place} tokens"):
        begin(model, inputs).go_on_until(free[-1], max_tokens=place, what="speech")


def test_speech_without_an_end_is_an_error_that_names_it(model: MolmoAct2, inputs: ModelInputs):
    free = say_restricted(begin(model, inputs), count=5, **ALL)
    silent = next(token for token in range(96) if token not in free)
    with pytest.raises(DecodingError, match=r"5 tokens without ending its depth map \(token id") as caught:
        begin(model, inputs).go_on_until(silent, max_tokens=5, what="depth map")
    assert isinstance(caught.value, ValueError)


def test_there_is_room_for_so_many_tokens(model: MolmoAct2, inputs: ModelInputs):
    speech = begin(model, inputs, room=2)
    speech.say([33, 36])
    with pytest.raises(ValueError, match="were asked for"):
        speech.say([50])
