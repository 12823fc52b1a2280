"""Depth maps in training: what is said, what is read with noise, and what the expert sees of it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import SmoothMotions, scene_pool, scene_stream, small_stage, small_start

from molmoact2.cli.preparation import check_depth_labels, with_codec_of
from molmoact2.depth.codec import CodecConfig, DepthCodec, DepthScale, save_codec
from molmoact2.inference import MolmoAct2Policy
from molmoact2.inference.depth_map import DepthMaps
from molmoact2.training.batch import make_batch
from molmoact2.training.config import Think
from molmoact2.training.encode import ExampleEncoder, draw_style
from molmoact2.training.recipe_file import read_recipe
from molmoact2.types import ActionChunk, Observation

CODES = np.arange(16) % 8
MOTIONS = SmoothMotions(scene_stream(scene_pool(3)))


@pytest.fixture(scope="module")
def encoder() -> ExampleEncoder:
    start = small_start(num_depth_tokens=8, num_depth_codes=16, enable_depth_reasoning=True)
    return ExampleEncoder(
        processor=start.processor, action_tokenizer=start.action_tokenizer, config=start.model.config, seed=0
    )


def encoded(encoder: ExampleEncoder, **changes):
    example = replace(MOTIONS.example(1), depth_codes=CODES)
    return encoder(example, small_stage(**changes), (0, 1))


def test_depth_and_action_are_said_in_this_order_and_the_expert_sees_the_depth(encoder):
    one, words = encoded(encoder, styles={"robot_depth_action": 1.0}), encoder.processor.vocabulary
    assert one.answer[: len(CODES) + 2].tolist() == words.depth.span(CODES).tolist()
    assert one.answer[len(CODES) + 2] == words.action.start
    assert one.answer[-1] == words.end_of_turn
    assert one.num_seen == one.num_prompt + len(CODES) + 2
    prompt = one.encoded.token_ids[: one.num_prompt]
    assert prompt[-2:].tolist() == [words.depth.output, words.action.output]
    chunks = make_batch([[one]], small_stage()).chunks
    assert chunks is not None
    assert int(chunks.is_prompt.sum()) == one.num_seen


def test_a_turn_does_not_end_where_an_action_is_due_that_is_cut_off(encoder):
    cut_off = replace(MOTIONS.example(3), depth_codes=CODES)
    assert not cut_off.is_valid.all()
    stage, words = small_stage(styles={"robot_depth_action": 1.0}), encoder.processor.vocabulary
    speaking, silent = (encoder(cut_off, replace(stage, says_actions=says), (0, 1)) for says in (True, False))
    assert speaking.answer.tolist() == words.depth.span(CODES).tolist()
    assert silent.answer.tolist() == [*speaking.answer, words.end_of_turn]


def test_depth_alone_has_nothing_to_flow(encoder):
    one = encoded(encoder, styles={"robot_depth": 1.0})
    assert one.action is None
    assert len(one.answer) == len(CODES) + 3


def test_noise_changes_what_is_read_and_not_what_is_to_be_said(encoder):
    plain = encoded(encoder, styles={"robot_depth_action": 1.0})
    noisy = encoded(encoder, styles={"robot_depth_action": 1.0}, depth_noise=1.0)
    assert noisy.answer.tolist() == plain.answer.tolist()
    read, said = noisy.encoded.token_ids[noisy.num_prompt :], noisy.answer
    depth = encoder.processor.vocabulary.depth
    inside = slice(1, len(CODES) + 1)
    assert (read[inside] != said[inside]).any()
    assert ((read[inside] >= depth.first) & (read[inside] < depth.first + depth.count)).all()
    assert read[0] == said[0]
    assert read[len(CODES) + 1 :].tolist() == said[len(CODES) + 1 :].tolist()
    tokens = make_batch([[noisy]], small_stage()).answers.token_id
    assert tokens.tolist() == said.tolist()


def test_styles_come_in_their_shares():
    rng = np.random.default_rng(0)
    drawn = Counter(draw_style({"robot_action": 3.0, "robot_depth_action": 1.0}, rng) for _ in range(2_000))
    assert drawn["robot_depth_action"] / 2_000 == pytest.approx(0.25, abs=0.03)


def test_thinking_without_depth_codes_is_refused(encoder):
    with pytest.raises(ValueError, match="motion 1: to say depth maps"):
        encoder(MOTIONS.example(1), small_stage(styles={"robot_depth": 1.0}), (0, 1))


def test_scenes_without_actions_are_pointed_at_whatever_is_thought(encoder):
    scene = scene_stream(scene_pool(3)).example(0)
    one = encoder(scene, small_stage(styles={"robot_depth_action": 1.0}), (0,))
    assert not one.answer.size
    assert one.num_seen == one.num_prompt
    assert one.pointing is not None


@pytest.mark.parametrize("styles", [{}, {"robot_depth": 0.0}, {"robot_action": 1.0, "robot_depth": -1.0}])
def test_styles_that_are_none_are_refused(styles):
    with pytest.raises(ValueError, match="styles must be shares"):
        small_stage(styles=styles)


PLAIN = small_start()
THINK = Think(num_codes=16, num_tokens=8)


def chunk(start, think: bool = False) -> ActionChunk:
    """What a network answers to a fixed observation and seed."""
    policy = MolmoAct2Policy(model=start.model.eval(), processor=start.processor)
    example = MOTIONS.example(1)
    observation = Observation(images=list(example.images), state=example.state, instruction=example.instruction)
    return policy.act(observation, seed=0, think=think)


@pytest.mark.parametrize(("gate", "num_gates"), [("none", 0), ("shared", 1), ("layer", 2)])
def test_a_network_that_learns_to_think_still_acts_as_before(gate: str, num_gates: int):
    start = PLAIN.with_depth(replace(THINK, gate=gate), seed=0)
    np.testing.assert_allclose(chunk(start).actions, chunk(PLAIN).actions, rtol=0, atol=1e-5)
    assert len(start.model.depth_gate or ()) == num_gates
    config = start.model.config
    assert (config.enable_depth_reasoning, config.num_depth_codes, config.num_depth_tokens) == (True, 16, 8)
    vocabulary = start.processor.vocabulary
    assert vocabulary.depth is not None
    assert vocabulary.depth.count == 8
    assert start.with_depth(replace(THINK, gate=gate), seed=0) is start


@pytest.mark.parametrize("gate", ["layer", "shared"])
def test_gates_of_a_network_that_learns_to_think_are_closed(gate: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DepthMaps, "are_ended", lambda _maps: True)  # it has not learned to end a map
    start = PLAIN.with_depth(replace(THINK, gate=gate), seed=0)
    depth = chunk(start, think=True).depth
    assert depth is not None
    np.testing.assert_allclose(depth.gates, np.full(2, 1 / (1 + np.exp(4))), rtol=1e-5)


def test_another_grid_than_the_network_knows_is_refused():
    with pytest.raises(ValueError, match="says depth maps of 16 cells and 8 codes, the recipe asks for 100 and 128"):
        PLAIN.with_depth(THINK, seed=0).with_depth(Think(), seed=0)


def codec(seed: int) -> DepthCodec:
    torch.manual_seed(seed)
    scale = DepthScale(kind="fixed", low=0.0, high=1.0)
    return DepthCodec(CodecConfig(channels=(2, 2, 2, 2, 2), code_dim=3, num_codes=4, scale=scale, unit="m"))


def test_codes_keep_their_meaning(tmp_path: Path):
    assert with_codec_of(None, PLAIN).depth_codec is None
    save_codec(codec(0), tmp_path / "one" / "codec")
    told = with_codec_of(tmp_path / "one", PLAIN)
    assert told.depth_codec is not None
    with_codec_of(tmp_path, told)
    save_codec(codec(1), tmp_path / "another" / "codec")
    with pytest.raises(ValueError, match="must hold depth labels of one codec"):
        with_codec_of(tmp_path, told)
    with pytest.raises(ValueError, match="Label the dataset with the folder depth_codec of the checkpoint"):
        with_codec_of(tmp_path / "another", told)


@pytest.mark.parametrize("name", ["post-train-think", "fine-tune-think", "nano-think"])
def test_recipes_that_teach_to_think_ask_for_depth(name: str):
    recipe = read_recipe(name)
    assert recipe.think is not None
    with pytest.raises(ValueError, match="make them with `molmoact2 depth label DATASET`"):
        check_depth_labels(recipe, None)
    with pytest.raises(ValueError, match="and only such a recipe does"):
        check_depth_labels(read_recipe("fine-tune"), Path("labels"))
