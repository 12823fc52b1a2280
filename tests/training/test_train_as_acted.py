"""What the network computes in training is what it computes when it acts: the same context, velocity and words.

That the prompt is the same is tested in `test_encode.py`.

float32 through two layers each of decoder and expert, in other batches: equal to 1e-5 of values near 1.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_run import JOINTS, encoded, small_data, small_encoder, small_heads, small_stage, small_start
from torch import Tensor

from molmoact2.data.augmentation import Augmentation
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.inference import MolmoAct2Policy
from molmoact2.inference.decoding import Speech
from molmoact2.model import flow
from molmoact2.model.action_expert import Modulation
from molmoact2.processing import collate
from molmoact2.training import step
from molmoact2.training.batch import TrainBatch, make_batch
from molmoact2.training.examples import RobotExample
from molmoact2.training.start import Start
from molmoact2.types import Observation

STAGE = small_stage(augmentation=Augmentation(mode="none"), state_jitter_bins=0.0)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
NETWORKS: dict[str, dict[str, Any]] = {
    "both": {"action_mode": "both"},
    "continuous": {"action_mode": "continuous"},
    "per head": {"action_expert_config": {"conditioning": "head_kv", "num_heads": 2}},
    "hidden states": {"action_expert_config": {"conditioning": "last_hidden"}},
}
ROWS = {"alone": [[0], [1]], "packed": [[2, 1, 3, 0]]}
"""Rows of the examples motion 1 and 2, whose chunks are whole and spoken, words 0 and question 0."""


@pytest.fixture(scope="module", params=NETWORKS)
def start(request: pytest.FixtureRequest) -> Start:
    return small_start(**NETWORKS[request.param])


def observation(number: int) -> Observation:
    example = small_data().streams["robot"].example(number)
    assert isinstance(example, RobotExample)
    return Observation(images=list(example.images), state=example.state, instruction=example.instruction)


def batch_of(start: Start, rows: list[list[int]], **changes: Any) -> TrainBatch:
    stage, encoder = replace(STAGE, **changes), small_encoder(start)
    examples = encoded(encoder, stage, ("robot", 1), ("robot", 2), ("words", 0), ("questions", 0))
    return make_batch([[examples[index] for index in row] for row in rows], stage)


def trained_velocity(start: Start, batch: TrainBatch, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The velocity [c k h a] that a training step compares with its target."""
    seen: list[Tensor] = []
    loss = step.flow_loss
    monkeypatch.setattr(step, "flow_loss", lambda *args: seen.append(args[0].detach()) or loss(*args))
    grid, heads = start.processor.images.grid, small_heads(start)
    step.loss_sums(start.model, heads, batch, grid=grid, dtype=torch.float32, insulate=False)
    return seen[0]


@torch.inference_mode()
def acting_velocity(start: Start, batch: TrainBatch) -> Tensor:
    """The velocity at the same points, as `sample_actions` asks for it: the prompts in a batch, one time for all."""
    model, chunks = start.model, batch.chunks
    assert chunks is not None
    assert model.action_expert is not None
    numbers = [int(origin.split()[1]) for origin in batch.origins if origin.startswith("motion")]
    prompts = collate([start.processor.encode(observation(number)) for number in numbers])
    encoding = model.read(prompts, model.image_features(prompts, start.processor.images.grid))
    context = model.expert_context(encoding.layers, prompts.token_ids, prompts.valid)
    x_t, _ = flow.interpolate(chunks.noise, chunks.actions[:, None].expand_as(chunks.noise), chunks.t)
    found = torch.empty_like(x_t)
    for chunk, sample in np.ndindex(chunks.t.shape):
        grid = model.modulation(chunks.t[chunk, sample][None])
        at_t = Modulation(blocks=grid.blocks[:, :, 0, None, None], final=grid.final[:, 0, None, None])
        found[chunk, sample] = model.action_expert.velocity(x_t[:, sample, None], at_t, context)[chunk, 0]
    return found


@pytest.mark.parametrize("rows", ROWS)
def test_the_velocity_in_training_is_the_velocity_when_acting(start: Start, rows: str, monkeypatch: pytest.MonkeyPatch):
    batch = batch_of(start, ROWS[rows])
    assert len(batch.answers.place) >= 2 * 9, "answers are spoken, and the expert must not see them"
    found, expected = trained_velocity(start, batch, monkeypatch), acting_velocity(start, batch)
    torch.testing.assert_close(found[..., :JOINTS], expected[..., :JOINTS], **CLOSE)


def test_what_a_policy_does_is_where_the_trained_velocity_leads(start: Start, monkeypatch: pytest.MonkeyPatch):
    """One step of Euler's method from t = 0, through `act` itself; the statistics leave actions as they are."""
    stage, encoder = replace(STAGE, flow_samples=1), small_encoder(start)
    (example,) = encoded(encoder, stage, ("robot", 1))
    assert example.action is not None
    noise = 0.01 * example.action.noise
    at_noise = replace(example.action, t=np.zeros(1, np.float32), noise=noise)
    batch = make_batch([[replace(example, action=at_noise)]], stage)
    velocity = trained_velocity(start, batch, monkeypatch)[0, 0, :, :JOINTS].numpy()
    policy = MolmoAct2Policy(model=start.model, processor=start.processor)
    chunk = policy.act(observation(1), SO101_TABLETOP.tag, num_steps=1, noise=noise[0], num_action_steps=16)
    expected = np.clip(noise[0, :, :JOINTS] + velocity, -1, 1)
    assert (np.abs(expected) < 1).mean() > 0.2
    np.testing.assert_allclose(chunk.actions, expected, rtol=1e-5, atol=1e-5)


def test_the_expert_sees_the_depth_map_that_was_said(monkeypatch: pytest.MonkeyPatch):
    """Prompt, depth map, spoken action in one row, against the prompt with a cache and the depth map said after it."""
    start = small_start(
        num_depth_tokens=8, num_depth_codes=16, enable_depth_reasoning=True, action_expert_depth_gate=True
    )
    stage, encoder = replace(STAGE, styles={"robot_depth_action": 1.0}), small_encoder(start)
    example, words = small_data().streams["robot"].example(1), start.processor.vocabulary
    assert isinstance(example, RobotExample)
    thought = encoder(replace(example, depth_codes=np.arange(16) % 8), stage, (1,))
    other = encoded(encoder, STAGE, ("words", 0))[0]
    batch = make_batch([[other, thought, other]], stage)
    found = trained_velocity(start, batch, monkeypatch)
    assert words.depth is not None
    assert thought.action is not None
    with torch.inference_mode():
        prompt, grid = start.processor.encode(observation(1), think=True).inputs, start.processor.images.grid
        speech = Speech.begin(start.model, prompt, start.model.image_features(prompt, grid), room=99)
        speech.say(words.depth.span(np.arange(16) % 8).tolist())
        context = start.model.expert_context(*speech.transcript.context())
        chunks = batch.chunks
        assert chunks is not None
        x_t, _ = flow.interpolate(chunks.noise, chunks.actions[:, None].expand_as(chunks.noise), chunks.t)
        assert start.model.action_expert is not None
        expected = start.model.action_expert.velocity(x_t, start.model.modulation(chunks.t), context)
    torch.testing.assert_close(found[..., :JOINTS], expected[..., :JOINTS], **CLOSE)


@pytest.mark.parametrize("rows", ["alone", "packed"])
def test_words_are_as_likely_in_training_as_when_they_are_spoken(rows: str):
    """Prompt and answer at once, against the prompt with a cache and the answer one token at a time."""
    start = small_start()
    batch = batch_of(start, ROWS[rows])
    inputs, grid = batch.inputs, start.processor.images.grid
    with torch.no_grad():
        hidden = start.model.read(inputs, start.model.image_features(inputs, grid)).hidden
        trained = start.model.logits(hidden.flatten(0, 1)[batch.answers.place])
        prompt = start.processor.encode(observation(1)).inputs
        speech = Speech.begin(start.model, prompt, start.model.image_features(prompt, grid), room=200)
        answer = encoded(small_encoder(start), STAGE, ("robot", 1))[0]
        said = answer.encoded.token_ids[answer.num_prompt :].tolist()
        spoken = [speech.logits]
        for token in said[:-1]:
            speech.say([token])
            spoken.append(speech.logits)
    first = batch.answers.token_id.unfold(0, len(said), 1).eq(torch.tensor(said)).all(dim=1).nonzero()[0]
    torch.testing.assert_close(trained[first : first + len(said)], torch.stack(spoken), **CLOSE)
