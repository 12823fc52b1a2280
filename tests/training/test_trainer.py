"""A run that is stopped and continued is the run that never stopped, and its export is an ordinary checkpoint."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from small_run import Words, small_config, small_data, small_heads, small_stage, small_start, small_trainer
from torch import Tensor

from molmoact2.data.augmentation import Augmentation
from molmoact2.inference import load_policy
from molmoact2.training import pieces
from molmoact2.training.checkpoint import latest_checkpoint
from molmoact2.training.config import TrainConfig
from molmoact2.training.examples import Example, QuestionExample, Stream
from molmoact2.training.pointing import PointingHeads
from molmoact2.training.trainable import PRESETS, TrainableConfig
from molmoact2.training.trainer import HISTORY_FILE, TrainData, Trainer
from molmoact2.types import Observation

LORA = replace(PRESETS["lora"], lora_rank=2, lora_dropout=0.2)


def one_stage(*, trainable: TrainableConfig | None = None, num_steps: int = 2, **changes: Any) -> TrainConfig:
    return small_config(
        stages=(small_stage(num_steps=num_steps, **changes),), trainable=trainable or TrainableConfig()
    )  # fmt: skip


VARIANTS: dict[str, TrainConfig] = {
    "bfloat16": small_config(dtype="bfloat16"),
    "packed, with dropout": one_stage(tokens_per_row=300, rows_per_pass=1, residual_dropout=0.2, num_steps=3),
    "adapters, with dropout": one_stage(trainable=LORA, num_steps=3),
    "two workers": small_config(num_workers=2),
}


def weights(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of all parameters, and of the averages of those that learn."""
    named = {f"{m}.{name}": p for m, module in trainer.modules.items() for name, p in module.named_parameters()}
    return {name: tensor.detach().clone() for name, tensor in (named | trainer.average.average).items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]):
    assert found.keys() == expected.keys()
    different = [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])]
    assert not different, f"{len(different)} tensors differ, such as {different[:3]}"


def stopped_and_resumed(folder: Path, config: TrainConfig, stop: int) -> Trainer:
    small_trainer(folder, config).run(until=stop)
    trainer = small_trainer(folder, config)
    trainer.resume()
    assert trainer.step == stop
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights of a run that is never stopped."""
    trainer = small_trainer(tmp_path_factory.mktemp("whole"))
    trainer.run()
    return weights(trainer)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopped_and_resumed_equals_never_stopped_bit_for_bit(tmp_path: Path, whole: dict[str, Tensor], stop: int):
    assert_same(weights(stopped_and_resumed(tmp_path, small_config(), stop)), whole)


@pytest.mark.parametrize("name", VARIANTS)
def test_so_it_is_with_everything_that_draws_at_random(tmp_path: Path, name: str):
    trainer = small_trainer(tmp_path / "whole", VARIANTS[name])
    torch.manual_seed(123)  # of no consequence
    trainer.run()
    parts = stopped_and_resumed(tmp_path / "parts", VARIANTS[name], VARIANTS[name].num_steps - 1)
    assert_same(weights(parts), weights(trainer))


def test_workers_do_not_matter(tmp_path: Path, whole: dict[str, Tensor]):
    trainer = small_trainer(tmp_path, VARIANTS["two workers"])
    trainer.run()
    assert_same(weights(trainer), whole)


def test_dropout_makes_another_run(tmp_path: Path):
    """So that the tests above can fail."""
    results = []
    for rate in (0.0, 0.2):
        trainer = small_trainer(tmp_path / str(rate), one_stage(residual_dropout=rate, num_steps=1))
        trainer.run()
        results.append(weights(trainer))
    assert any(not torch.equal(tensor, results[1][name]) for name, tensor in results[0].items())


def test_the_log_has_every_step_once_after_a_resume(tmp_path: Path):
    stopped_and_resumed(tmp_path, small_config(), 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert {line["stage"] for line in lines} == {"reason", "act"}
    assert {"language", "z", "flow", "place", "gradient_expert"} <= lines[-1].keys()
    assert not {"language", "z", "flow"} & lines[0].keys(), "in the first stage nothing is said and nothing flows"


def test_a_checkpoint_of_other_settings_or_data_is_refused(tmp_path: Path):
    small_trainer(tmp_path).run(until=1)
    with pytest.raises(ValueError, match="other settings"):
        small_trainer(tmp_path, replace(small_config(), seed=1)).resume()
    start, data = small_start(), replace(small_data(), fingerprints={"pool": "another"})
    changed = Trainer(start, data, small_config(), tmp_path, heads=small_heads(start))
    with pytest.raises(ValueError, match=r"learned from \{'pool': 'random'\}, now there are \{'pool': 'another'\}"):
        changed.resume()
    assert changed.step == 0


@pytest.mark.parametrize("name", ["parameters-00000-of-00001.safetensors", "progress.json"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, name: str):
    small_trainer(tmp_path).run(until=1)
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        small_trainer(tmp_path).resume()


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, Tensor]
):
    config = small_config(checkpoint_every=2)
    small_trainer(tmp_path, config).run(until=2)
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    again = small_trainer(tmp_path, config)
    again.resume()

    def full(*_args: object, **_options: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(pieces, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        again.run()
    monkeypatch.undo()
    after = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}
    assert after == before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000002"]
    last = small_trainer(tmp_path, config)
    last.resume()
    last.run()
    assert_same(weights(last), whole)


def test_the_export_is_an_ordinary_checkpoint_that_acts(tmp_path: Path):
    trainer = small_trainer(tmp_path)
    trainer.run()
    trainer.export(tmp_path / "checkpoint")
    policy = load_policy(tmp_path / "checkpoint")
    assert policy.act(observation(), seed=0).actions.shape == (12, 6)
    assert policy.modes == ("continuous", "discrete")
    assert policy.action_tokenizer is not None
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(parameter, trainer.average.average[name]), name
    told = json.loads((tmp_path / "checkpoint" / HISTORY_FILE).read_text())
    assert (told["step"], told["start"], told["data"]) == (4, "nothing", {"pool": "random"})
    assert told["config"]["stages"][1]["name"] == "act"
    heads = PointingHeads.load(tmp_path / "checkpoint")
    assert trainer.heads is not None
    assert torch.equal(heads.pointer_key.weight, trainer.heads.pointer_key.weight)


def observation() -> Observation:
    image = np.zeros((128, 128, 3), np.uint8)
    return Observation(images={"front": image, "wrist": image}, state=np.zeros(6), instruction="pick up the red cube")


def test_adapters_are_folded_into_the_export(tmp_path: Path):
    trainer = small_trainer(tmp_path, one_stage(trainable=LORA))
    before = weights(trainer)
    trainer.run()
    moved = {name for name, tensor in weights(trainer).items() if not torch.equal(tensor, before[name])}
    learned = {name for name in moved if name.startswith("model.")}
    assert learned
    assert all("lora_" in name or ".action_expert." in name for name in learned)
    trainer.export(tmp_path / "checkpoint")
    policy, start = load_policy(tmp_path / "checkpoint"), small_start().model
    assert policy.act(observation(), seed=0).actions.shape == (12, 6)
    found = dict(policy.model.named_parameters())
    assert found.keys() == dict(start.named_parameters()).keys(), "a plain network"
    name = "text.blocks.1.mlp.down.weight"
    average = trainer.average.average
    down, up = (average[f"text.blocks.1.mlp.down.lora_{letter}.default.weight"] for letter in "AB")
    torch.testing.assert_close(found[name], start.get_parameter(name) + 16 / 2 * up @ down, rtol=0, atol=1e-6)
    assert not torch.equal(found[name], start.get_parameter(name))


@pytest.mark.parametrize(
    ("preset", "may_move"),
    [
        ("expert", lambda name: name.startswith("action_expert.")),
        ("fine-tuning", lambda name: name != "text.embedding"),
        ("post-training", bool),
    ],
)
def test_what_is_frozen_stays_as_it_was(tmp_path: Path, preset: str, may_move: Callable[[str], bool]):
    trainer = small_trainer(tmp_path, one_stage(trainable=PRESETS[preset]), points=False)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.run()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if may_move(name)}
    rows = (trainer.model.text.embedding != before["text.embedding"]).any(dim=1)
    assert bool(rows.any()) == (preset == "post-training")
    assert trainer.prepared.added_rows is not None
    assert not rows[~trainer.prepared.added_rows].any()


def test_the_policy_is_kept_along_the_way_once_it_learns_to_act(tmp_path: Path):
    small_trainer(tmp_path, small_config(snapshot_every=1)).run()
    assert sorted(path.name for path in (tmp_path / "snapshots").iterdir()) == ["step-0000003", "step-0000004"]


@dataclass(frozen=True)
class Broken:
    """A stream of which one example has something in it that is not a number."""

    stream: Stream
    number: int
    changes: Callable[[Any], dict[str, Any]]

    def example(self, number: int) -> Example:
        example = self.stream.example(number)
        return replace(example, **self.changes(example)) if number == self.number else example


def broken_trainer(folder: Path, stream: str, broken: Broken) -> Trainer:
    data, start = small_data(), small_start()
    config = one_stage(examples_per_step={stream: 3})
    return Trainer(start, TrainData(streams={**data.streams, stream: broken}), config, folder)


def test_a_loss_that_is_not_finite_names_its_example_and_spoils_no_weights(tmp_path: Path):
    def without_weight(example: QuestionExample) -> dict[str, Any]:
        return {"weight": example.weight * float("nan")}

    trainer = broken_trainer(tmp_path, "words", Broken(Words(), 4, without_weight))
    trainer.run(until=1)
    before = weights(trainer)
    with pytest.raises(FloatingPointError, match="The gradient of step 1 is not finite: the loss of words 4 is not"):
        trainer.run()
    assert_same(weights(trainer), before)


def test_values_that_are_not_finite_are_refused_before_they_are_learned_from(tmp_path: Path):
    def infinite(example: Any) -> dict[str, Any]:
        return {"actions": np.where(np.arange(6) == 3, np.inf, example.actions).astype(np.float32)}

    trainer = broken_trainer(tmp_path, "robot", Broken(small_data().streams["robot"], 1, infinite))
    with pytest.raises(ValueError, match="motion 1: state and actions must be finite"):
        trainer.run()


def test_a_network_that_is_broken_itself_blames_no_example_alone(tmp_path: Path):
    trainer = small_trainer(tmp_path)
    assert trainer.heads is not None
    with torch.no_grad():
        trainer.heads.things.weight.fill_(float("nan"))
    before = weights(trainer)
    with pytest.raises(FloatingPointError, match=r"the loss of scene \d; scene \d is not finite"):
        trainer.run(until=1)
    found = weights(trainer)
    assert_same({name: t for name, t in found.items() if "things" not in name},
                {name: t for name, t in before.items() if "things" not in name})  # fmt: skip


def test_measuring_changes_nothing_and_is_repeatable(tmp_path: Path):
    trainer = small_trainer(tmp_path)
    trainer.run(until=1)
    before = weights(trainer)
    errors = trainer.measure()
    assert "scenes_error_m" in errors
    assert trainer.measure() == errors
    assert_same(weights(trainer), before)


def test_measuring_is_without_dropout_augmentation_and_packing(tmp_path: Path):
    plain = {"augmentation": Augmentation(mode="none"), "state_jitter_bins": 0.0}
    rough = {"residual_dropout": 0.5, "tokens_per_row": 300, "rows_per_pass": 1, "state_jitter_bins": 30.0}
    found = []
    for name, changes in (("plain", plain), ("rough", rough)):
        trainer = small_trainer(tmp_path / name, one_stage(**changes))
        streams = small_data().streams
        trainer.data = replace(trainer.data, held_out={name: streams[name] for name in ("robot", "words")})
        found.append(trainer.measure())
    assert found[0] == found[1]
    assert {"robot_flow", "robot_language", "words_language"} <= found[0].keys()
    assert "words_flow" not in found[0]
