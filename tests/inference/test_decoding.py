"""Going on with a cache is the same as reading everything anew."""

from dataclasses import replace

import torch

from golden_cases import cases
from molmoact2.inference.decoding import Speech, room_for

CASE = cases("depth_continuous")[0]
MODEL = CASE.policy.model


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
    layers, token_ids, valid = speech.transcript.context()
    torch.testing.assert_close(speech.logits, MODEL.logits(whole.hidden[0, -1]), rtol=0, atol=1e-5)
    for (key, value), (whole_key, whole_value) in zip(layers, whole.layers, strict=True):
        torch.testing.assert_close(key, whole_key, rtol=0, atol=1e-5)
        torch.testing.assert_close(value, whole_value, rtol=0, atol=1e-5)
    assert torch.equal(token_ids, longer.token_ids)
    assert valid.all()


def test_room():
    assert room_for(thinks=True, speaks=False, num_depth_codes=100, horizon=30, num_levels=180) == 131
    assert room_for(thinks=True, speaks=True, num_depth_codes=100, horizon=3, num_levels=21) == 109 + 48
    assert room_for(thinks=False, speaks=True, num_depth_codes=100, horizon=30, num_levels=960) == 963
    assert room_for(thinks=False, speaks=False, num_depth_codes=100, horizon=30, num_levels=960) == 0
