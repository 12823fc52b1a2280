"""Tokens are found by their strings, and a config that disagrees is refused."""

import json

import numpy as np
import pytest

from golden_cases import GOLDEN, processor
from molmoact2.tokens import Vocabulary
from molmoact2.tokens.state import state_bins

TOKENIZER = (GOLDEN / "tiny" / "tokenizer.json").read_text()
CONFIG = json.loads((GOLDEN / "tiny" / "config.json").read_text())


def test_families():
    words = Vocabulary.read(TOKENIZER, CONFIG)
    assert words.end_of_turn == CONFIG["bos_token_id"] == CONFIG["eos_token_id"]
    assert (words.state.first, words.state.count, words.state.output) == (393, 64, None)
    assert (words.action.output, words.action.first) == (457, 460)
    assert (words.depth.start, words.depth.end, words.depth.count) == (589, 590, 32)
    assert words.wraps_setup
    assert words.wraps_control


@pytest.mark.parametrize(
    "field", ["eos_token_id", "bos_token_id", "image_patch_id", "image_high_res_id", "state_token_start_id",
              "action_end_token_id", "depth_output_token_id", "frame_end_token_id"]
)  # fmt: skip
def test_an_id_that_the_tokenizer_contradicts_is_refused(field: str):
    with pytest.raises(ValueError, match=rf"has id 5 in config.json \({field}\) but {CONFIG[field]} in tokenizer"):
        Vocabulary.read(TOKENIZER, {**CONFIG, field: 5})


@pytest.mark.parametrize("family", ["state", "action", "depth"])
def test_a_family_of_another_size_is_refused(family: str):
    with pytest.raises(ValueError, match=f"<{family}_199>"):
        Vocabulary.read(TOKENIZER, {**CONFIG, f"num_{family}_tokens": 200})


def test_a_token_without_an_embedding_is_refused():
    text = {**CONFIG["text_config"], "additional_vocab_size": 2}
    with pytest.raises(ValueError, match="770 embeddings"):
        Vocabulary.read(TOKENIZER, {**CONFIG, "text_config": text})


def test_a_robot_token_that_cannot_be_predicted_is_refused():
    text = {**CONFIG["text_config"], "vocab_size": 500, "additional_vocab_size": 300}
    with pytest.raises(ValueError, match="predicts only 500"):
        Vocabulary.read(TOKENIZER, {**CONFIG, "text_config": text})


def test_a_vision_language_model_has_no_robot_tokens():
    document = json.loads(TOKENIZER)
    robot = ("<state", "<action", "<depth", "<setup", "<control")
    document["added_tokens"] = [t for t in document["added_tokens"] if not t["content"].startswith(robot)]
    text = json.dumps(document)
    tokenizer_ids = {name: None for name in CONFIG if name.startswith(("state_", "action_", "depth_"))}
    image_ids = {name: None for name in CONFIG if name.endswith(("_token_id", "_res_id", "_patch_id", "_col_id"))}
    flags = {"add_setup_tokens": False, "add_control_tokens": False}
    words = Vocabulary.read(text, {**CONFIG, **tokenizer_ids, **image_ids, **flags})
    assert words.state is words.action is words.depth is None
    with pytest.raises(ValueError, match=r"<action_start>|<action_0>"):
        Vocabulary.read(text, {**CONFIG, **image_ids, "state_token_start_id": None})


@pytest.mark.parametrize("text", ["", "{", TOKENIZER[:1000], "[]", "{}"])
def test_a_broken_tokenizer_is_refused(text: str):
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        Vocabulary.read(text, CONFIG)


def test_spans_are_read_back():
    family = processor("tiny").vocabulary.depth
    numbers = np.array([0, 31, 7])
    span = family.span(numbers)
    assert span.tolist() == [589, 591, 622, 598, 590]
    np.testing.assert_array_equal(family.numbers(span[1:-1]), numbers)
    with pytest.raises(ValueError, match="<depth_31>"):
        family.span(np.array([32]))
    with pytest.raises(ValueError, match="depth token"):
        family.numbers(np.array([5]))
    assert processor("tiny").vocabulary.encode(family.text(numbers)).tolist() == span.tolist()


def test_state_bins():
    values = np.array([-1, 0, 1, -7, 7, np.nan, np.inf, -np.inf])
    assert state_bins(values, num_bins=256).tolist() == [0, 128, 255, 0, 255, 128, 255, 0]
    levels = np.linspace(-1, 1, 256)
    np.testing.assert_array_equal(state_bins(levels, num_bins=256), np.arange(256))
