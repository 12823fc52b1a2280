"""A processor that is told of other robots or of another config says so on disk; batches are as wide as is asked."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.embodiments import EMBODIMENTS, SO101_TABLETOP
from molmoact2.processing import Processor, collate
from molmoact2.processing.encoded import count_through
from molmoact2.testing import fake_observation, made_up_statistics, tiny_checkpoint

DROID = EMBODIMENTS["franka_droid"]


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Processor:
    return Processor.load(tiny_checkpoint(tmp_path_factory.mktemp("processor") / "tiny"))


def saved_and_loaded(processor: Processor, folder: Path) -> Processor:
    folder.mkdir()
    processor.save(folder)
    return Processor.load(folder)


def test_another_robot_is_added_and_stays_on_disk(processor: Processor, tmp_path: Path):
    before = json.dumps(processor.norm_stats.document)
    both = processor.with_tags({DROID.tag: made_up_statistics(DROID)})
    again = saved_and_loaded(both, tmp_path / "both")
    for found in (both, again):
        assert set(found.norm_stats.tags) == {SO101_TABLETOP.tag, DROID.tag}
        assert found.tag(DROID.tag).action.width == 8
        assert found.tag(DROID.tag).setup == DROID.setup
        prompt = found.encode(fake_observation(DROID), DROID.tag).prompt
        assert "single franka robotic arm in droid" in prompt
    assert json.dumps(processor.norm_stats.document) == before, "the first one is as it was"
    first = processor.encode(fake_observation())
    np.testing.assert_array_equal(again.encode(fake_observation(), SO101_TABLETOP.tag).token_ids, first.token_ids)


def test_new_statistics_take_the_place_of_known_ones(processor: Processor, tmp_path: Path):
    entry = made_up_statistics(SO101_TABLETOP)
    wider = {name: (np.array(values) * 2).tolist() if name in ("min", "max") else values
             for name, values in entry["action_stats"].items()}  # fmt: skip
    changed = processor.with_tags({SO101_TABLETOP.tag: {**entry, "action_stats": wider}})
    again = saved_and_loaded(changed, tmp_path / "changed")
    top = np.ones((1, 1, 6), np.float32)
    for found in (changed, again):
        np.testing.assert_allclose(
            found.decode_actions(top, num_steps=1), 2 * processor.decode_actions(top, num_steps=1), rtol=1e-6
        )


def test_a_checkpoint_without_robots_learns_its_first(processor: Processor, tmp_path: Path):
    blank = replace(processor, norm_stats=None)
    with pytest.raises(ValueError, match="knows no robot"):
        blank.tag(None)
    again = saved_and_loaded(blank.with_tags({DROID.tag: made_up_statistics(DROID)}), tmp_path / "first")
    assert again.tag(None).tag == DROID.tag
    assert again.tag(None).mode == "q01_q99"


def test_statistics_that_the_mode_cannot_do_with_are_refused(processor: Processor):
    entry = made_up_statistics(DROID)
    state = {name: values for name, values in entry["state_stats"].items() if name != "max"}
    with pytest.raises(ValueError, match=r"tag 'franka_droid', state_stats lacks max, which norm_mode 'min_max' needs"):
        processor.with_tags({DROID.tag: {**entry, "state_stats": state}})


def test_another_config_is_said_on_top_of_what_was_said(processor: Processor, tmp_path: Path):
    changed = processor.with_config({"action_mode": "continuous", "max_action_dim": 7, "new": [1]})
    again = saved_and_loaded(changed, tmp_path / "changed")
    said, before = (json.loads(one.files["config.json"]) for one in (again, processor))
    assert said == {**before, "action_mode": "continuous", "max_action_dim": 7, "new": [1]}
    assert changed.vocabulary.end_of_turn == again.vocabulary.end_of_turn == processor.vocabulary.end_of_turn
    assert {n: f for n, f in changed.files.items() if n != "config.json"} == {
        name: file for name, file in processor.files.items() if name != "config.json"
    }


def test_a_config_that_contradicts_the_tokenizer_is_refused(processor: Processor):
    with pytest.raises(ValueError, match="action_start_token_id"):
        processor.with_config({"action_start_token_id": 0})


@settings(max_examples=20)
@given(multiple=st.integers(1, 40), counts=st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_a_batch_is_as_wide_as_a_multiple(processor: Processor, multiple: int, counts: list[int]):
    image = np.zeros((20, 30, 3), np.uint8)
    prompts = [processor.encode_question("what is this?", [image] * count) for count in counts]
    plain, wide = collate(prompts), collate(prompts, multiple=multiple)
    length = plain.token_ids.shape[1]
    assert wide.token_ids.shape[1] == -(-length // multiple) * multiple
    for name in ("token_ids", "image_mask", "valid"):
        assert (vars(wide)[name][:, :length] == vars(plain)[name]).all()
        assert not vars(wide)[name][:, length:].any()
    assert (wide.pooling == plain.pooling).all()


def test_windows_are_counted_through_and_edges_stay():
    first, second = np.array([[0, 1], [-1, 2]]), np.array([[1, -1]])
    np.testing.assert_array_equal(count_through([first, second], [3, 2]), [[0, 1], [-1, 2], [4, -1]])
    np.testing.assert_array_equal(count_through([second, first], [2, 3]), [[1, -1], [2, 3], [-1, 4]])
