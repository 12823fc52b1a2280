"""Checkpoints are read whole or refused, and written whole or not at all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from golden_cases import CHECKPOINTS, GOLDEN, cases
from molmoact2.inference import checkpoint, load_policy, save_policy

TINY = GOLDEN / "tiny"
CASE = cases("continuous")[0]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkpoint to be damaged."""
    return Path(shutil.copytree(TINY, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_saved_key_for_key(name: str, tmp_path: Path):
    save_policy(load_policy(GOLDEN / name), tmp_path / "saved")
    released, saved = (load_file(folder / "model.safetensors") for folder in (GOLDEN / name, tmp_path / "saved"))
    assert saved.keys() == released.keys()
    for key, tensor in released.items():
        torch.testing.assert_close(saved[key], tensor, rtol=0, atol=0)
    files = {path.name for path in (GOLDEN / name).iterdir()} - {"golden.json", "golden.npz"}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == files
    for file in files - {"model.safetensors"}:
        assert json.loads((tmp_path / "saved" / file).read_text()) == json.loads((GOLDEN / name / file).read_text())


def test_a_saved_policy_acts_the_same(tmp_path: Path):
    save_policy(load_policy(TINY, action_tokenizer=GOLDEN / "fast_tokenizer"), tmp_path / "a" / "b")
    again = load_policy(tmp_path / "a" / "b")
    assert again.action_tokenizer is not None
    first, second = (p.act(CASE.observation(), CASE.tag, noise=CASE["noise"][0]) for p in (CASE.policy, again))
    np.testing.assert_array_equal(first.actions, second.actions)


def test_saving_replaces_a_checkpoint_and_nothing_else(tmp_path: Path, copy: Path):
    edit(copy / "norm_stats.json", note="old")
    save_policy(CASE.policy, copy)
    assert "note" not in json.loads((copy / "norm_stats.json").read_text())
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("dear diary")
    with pytest.raises(ValueError, match="not a checkpoint"):
        save_policy(CASE.policy, tmp_path / "diary")
    (tmp_path / "empty").mkdir()
    save_policy(CASE.policy, tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "diary", "empty"]


@pytest.mark.parametrize("where", ["save_model", "rename"])
def test_an_interrupted_save_leaves_what_was_there(copy: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    rename = Path.rename

    def fail(*arguments: object) -> None:
        if where == "save_model" or arguments[0].name == "fresh":
            raise OSError("disk full")
        rename(*arguments)

    target = checkpoint if where == "save_model" else Path
    monkeypatch.setattr(target, where, fail)
    with pytest.raises(OSError, match="disk full"):
        save_policy(CASE.policy, copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_shards_are_one_checkpoint(copy: Path):
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(weight_map.values()):
        save_file({name: tensors[name] for name in names if weight_map[name] == shard}, copy / shard)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    chunk = load_policy(copy).act(CASE.observation(), CASE.tag, noise=CASE["noise"][0])
    np.testing.assert_allclose(chunk.actions, CASE["actions"][0], atol=1e-5)
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors, which is missing"):
        load_policy(copy)


def damage_weights(copy: Path, **changes: torch.Tensor | None) -> None:
    tensors = {**load_file(copy / "model.safetensors"), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, copy / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lm_head.weight": None}, "1 missing .*lm_head.weight"),
        ({"model.extra": torch.zeros(1)}, "1 unexpected .*model.extra"),
        ({"lm_head.weight": torch.zeros(3, 48)}, "1 misshapen .*lm_head.weight is \\[3, 48\\], must be \\[768, 48\\]"),
    ],
)
def test_tensors_that_do_not_fit_are_named(copy: Path, changes: dict, message: str):
    damage_weights(copy, **changes)
    with pytest.raises(ValueError, match=message):
        load_policy(copy)


def test_known_tensors_that_nothing_uses_are_passed_over(copy: Path):
    damage_weights(copy, **{"model.action_expert.state_encoder.weight": torch.zeros(2, 2)})
    load_policy(copy)


@pytest.mark.parametrize("length", [0, 5, 1000, 1_000_000])
def test_truncated_weights_are_refused(copy: Path, length: int):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_policy(copy)


def test_weights_of_another_format_are_refused(copy: Path):
    (copy / "model.safetensors").write_bytes(b"PK\x03\x04" * 1000)
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_policy(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_action_dim": "8"}, "max_action_dim"),
        ({"text_config": None}, "text_config"),
        ({"action_mode": "dance"}, "action_mode"),
        ({"action_expert_config": None}, "action_expert_config"),
        ({"eos_token_id": 3}, "eos_token_id"),
        ({"norm_stats_filename": 5}, "norm_stats_filename"),
    ],
)
def test_a_config_that_cannot_be_is_refused(copy: Path, changes: dict, message: str):
    edit(copy / "config.json", **changes)
    with pytest.raises(ValueError, match=message):
        load_policy(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json", "norm_stats.json"])
def test_half_a_file_is_refused(copy: Path, name: str):
    (copy / name).write_text((copy / name).read_text()[:100])
    with pytest.raises(ValueError, match=rf"{name} is not valid JSON"):
        load_policy(copy)


def test_code_beside_a_checkpoint_is_neither_run_nor_kept(copy: Path):
    (copy / "modeling_molmoact2.py").write_text("raise SystemExit")
    save_policy(load_policy(copy), copy)
    assert not (copy / "modeling_molmoact2.py").exists()


@pytest.mark.parametrize("path", ["nowhere", "a/b/c", "two words/x", ""])
def test_what_is_no_checkpoint_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"neither a directory nor a hub id|no config\.json"):
        load_policy(path)


def test_hub_ids_are_pinned_to_the_commit_that_came(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    snapshot = copy.rename(tmp_path / "c0ffee")
    asked = []

    def fake_download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision))
        assert not any(pattern.endswith(".py") for pattern in allow_patterns)
        return str(snapshot)

    monkeypatch.setattr(checkpoint, "snapshot_download", fake_download)
    assert load_policy("some-lab/toy", revision="main").revision == "c0ffee"
    assert asked == [("some-lab/toy", "main")]


def test_an_unreachable_hub_is_a_clear_error(monkeypatch: pytest.MonkeyPatch):
    def fake_download(*_: object, **__: object) -> str:
        raise checkpoint.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(checkpoint, "snapshot_download", fake_download)
    with pytest.raises(ValueError, match="some-lab/toy is no directory here"):
        load_policy("some-lab/toy")


def test_wrong_arguments():
    with pytest.raises(ValueError, match="Unknown dtype 'float31'"):
        load_policy(TINY, dtype="float31")
    with pytest.raises(ValueError, match="revision is for hub ids"):
        load_policy(TINY, revision="main")
    with pytest.raises(ValueError, match=r"lacks processor_config\.json|no action tokenizer|'scale'"):
        load_policy(TINY, action_tokenizer=GOLDEN / "tiny")
    assert load_policy(TINY, dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_ids_that_the_config_does_not_say_come_from_the_tokenizer(tmp_path, golden):
    complete = load_policy(golden / "tiny-think")
    shutil.copytree(golden / "tiny-think", tmp_path / "terse")
    path = tmp_path / "terse" / "config.json"
    path.chmod(0o644)
    document = json.loads(path.read_text())
    said = [name for name in document if name.endswith(("_token_id", "_start_id")) and document[name] is not None]
    path.write_text(json.dumps({name: value for name, value in document.items() if name not in said}))
    assert load_policy(tmp_path / "terse").config == complete.config
