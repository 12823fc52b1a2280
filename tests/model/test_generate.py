"""Greedy decoding: with the cache, within what is allowed, and with an end."""

import pytest
import torch
from slow_twins import decode_reading_anew, with_more
from small_networks import GRID, prompts, single, small_config

from molmoact2.model.attention import KeyValueCache
from molmoact2.model.generate import DecodingError, decode_restricted, decode_until, feed
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.testing import random_model

ALL = {"first_id": 0, "num_ids": 96}
DEPTH = {"first_id": 33, "num_ids": 8}


@pytest.fixture
def model() -> MolmoAct2:
    return random_model(small_config(), seed=0).requires_grad_(False)


@pytest.fixture
def inputs(model: MolmoAct2) -> ModelInputs:
    return single(prompts(model.config), 0)


def begin(model: MolmoAct2, inputs: ModelInputs, room: int = 20) -> tuple[KeyValueCache, torch.Tensor]:
    """The cache after the prompt, and the scores of the next token."""
    text = model.config.text_config
    shape = (text.num_hidden_layers, 1, text.num_key_value_heads, inputs.token_ids.shape[1] + room, text.head_dim)
    cache = KeyValueCache(shape, dtype=torch.float32, device="cpu")
    hidden = model.read(inputs, model.image_features(inputs, GRID), cache).hidden
    return cache, model.logits(hidden[0, -1])


@pytest.mark.parametrize("allowed", [ALL, DEPTH], ids=["every token", "depth codes"])
def test_decoding_with_a_cache_is_reading_everything_anew(model: MolmoAct2, inputs: ModelInputs, allowed: dict):
    chosen, _ = decode_restricted(model, *begin(model, inputs), count=10, **allowed)
    features = model.image_features(inputs, GRID)
    assert chosen == decode_reading_anew(model, inputs, features, count=10, **allowed)
    assert all(allowed["first_id"] <= token < allowed["first_id"] + allowed["num_ids"] for token in chosen)


def test_what_was_decoded_has_been_read(model: MolmoAct2, inputs: ModelInputs):
    cache, logits = begin(model, inputs)
    length = cache.length
    chosen, logits = decode_restricted(model, cache, logits, count=4, **DEPTH)
    assert cache.length == length + 4
    hidden = model.read(with_more(inputs, chosen), model.image_features(inputs, GRID)).hidden
    torch.testing.assert_close(logits, model.logits(hidden[0, -1]), rtol=1e-5, atol=1e-5)


def test_nothing_to_decode_changes_nothing(model: MolmoAct2, inputs: ModelInputs):
    cache, logits = begin(model, inputs)
    length = cache.length
    assert decode_restricted(model, cache, logits, count=0, **DEPTH) == ([], logits)
    assert cache.length == length


def test_known_tokens_may_be_fed_together_or_one_by_one(model: MolmoAct2, inputs: ModelInputs):
    (together, _), (apart, _) = begin(model, inputs), begin(model, inputs)
    for token in (33, 36, 50):
        last = feed(model, apart, [token])
    torch.testing.assert_close(feed(model, together, [33, 36, 50]), last, rtol=1e-5, atol=1e-5)


def test_free_decoding_ends_with_its_stop_token(model: MolmoAct2, inputs: ModelInputs):
    free, _ = decode_restricted(model, *begin(model, inputs), count=12, **ALL)
    stop = free[-1]
    expected = free[: free.index(stop) + 1]
    chosen, logits = decode_until(model, *begin(model, inputs), stop_id=stop, max_tokens=12, what="speech")
    assert chosen == expected
    hidden = model.read(with_more(inputs, chosen), model.image_features(inputs, GRID)).hidden
    torch.testing.assert_close(logits, model.logits(hidden[0, -1]), rtol=1e-5, atol=1e-5)


def test_the_last_allowed_token_may_be_the_stop(model: MolmoAct2, inputs: ModelInputs):
    free, _ = decode_restricted(model, *begin(model, inputs), count=12, **ALL)
    place = free.index(free[-1])
    exactly = {"stop_id": free[-1], "what": "speech"}
    assert decode_until(model, *begin(model, inputs), max_tokens=place + 1, **exactly)[0] == free[: place + 1]
    with pytest.raises(DecodingError):
        decode_until(model, *begin(model, inputs), max_tokens=place, **exactly)


def test_speech_without_an_end_is_an_error_that_names_it(model: MolmoAct2, inputs: ModelInputs):
    cache, logits = begin(model, inputs)
    with pytest.raises(DecodingError, match=r"decoded 5 tokens without ending its depth map \(token id 95\)") as caught:
        decode_until(model, cache, logits.index_fill(0, torch.tensor([95]), -99.0), stop_id=95, max_tokens=5,
                     what="depth map")  # fmt: skip
    assert isinstance(caught.value, ValueError)
