"""Every number that the reference recorded, reproduced in float32.

Ids, masks and codes agree exactly. Tensors agree to 1e-5 relative to their largest value: both sides are float32 and
add up the same products in another order, over at most a few hundred terms of 6e-8 relative error each. Measured: 2e-6
at most.
"""

import numpy as np
import pytest
import torch
from einops import rearrange

from golden_cases import CASES, Case, cases
from molmoact2.inference.decoding import Speech, room_for, speak_action
from molmoact2.inference.depth_map import DepthMaps
from molmoact2.model import flow

RELATIVE = 1e-5


def assert_same(found: torch.Tensor, recorded: np.ndarray):
    found = found.detach().numpy()
    assert found.shape == recorded.shape
    np.testing.assert_allclose(found, recorded, rtol=0, atol=RELATIVE * np.abs(recorded).max())


def read(case: Case):
    inputs = case.policy.encode(case.observation(), case.tag, case.thinks).inputs
    model = case.policy.model
    with torch.inference_mode():
        features = model.image_features(inputs, case.processor.images.grid)
        return inputs, features, model.read(inputs, features)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vision_and_decoder(case: Case):
    _, features, encoding = read(case)
    assert_same(features, case["image_features"])
    with torch.inference_mode():
        assert_same(case.policy.model.logits(encoding.hidden[:, -1]), case["logits_last"])


@pytest.mark.parametrize("case", [case for case in CASES if case.checkpoint != "tiny-discrete"], ids=str)
def test_what_the_expert_reads_and_its_velocity(case: Case):
    inputs, _, encoding = read(case)
    model = case.policy.model
    assert_same(rearrange(encoding.layers[0][0], "b n s d -> b s (n d)"), case["kv_first_k"])
    assert_same(rearrange(encoding.layers[-1][1], "b n s d -> b s (n d)"), case["kv_last_v"])
    visible = model.visible_to_expert(inputs.token_ids, inputs.valid)
    np.testing.assert_array_equal(visible.numpy(), case["velocity/encoder_mask"].astype(bool))
    with torch.inference_mode():
        context = model.expert_context(encoding.layers, inputs.token_ids, inputs.valid)
        modulation = model.modulation(torch.from_numpy(case["velocity/t"])[:, None])
        x_t, valid_steps = torch.from_numpy(case["velocity/x"])[:, None], torch.from_numpy(case["velocity/valid_steps"])
        assert_same(model.action_expert.velocity(x_t, modulation, context)[:, 0], case["velocity/out"])
        padded = model.action_expert.velocity(x_t, modulation, context, valid_steps)[:, 0]
    assert_same(padded, case["velocity/out_padded"])


@pytest.mark.parametrize("case", cases("continuous", "depth_continuous"), ids=str)
def test_actions(case: Case):
    noise, ask = case["noise"][0], case.policy.act
    chunk = ask(case.observation(), case.tag, noise=noise, think=case.thinks)
    short = ask(case.observation(), case.tag, noise=noise, think=case.thinks, num_steps=4, num_action_steps=2)
    assert chunk.actions.dtype == np.float32
    assert_same(torch.from_numpy(chunk.actions), case["actions"][0])
    assert_same(torch.from_numpy(short.actions), case["actions_4steps_first2"][0])


@pytest.mark.parametrize("case", cases("depth_continuous"), ids=str)
def test_depth_is_kept_where_nothing_moved(case: Case):
    session, options = case.policy.new_session(), {"think": True, "noise": case["noise"][0]}
    first = case.policy.act(case.observation(), case.tag, session=session, **options)
    second = case.policy.act(case.observation("next/"), case.tag, session=session, **options)
    np.testing.assert_array_equal(first.depth.codes, case["depth_bins"][0])
    assert first.depth.changed.all()
    np.testing.assert_array_equal(second.depth.codes, case["next/depth_bins"][0])
    np.testing.assert_array_equal(second.depth.changed, case["next/update_mask"])
    assert_same(torch.from_numpy(second.actions), case["next/actions"][0])


@pytest.mark.parametrize("case", cases("depth_continuous", "discrete", "depth_discrete"), ids=str)
def test_generated_tokens(case: Case):
    policy, words = case.policy, case.processor.vocabulary
    horizon, num_codes = case.processor.tag(case.tag).action_horizon, policy.config.num_depth_codes
    inputs = policy.encode(case.observation(), case.tag, case.thinks).inputs
    with torch.inference_mode():
        features = policy.model.image_features(inputs, case.processor.images.grid)
        room = room_for(thinks=True, speaks=True, num_depth_codes=num_codes, horizon=horizon, num_levels=0)
        if case.thinks:
            nothing = np.zeros((1, num_codes), np.int64)
            maps = DepthMaps.begin(policy.model, inputs, features, family=words.depth, draft=nothing, room=room)
            maps.settle(nothing == 0)
            np.testing.assert_array_equal(maps.codes[0], case["depth_bins"][0])
            speech = Speech.after(maps, horizon=horizon)
        else:
            speech = Speech.begin(policy.model, inputs, features, room=room)
        if "discrete" in case.record["mode"]:
            speak_action(speech, end_of_turn=words.end_of_turn, horizon=horizon)
    assert speech.generated == case["generated_token_ids"][0].tolist()


def test_euler_times_are_the_references():
    np.testing.assert_array_equal(flow.time_grid(4).numpy(), [0, 0.25, 0.5, 0.75])
