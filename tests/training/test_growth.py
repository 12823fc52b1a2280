"""A network that grows robot tokens keeps all it knew, and its files are those the releases have."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from molmoact2 import load_policy
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.inference import MolmoAct2Policy, save_policy
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing import Processor
from molmoact2.testing import TINY, fake_observation, made_up_statistics, random_model, tiny_checkpoint, vary
from molmoact2.tokens.action_fit import fit_action_tokenizer
from molmoact2.tokens.vocabulary import ids_by_field
from molmoact2.training.config import OptimizerConfig, StageConfig, TrainConfig
from molmoact2.training.examples import RobotExample
from molmoact2.training.fresh import IMAGE_TOKENS, make_processor, train_tokenizer
from molmoact2.training.growth import PAD_MULTIPLE, grow, grow_vocabulary, robot_tokens
from molmoact2.training.start import Start
from molmoact2.training.trainable import PRESETS, ROBOT_TOKEN, added_rows
from molmoact2.training.trainer import TrainData, Trainer

COUNTS = {"num_state": 256, "num_action": 2048, "num_depth": 128}
QUESTION = "where is the cube in image 1?"
WITHOUT_ROBOTS: dict[str, Any] = {
    "add_action_expert": False, "action_expert_config": None, "num_depth_codes": 0, "num_depth_tokens": 0,
    "num_state_tokens": 0, "num_action_tokens": 0, "add_setup_tokens": False, "add_control_tokens": False,
    "max_action_dim": 0, "max_action_horizon": 0,
}  # fmt: skip
MANY_CROPS = {"crop_mode": "overlap-and-resize-c2", "max_crops": 4, "overlap_margins": [1, 1]}


def added_tokens_decoder(tokenizer_json: str) -> dict[str, Any]:
    tokens = json.loads(tokenizer_json)["added_tokens"]
    return {str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in tokens}


def molmo2_er(**text: Any) -> Start:
    """Laid out like Molmo2-ER: base tokens, `<extra_*>` up to 512, image tokens; crops, no robots, all its files."""
    tokenizer = train_tokenizer([QUESTION, "a b c"], num_merges=32)
    tokenizer.add_tokens(["the cube"])
    tokenizer.add_special_tokens([f"<extra_{i}>" for i in range(512 - tokenizer.get_vocab_size())])
    tokenizer.add_special_tokens(list(IMAGE_TOKENS))
    sizes = {"text_config": {"vocab_size": 512, "additional_vocab_size": 32, **text}}
    config = replace(vary(TINY, {**WITHOUT_ROBOTS, **sizes}), **ids_by_field(tokenizer))
    files = dict(make_processor(config, tokenizer, {}).files)
    said = {name: json.loads(files[name]) for name in ("config.json", "preprocessor_config.json")}
    patch = tokenizer.token_to_id("<im_patch>")
    changes = {
        "config.json": {**said["config.json"], "image_high_res_id": patch, "model_type": "molmo2"},
        "preprocessor_config.json": {**said["preprocessor_config.json"], **MANY_CROPS},
        "generation_config.json": {"eos_token_id": [config.eos_token_id], "suppress_tokens_ids": [patch]},
        "tokenizer_config.json": {
            "added_tokens_decoder": added_tokens_decoder(tokenizer.to_str()),
            "eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast",
        },
        "added_tokens.json": {token.content: i for i, token in tokenizer.get_added_tokens_decoder().items()},
    }  # fmt: skip
    files |= {name: json.dumps(content).encode() for name, content in changes.items()}
    return Start(model=random_model(config, 0), processor=Processor.from_files(files), action_tokenizer=None)


@torch.inference_mode()
def answers(model: MolmoAct2, processor: Processor) -> dict[str, torch.Tensor]:
    """What a network thinks of a question about two pictures."""
    rng = np.random.default_rng(0)
    inputs = processor.encode_question(QUESTION, [rng.integers(0, 256, (60, 90, 3), np.uint8) for _ in range(2)]).inputs
    features = model.image_features(inputs, processor.images.grid)
    hidden = model.read(inputs, features).hidden
    is_patch = inputs.token_ids == processor.vocabulary.image.patch
    assert int(is_patch.sum()) == len(features) > 0
    return {"ids": inputs.token_ids, "features": features, "hidden": hidden, "logits": model.logits(hidden)}


def by_string(values: torch.Tensor, tokenizer: Tokenizer, names: list[str]) -> torch.Tensor:
    return values[..., [tokenizer.token_to_id(name) for name in names]]


def strings(tokenizer: Tokenizer, ids: torch.Tensor) -> list[str | None]:
    return [tokenizer.id_to_token(i) for i in ids.flatten().tolist()]


@pytest.mark.parametrize("text", [{}, {"tie_word_embeddings": True}], ids=["two tables", "one table"])
def test_what_was_known_is_known(text: dict[str, Any]):
    start = molmo2_er(**text)
    grown = start.with_robot_tokens(seed=0)
    before, after = answers(start.model, start.processor), answers(grown.model, grown.processor)
    old, new = start.processor.vocabulary.tokenizer, grown.processor.vocabulary.tokenizer
    assert not torch.equal(before["ids"], after["ids"])
    assert strings(old, before["ids"]) == strings(new, after["ids"])
    assert torch.equal(before["features"], after["features"])
    assert torch.equal(before["hidden"], after["hidden"])
    known = [token for token, i in old.get_vocab().items() if i < 512 and not token.startswith("<extra")]
    torch.testing.assert_close(
        by_string(after["logits"], new, known), by_string(before["logits"], old, known), rtol=0, atol=1e-6
    )
    assert len(known) > 256 + 3


def test_layout_of_the_releases():
    """Ids as training.md A.2 derives them, at the sizes of this network."""
    start = molmo2_er()
    base = start.processor.vocabulary.tokenizer.token_to_id("the cube") + 1
    grown = start.with_robot_tokens(seed=0)
    vocabulary, text = grown.processor.vocabulary, grown.model.config.text_config
    assert text.vocab_size == 3 * PAD_MULTIPLE == -(-(512 + 2444) // PAD_MULTIPLE) * PAD_MULTIPLE
    assert text.additional_vocab_size == 32
    tokens = robot_tokens(**COUNTS)
    assert len(tokens) == 2444
    order = [vocabulary.tokenizer.id_to_token(i) for i in range(base, text.vocab_size + len(IMAGE_TOKENS))]
    num_padding = text.vocab_size - base - len(tokens)
    assert order == [*tokens, *(f"<extra_{i}>" for i in range(num_padding)), *IMAGE_TOKENS]
    assert vocabulary.action is not None
    assert (vocabulary.action.count, vocabulary.action.first) == (2048, base + 265)
    assert (vocabulary.wraps_setup, vocabulary.wraps_control) == (True, True)
    assert int(added_rows(vocabulary, text.vocab_size).sum()) == 2444


@pytest.mark.parametrize("name", ["tiny", "tiny-think", "tiny-crops", "tiny-discrete"])
def test_layout_is_the_one_the_reference_wrote(golden: Path, name: str):
    """A released-format tokenizer without its robot tokens grows back to the same tokenizer, to the id."""
    document = json.loads((golden / name / "tokenizer.json").read_text())
    config = json.loads((golden / name / "config.json").read_text())
    size, first = config["text_config"]["vocab_size"], len(document["model"]["vocab"])
    rest = [token for token in document["added_tokens"] if not ROBOT_TOKEN.fullmatch(token["content"])]
    chat_and_padding = [token for token in rest if token["id"] < size][: 512 - first]
    images = [token for token in rest if token["id"] >= size]
    stripped = [{**token, "id": first + i} for i, token in enumerate([*chat_and_padding, *images])]
    assert stripped[-len(images)]["id"] == 512
    counts = {f"num_{family}": config[f"num_{family}_tokens"] for family in ("state", "action", "depth")}
    grown = grow_vocabulary(
        json.dumps({**document, "added_tokens": stripped}), 512, robot_tokens(**counts), multiple=size
    )
    assert json.loads(grown.tokenizer_json) == document
    assert grown.vocab_size == size


def test_files_agree(tmp_path: Path):
    start = molmo2_er()
    grown = start.with_robot_tokens(seed=0).with_robots({SO101_TABLETOP.tag: made_up_statistics(SO101_TABLETOP)})
    folder = tmp_path / "grown"
    save_policy(MolmoAct2Policy(model=grown.model, processor=grown.processor), folder)
    policy = load_policy(folder)
    assert policy.embodiments == (SO101_TABLETOP.tag,)
    assert policy.config == grown.model.config
    loaded, own = answers(policy.model, policy.processor), answers(grown.model, grown.processor)
    assert torch.equal(loaded["logits"], own["logits"])
    tokenizer = policy.processor.vocabulary.tokenizer
    read = {name: json.loads((folder / name).read_text()) for name in grown.processor.files if name.endswith("json")}
    ids = {entry["content"]: int(i) for i, entry in read["tokenizer_config.json"]["added_tokens_decoder"].items()}
    assert ids == read["added_tokens.json"] == {name: tokenizer.token_to_id(name) for name in ids}
    assert {*robot_tokens(**COUNTS), *IMAGE_TOKENS} < ids.keys()
    patch, end = tokenizer.token_to_id("<im_patch>"), tokenizer.token_to_id("<|im_end|>")
    assert read["generation_config.json"] == {"eos_token_id": [end], "suppress_tokens_ids": [patch]}
    assert read["config.json"]["image_high_res_id"] == read["config.json"]["image_patch_id"] == patch
    untouched = start.processor.files.keys() - {"config.json", "tokenizer.json", "tokenizer_config.json",
                                                "added_tokens.json", "generation_config.json"}  # fmt: skip
    assert all(grown.processor.files[name] == start.processor.files[name] for name in untouched)
    assert untouched


def test_other_loaders_read_the_same_ids(tmp_path: Path):
    transformers = pytest.importorskip("transformers", reason="reads tokenizers independently of us")
    grown = molmo2_er().with_robot_tokens(seed=0)
    save_policy(MolmoAct2Policy(model=grown.model, processor=grown.processor), tmp_path / "grown")
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "grown")
    text = "<im_start><im_patch><im_end><|im_start|>where is a b<state_7><action_2047><depth_127><extra_3><|im_end|>"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == grown.processor.vocabulary.encode(text).tolist()
    assert len(tokenizer) == grown.processor.vocabulary.tokenizer.get_vocab_size()


def test_new_rows_are_like_base_rows():
    start = molmo2_er()
    base = start.processor.vocabulary.tokenizer.token_to_id("the cube") + 1
    with torch.no_grad():
        start.model.text.embedding.mul_(torch.linspace(0.5, 3, 32)).add_(torch.linspace(-5, 5, 32))
        start.model.text.embedding[:base, 4] = 0.25
        start.model.text.embedding[base:] = 1e6  # padding, which is not to be taken for something that was learned
    old, (grown, other) = start.model, (start.with_robot_tokens(seed=seed).model for seed in (0, 1))
    for table in ("text.embedding", "lm_head.weight"):
        before, after = old.get_parameter(table), grown.get_parameter(table)
        assert torch.equal(after[:base], before[:base])
        rows = after[base:]
        std, mean = torch.std_mean(before[:base], dim=0)
        std = torch.where(std > 0, std, 0.02)
        num_rows = len(rows)
        assert (((rows.mean(dim=0) - mean) / std).abs() < 5 / num_rows**0.5).all()
        assert ((rows.std(dim=0) / std - 1).abs() < 5 / (2 * num_rows) ** 0.5).all()
        assert not torch.equal(other.get_parameter(table)[base:], rows)
    assert torch.equal(grown.text.new_embedding, old.text.new_embedding)
    assert torch.equal(start.with_robot_tokens(seed=0).model.text.embedding, grown.text.embedding)
    assert not torch.equal(grown.text.embedding[base:], grown.lm_head.weight[base:])


def test_everything_else_is_shared_and_keeps_its_dtype():
    start = molmo2_er()
    start = replace(start, model=start.model.to(torch.bfloat16).requires_grad_(False))
    grown = start.with_robot_tokens(seed=0)
    old, new = dict(start.model.named_parameters()), dict(grown.model.named_parameters())
    assert old.keys() == new.keys()
    assert {parameter.dtype for parameter in new.values()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in new.values())
    assert {name for name in old if old[name] is not new[name]} == {"text.embedding", "lm_head.weight"}
    assert start.model.config.text_config.vocab_size == 512


def test_a_small_family_grows(tmp_path: Path):
    """A policy with 64 action tokens acts as before with 2,048: ids move, what they mean does not."""
    start = Start.of(load_policy(tiny_checkpoint(tmp_path / "tiny", enable_depth_reasoning=True)))
    model, processor = grow(start.model, start.processor, {**COUNTS, "num_depth": 32}, seed=0)
    old, new = start.processor.vocabulary, processor.vocabulary
    assert (old.action and old.action.count, new.action and new.action.count) == (64, 2048)
    assert old.depth and new.depth and old.depth.first != new.depth.first  # noqa: PT018
    for table in ("text.embedding", "lm_head.weight"):
        for token in ("<action_63>", "<depth_31>", "<state_255>", "<setup_start>", "<action_output>"):
            rows = [
                m.get_parameter(table)[v.tokenizer.token_to_id(token)] for m, v in ((start.model, old), (model, new))
            ]
            assert torch.equal(*rows)
    before, after = (
        MolmoAct2Policy(model=m, processor=p).act(fake_observation(seed=1), seed=3, mode="continuous").actions
        for m, p in ((start.model, start.processor), (model, processor))
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)


def test_single_views(tmp_path: Path):
    """Robots are shown one view per image; that is saved, and only that is changed."""
    crops = molmo2_er()
    start = crops.with_single_views()
    image = np.zeros((60, 90, 3), np.uint8)
    words = start.processor.vocabulary.image
    for processor, is_one in ((crops.processor, False), (start.processor, True)):
        ids = processor.encode_question(QUESTION, [image]).token_ids
        assert ((ids == words.patch).sum() == 4) == is_one
    begin, end = (int(np.flatnonzero(ids == token)[0]) for token in (words.start, words.end))
    assert ids[begin + 1 : end].tolist() == [words.patch] * 4
    save_policy(MolmoAct2Policy(model=start.model, processor=start.processor), tmp_path / "single")
    assert load_policy(tmp_path / "single").processor.images == start.processor.images
    changed = {name for name, content in start.processor.files.items() if content != crops.processor.files[name]}
    assert changed <= {"preprocessor_config.json", "processor_config.json"}
    assert start.with_single_views().processor.images == start.processor.images
    assert start.model is crops.model


def test_growing_twice_is_growing_once():
    once = molmo2_er().with_robot_tokens(seed=0)
    twice = once.with_robot_tokens(seed=1)
    assert twice.model is once.model
    assert twice.processor is once.processor


class Waves:
    """A robot that sees noise and waves."""

    def example(self, number: int) -> RobotExample:
        rng = np.random.default_rng(number)
        phase = rng.uniform(0, 3, 6) + np.linspace(0, 2, SO101_TABLETOP.action_horizon)[:, None]
        return RobotExample(
            images=tuple(rng.integers(0, 256, (30, 40, 3), np.uint8) for _ in SO101_TABLETOP.cameras),
            state=np.zeros(6, np.float32),
            instruction="wave",
            actions=np.sin(phase).astype(np.float32),
            is_valid=np.ones(SO101_TABLETOP.action_horizon, bool),
            tag=SO101_TABLETOP.tag,
            origin=f"wave {number}",
        )


def test_a_grown_network_learns_to_say_actions(tmp_path: Path):
    """One step of pre-training with the added rows alone: they change, base rows do not, and the export acts."""
    waves = Waves()
    chunks = np.stack([waves.example(number).actions for number in range(40)])
    grown = molmo2_er().with_robot_tokens(num_action=512, seed=0)
    grown = grown.with_robots({SO101_TABLETOP.tag: made_up_statistics(SO101_TABLETOP)})
    grown = grown.with_config(replace(grown.model.config, action_mode="discrete"), seed=0)
    tokenizer = fit_action_tokenizer([chunks], vocab_size=512, longest_horizon=SO101_TABLETOP.action_horizon)
    stage = StageConfig(
        name="pretrain", num_steps=1, examples_per_step={"robot": 2}, says_actions=True, flow_samples=0,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=1, ema_decay=0.0),
    )  # fmt: skip
    config = TrainConfig(
        stages=(stage,), trainable=PRESETS["post-training"], dtype="float32", num_workers=0, num_held_out=1
    )
    before = {name: grown.model.get_parameter(name).clone() for name in ("text.embedding", "lm_head.weight")}
    trainer = Trainer(replace(grown, action_tokenizer=tokenizer), TrainData(streams={"robot": waves}), config, tmp_path)
    trainer.run()
    trainer.export(tmp_path / "checkpoint")
    policy = load_policy(tmp_path / "checkpoint")
    assert policy.modes == ("discrete",)
    rows = added_rows(policy.processor.vocabulary, len(before["text.embedding"]))
    after = policy.model.text.embedding
    assert torch.equal(after[~rows], before["text.embedding"][~rows])
    assert not torch.equal(after[rows], before["text.embedding"][rows])
    assert not torch.equal(policy.model.lm_head.weight, before["lm_head.weight"])


def test_families_may_be_left_out():
    grown = molmo2_er().with_robot_tokens(num_depth=0, num_action=512, seed=0)
    vocabulary = grown.processor.vocabulary
    assert vocabulary.depth is None
    assert vocabulary.action is not None
    assert vocabulary.action.count == grown.model.config.num_action_tokens == 512
    more = grown.with_robot_tokens(seed=1)
    assert answers(more.model, more.processor)["hidden"].equal(answers(grown.model, grown.processor)["hidden"])


def test_nothing_learned_is_dropped():
    start = molmo2_er().with_robot_tokens(seed=0)
    with pytest.raises(
        ValueError, match=re.escape("1536 robot tokens that are not asked for, such as ['<action_512>']")
    ):
        start.with_robot_tokens(num_action=512, seed=0)
    with pytest.raises(ValueError, match="must not be negative"):
        start.with_robot_tokens(num_state=-1, seed=0)


def test_unusual_numbering_is_refused():
    document = json.loads(molmo2_er().processor.files["tokenizer.json"])
    document["added_tokens"] = [
        {**token, "id": token["id"] + (token["id"] >= 512)} for token in document["added_tokens"]
    ]
    with pytest.raises(ValueError, match=r"numbers <im_start>, <im_end>, .* as no release does"):
        grow_vocabulary(json.dumps(document), 512, robot_tokens(**COUNTS), multiple=1024)
