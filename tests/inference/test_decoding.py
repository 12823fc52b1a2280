"""Going on with a cache is the same as reading everything anew."""

from dataclasses import replace

import numpy as np
import torch

from golden_cases import cases
from molmoact2.inference.decoding import Speech, room_for, think

CASE = cases("depth_continuous")[0]
MODEL, DEPTH = CASE.policy.model, CASE.processor.vocabulary.depth


def begin(room: int = 40) -> Speech:
    inputs = CASE.policy.encode(CASE.observation(), CASE.tag, think=True).inputs
    return Speech.begin(MODEL, inputs, MODEL.image_features(inputs, CASE.processor.images.grid), room=room)


@torch.inference_mode()
def test_tokens_said_with_the_cache_are_those_of_reading_everything():
    inputs = CASE.policy.encode(CASE.observation(), CASE.tag, think=True).inputs
    features = MODEL.image_features(inputs, CASE.processor.images.grid)
    speech, said = begin(), CASE["generated_token_ids"][0].tolist()
    speech.say(said[:1])
    speech.say(said[1:4])
    speech.say(said[4:])
    more = torch.tensor([said])
    longer = replace(
        inputs,
        token_ids=torch.cat((inputs.token_ids, more), 1),
        image_mask=torch.cat((inputs.image_mask, torch.zeros_like(more, dtype=torch.bool)), 1),
        valid=torch.ones(1, inputs.token_ids.shape[1] + len(said), dtype=torch.bool),
    )
    whole = MODEL.read(longer, features)
    layers, token_ids, valid = speech.context()
    torch.testing.assert_close(speech.logits, MODEL.logits(whole.hidden[0, -1]), rtol=0, atol=1e-5)
    for (key, value), (whole_key, whole_value) in zip(layers, whole.layers, strict=True):
        torch.testing.assert_close(key, whole_key, rtol=0, atol=1e-5)
        torch.testing.assert_close(value, whole_value, rtol=0, atol=1e-5)
    assert torch.equal(token_ids, longer.token_ids)
    assert valid.all()


@torch.inference_mode()
def test_known_codes_are_said_without_deciding_anything():
    codes = np.arange(16)
    speech = begin()
    kept = think(speech, DEPTH, previous=codes, changed=np.zeros(16, bool), horizon=6)
    np.testing.assert_array_equal(kept, codes)
    assert speech.generated[:17] == DEPTH.span(codes)[:17].tolist()
    assert speech.generated[-1] == DEPTH.end


@torch.inference_mode()
def test_a_changed_cell_sees_the_codes_before_it():
    """Deciding all codes, then keeping all but the last and deciding that one again, gives the same map."""
    decided = think(begin(), DEPTH, previous=np.zeros(16, np.int64), changed=np.ones(16, bool), horizon=6)
    again = think(
        begin(), DEPTH, previous=np.where(np.arange(16) < 15, decided, 0), changed=np.arange(16) == 15, horizon=6
    )
    np.testing.assert_array_equal(decided, again)
    np.testing.assert_array_equal(decided, CASE["depth_bins"][0])


def test_room():
    assert room_for(thinks=True, speaks=False, num_depth_codes=100, horizon=30, num_levels=180) == 131
    assert room_for(thinks=True, speaks=True, num_depth_codes=100, horizon=3, num_levels=21) == 109 + 48
    assert room_for(thinks=False, speaks=True, num_depth_codes=100, horizon=30, num_levels=960) == 963
    assert room_for(thinks=False, speaks=False, num_depth_codes=100, horizon=30, num_levels=960) == 0
