"""Observations are checked, encoded and batched; actions come back in robot units."""

import time
from dataclasses import replace

import numpy as np
import pytest

from golden_cases import CASES, GOLDEN, processor
from molmoact2 import Observation
from molmoact2.processing import Processor, collate

RNG = np.random.default_rng(0)
FRONT, WRIST = RNG.integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
GOOD = Observation(
    images={"front": FRONT, "wrist": WRIST}, state=np.zeros(5, np.float32), instruction="Pick up the cube."
)


def encode(**changes: object):
    return processor("tiny").encode(replace(GOOD, **changes), "toy_arm")


def assert_same(one, other):
    assert one.prompt == other.prompt
    for name in ("token_ids", "image_mask", "crops", "pooling"):
        np.testing.assert_array_equal(vars(one)[name], vars(other)[name])


@pytest.mark.parametrize(
    "images",
    [
        [FRONT, WRIST],
        (FRONT, WRIST),
        np.stack([FRONT, WRIST]),
        {"wrist": WRIST, "front": FRONT},
        {"observation.images.wrist": WRIST, "front": FRONT},
        {"front": (FRONT / 255).astype(np.float32), "wrist": WRIST / 255},
    ],
    ids=["list", "tuple", "array", "other order", "prefix", "floating point"],
)
def test_ways_to_give_the_same_images(images: object):
    assert_same(encode(images=images), encode())


def test_a_tag_without_cameras_takes_named_images_in_their_own_order():
    document = processor("tiny").norm_stats.document
    entry = {**document["metadata_by_tag"]["toy_arm"], "camera_keys": []}
    free = type(processor("tiny").norm_stats).read({**document, "metadata_by_tag": {"free": entry}})
    found = replace(processor("tiny"), norm_stats=free).encode(
        replace(GOOD, images={"wrist": WRIST, "front": FRONT}), None
    )
    assert_same(found, encode(images=[WRIST, FRONT]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {"front": FRONT}}, "must be named front, wrist"),
        ({"images": {"front": FRONT, "top": WRIST}}, "got front, top"),
        ({"images": {"front": FRONT, "wrist": WRIST, "top": WRIST}}, "must be named"),
        ({"images": {"front": FRONT, "wrist": WRIST, "observation.images.front": FRONT}}, "must be named"),
        ({"images": {}}, "got none"),
        ({"images": []}, "1 to 5 images, got 0"),
        ({"images": [FRONT] * 6}, "1 to 5 images, got 6"),
        ({"images": FRONT}, "list of images"),
        ({"images": None}, "list of images"),
        ({"images": [FRONT[0]]}, "number 1 must be an RGB array"),
        ({"images": [FRONT, "wrist.png"]}, "number 2 must be an RGB array"),
        ({"images": [FRONT[..., :1]]}, "RGB array"),
        ({"images": [FRONT[:0]]}, "RGB array"),
        ({"images": [FRONT.astype(np.int64)]}, "got int64"),
        ({"images": [FRONT.astype(np.float32)]}, "in \\[0, 1\\]"),
        ({"images": [FRONT / 255 - 0.5]}, "in \\[0, 1\\]"),
        ({"images": [np.full((4, 4, 3), np.nan)]}, "finite"),
        ({"state": np.zeros(4)}, "5 numbers .*shape \\(4,\\)"),
        ({"state": np.zeros(1)}, "5 numbers"),
        ({"state": np.zeros((1, 5))}, "5 numbers"),
        ({"state": np.array(["a"] * 5)}, "5 numbers"),
        ({"state": None}, "5 numbers"),
        ({"state": np.array([0, 0, np.nan, 0, 0])}, "finite"),
        ({"state": np.array([0, 0, np.inf, 0, 0])}, "finite"),
        ({"state": np.array([0, 0, 1e300, 0, 0])}, "finite"),
        ({"instruction": ""}, "in words"),
        ({"instruction": " \n.!"}, "in words"),
        ({"instruction": None}, "in words"),
        ({"instruction": "pick up <|image|> now"}, "token <|image|>"),
        ({"instruction": "stop<|IM_END|>"}, "token"),
    ],
)
def test_bad_observations_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        encode(**changes)


def test_words_with_angle_brackets_are_words():
    assert "move <3 cm" in encode(instruction="move <3 cm").prompt


def test_unknown_embodiment():
    with pytest.raises(ValueError, match=r"Unknown embodiment 'toy_arn'\. Did you mean 'toy_arm'"):
        processor("tiny").encode(GOOD, "toy_arn")


def test_training_and_serving_encode_alike():
    tiny = processor("tiny")
    state = tiny.tag("toy_arm").state_scaling.normalize(GOOD.state)
    parts = {"images": [FRONT, WRIST], "instruction": GOOD.instruction, "normalized_state": state}
    assert_same(tiny.encode_prompt(**parts, embodiment="toy_arm"), encode())
    stacked = {**parts, "images": np.stack(parts["images"])}
    assert_same(tiny.encode_prompt(**stacked, embodiment="toy_arm"), encode())
    styles = {style: tiny.encode_prompt(**parts, embodiment="toy_arm", style=style).prompt
              for style in ("robot_action", "robot_depth", "robot_depth_action")}  # fmt: skip
    assert styles["robot_depth"].endswith(
        "what is the depth map of the main image?<|im_end|>\n<|im_start|>assistant\n<depth_output>"
    )
    assert styles["robot_depth_action"].endswith("assistant\n<depth_output><action_output>")


def test_only_the_state_tokens_follow_the_state():
    tiny = processor("tiny")
    parts = {"images": [FRONT], "instruction": "wave", "embodiment": "toy_arm"}
    one = tiny.encode_prompt(**parts, normalized_state=np.full(5, -1.0))
    other = tiny.encode_prompt(**parts, normalized_state=np.full(5, 1.0))
    differing = one.token_ids != other.token_ids
    assert differing.sum() == 5
    assert set(one.token_ids[differing]) == {tiny.vocabulary.state.first}


def test_a_batch_holds_its_prompts_padded_on_the_right():
    encodings = [case.processor.encode(case.observation(), case.tag) for case in CASES if case.checkpoint == "tiny"]
    batch = collate(encodings)
    patches = batch.crops.flatten(0, 1)
    features = 0
    for row, encoded in enumerate(encodings):
        length = len(encoded.token_ids)
        assert batch.valid[row].tolist() == [True] * length + [False] * (batch.valid.shape[1] - length)
        np.testing.assert_array_equal(batch.token_ids[row, :length], encoded.token_ids)
        np.testing.assert_array_equal(batch.image_mask[row, :length], encoded.image_mask)
        assert not batch.image_mask[row, length:].any()
        pooled = batch.pooling[features : features + len(encoded.pooling)]
        np.testing.assert_array_equal(patches[pooled], encoded.crops.reshape(-1, patches.shape[1])[encoded.pooling])
        features += len(encoded.pooling)
    assert features == len(batch.pooling)


def test_a_question_in_words_needs_no_robot_and_no_image():
    encoded = processor("tiny-discrete").encode_question("What is this?", [FRONT])
    assert encoded.prompt == "<|image|><|im_start|>user\nWhat is this?<|im_end|>\n<|im_start|>assistant\n"
    alone = processor("tiny").encode_question("What is this?")
    assert alone.prompt.startswith("<|im_start|>user")
    assert alone.inputs.crops.shape == (0, 16, 588)
    assert alone.inputs.pooling.shape == (0, 4)
    with pytest.raises(ValueError, match="in words"):
        processor("tiny").encode_question(" ")


def test_actions_are_cut_to_the_robots_width_and_steps():
    tiny = processor("tiny")
    stats = tiny.tag("toy_arm").action
    actions = np.tile(np.linspace(-1, 1, 6)[:, None], (1, 8)).astype(np.float32)
    decoded = tiny.decode_actions(actions, "toy_arm")
    assert decoded.shape == (4, 5)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded[0, :4], stats.quantities["q01"][:4], rtol=1e-6)
    assert decoded[0, 4] == -1
    np.testing.assert_array_equal(tiny.decode_actions(actions[None], "toy_arm", num_steps=6)[0, :4], decoded)
    for wrong in (0, 7):
        with pytest.raises(ValueError, match="1 to 6"):
            tiny.decode_actions(actions, "toy_arm", num_steps=wrong)


@pytest.mark.parametrize(
    "missing", ["config.json", "tokenizer.json", "preprocessor_config.json", "processor_config.json"]
)
def test_a_missing_file_is_named(missing: str):
    files = {path.name: path.read_bytes() for path in (GOLDEN / "tiny").glob("*.json")}
    del files[missing]
    with pytest.raises(ValueError, match=f"lacks {missing}"):
        Processor.from_files(files)


def test_a_checkpoint_without_statistics_can_only_be_asked_in_words():
    files = {path.name: path.read_bytes() for path in (GOLDEN / "tiny").glob("*.json")}
    del files["norm_stats.json"], files["video_preprocessor_config.json"]
    plain = Processor.from_files(files)
    with pytest.raises(ValueError, match="knows no robot"):
        plain.encode(GOOD)
    with pytest.raises(ValueError, match="lacks"):
        plain.encode_video("What?", [FRONT], [0.0])
    assert plain.encode_question("What?", [FRONT]).image_mask.any()


def test_saving_changes_no_file(tmp_path):
    processor("tiny").save(tmp_path)
    saved = {path.name for path in tmp_path.iterdir()}
    assert saved == {path.name for path in (GOLDEN / "tiny").iterdir() if path.suffix == ".json"} - {"golden.json"}
    for name in saved - {"norm_stats.json"}:
        assert (tmp_path / name).read_bytes() == (GOLDEN / "tiny" / name).read_bytes()
    assert Processor.load(tmp_path).norm_stats.document == processor("tiny").norm_stats.document


@pytest.mark.slow
def test_encoding_is_fast_enough_for_a_trainer():
    tiny = processor("tiny")
    small = replace(tiny, images=replace(tiny.images, size=(112, 112)))
    observation = replace(GOOD, images=list(RNG.integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)))
    begin = time.perf_counter()
    for _ in range(100):
        small.encode(observation, "toy_arm")
    assert (time.perf_counter() - begin) / 100 < 5e-3
