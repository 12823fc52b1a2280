"""Weights are read whole or refused, with the file or the tensors that are wrong by name."""

import json
import logging
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from molmoact2.model import weights
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.model.weights import CheckpointError, list_tensors, load_model, read_header, released_names, save_model
from molmoact2.testing import random_model
from small_networks import SMALL, small_config

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
NORM = "model.transformer.ln_f.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoint")
    save_model(random_model(SMALL, seed=0), directory)
    return directory


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A checkpoint to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}


def split_into_shards(directory: Path, num_shards: int) -> dict[str, str]:
    """Turn a single file into shards with an index, and return the index's map."""
    tensors = load_file(directory / FILE)
    (directory / FILE).unlink()
    weight_map = {name: f"model-{i % num_shards:05d}.safetensors" for i, name in enumerate(sorted(tensors))}
    for shard in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == shard}, directory / shard)
    write_index(directory, weight_map)
    return weight_map


def write_index(directory: Path, weight_map: Any) -> None:
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def same_weights(one: MolmoAct2, other: MolmoAct2) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_names_are_the_released_ones():
    names = released_names(MolmoAct2(small_config(action_expert_depth_gate=True)))
    assert len(set(names.values())) == len(names)
    for ours, released in {
        "text.embedding": "model.transformer.wte.embedding",
        "text.blocks.1.attention.qkv.weight": "model.transformer.blocks.1.self_attn.att_proj.weight",
        "text.blocks.0.mlp_norm.weight": "model.transformer.blocks.0.ff_norm.weight",
        "text.norm.weight": NORM,
        "vision.blocks.2.mlp_norm.bias": "model.vision_backbone.image_vit.transformer.resblocks.2.ffn_norm.bias",
        "connector.projector.up.weight": "model.vision_backbone.image_projector.w3.weight",
        "action_expert.final_modulation.bias": "model.action_expert.final_layer.modulation.linear.bias",
        "depth_gate.0.bias": "model.action_expert_depth_gate.bias",
        "lm_head.weight": "lm_head.weight",
    }.items():
        assert names[ours] == released


@pytest.mark.parametrize("num_shards", [1, 2, 7])
def test_shards_are_the_single_file(original: Path, copy: Path, num_shards: int):
    split_into_shards(copy, num_shards)
    assert same_weights(load_model(copy, SMALL), load_model(original, SMALL))


def test_large_networks_are_written_in_shards(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "SHARD_BYTES", 60_000)
    model = load_model(original, SMALL)
    save_model(model, tmp_path)
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    count = len(shards)
    assert count > 2
    assert shards == [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["weight_map"].keys() == load_file(original / FILE).keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in load_file(original / FILE).values())
    assert same_weights(load_model(tmp_path, SMALL), model)


def test_large_tensors_are_read_in_pieces(original: Path, monkeypatch: pytest.MonkeyPatch):
    whole = load_model(original, SMALL)
    monkeypatch.setattr(weights, "PIECE_BYTES", 4 * 101)
    assert same_weights(load_model(original, SMALL), whole)


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16])
def test_weights_are_converted_as_torch_does(copy: Path, stored: torch.dtype, wanted: torch.dtype):
    tensors = {name: tensor.to(stored) for name, tensor in load_file(copy / FILE).items()}
    save_file(tensors, copy / FILE)
    model = load_model(copy, SMALL, dtype=wanted)
    names = released_names(model)
    for name, parameter in model.named_parameters():
        assert parameter.dtype == wanted
        assert torch.equal(parameter, tensors[names[name]].to(wanted)), name


def test_a_loaded_network_is_for_use_not_for_training(original: Path):
    model = load_model(original, SMALL)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_every_tensor_that_does_not_fit_is_named_before_any_is_read(copy: Path, monkeypatch: pytest.MonkeyPatch):
    tensors = load_file(copy / FILE)
    misshapen, missing = tensors[NORM], "lm_head.weight"
    tensors[NORM], tensors["model.extra"] = misshapen.repeat(2), torch.zeros(1)
    del tensors[missing]
    save_file(tensors, copy / FILE)
    monkeypatch.setattr(weights, "_read", None)
    with pytest.raises(CheckpointError) as refusal:
        load_model(copy, SMALL)
    for part in ("1 missing (lm_head.weight)", "1 unexpected (model.extra)",
                 f"1 misshapen ({NORM} is [64], must be [32])", str(copy)):  # fmt: skip
        assert part in str(refusal.value)


def test_of_many_wrong_tensors_the_first_are_named(copy: Path):
    deeper = small_config(text_config={"num_hidden_layers": 4}, action_expert_config={"num_layers": 4})
    with pytest.raises(CheckpointError, match=r"\d\d missing \(model\.action_expert\.blocks\.2\..*; …\)"):
        load_model(copy, deeper)


@pytest.mark.parametrize(
    "name",
    ["model.action_expert.blocks.0.cross_attn.kv_proj.weight", "model.action_expert.state_encoder.0.bias"],
)
def test_known_tensors_that_nothing_uses_are_ignored_with_a_notice(
    copy: Path, caplog: pytest.LogCaptureFixture, name: str
):
    expected = load_model(copy, SMALL)
    save_file({**load_file(copy / FILE), name: torch.zeros(3)}, copy / FILE)
    with caplog.at_level(logging.INFO):
        assert same_weights(load_model(copy, SMALL), expected)
    assert f"Ignoring 1 tensors that no MolmoAct2 network uses, such as {name}." in caplog.text


@pytest.mark.parametrize(
    "name", ["model.action_expert.blocks.0.cross_attn.kv_projection.weight", "action_expert.state_encoder.bias"]
)
def test_tensors_that_only_look_like_unused_ones_are_not_ignored(copy: Path, name: str):
    save_file({**load_file(copy / FILE), name: torch.zeros(3)}, copy / FILE)
    with pytest.raises(CheckpointError, match=f"1 unexpected .{name}"):
        load_model(copy, SMALL)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 500, 20_000, -1])
def test_truncated_files_are_refused(copy: Path, kept: int):
    content = (copy / FILE).read_bytes()
    (copy / FILE).write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors .*truncated"):
        load_model(copy, SMALL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" * 99, "not a safetensors file"),
        (struct.pack("<Q", 2**63) + b"{}", "not a safetensors file"),
        (with_header(b"\xff\xfe{}"), "not a safetensors file"),
        (with_header(b'{"a": '), "not a safetensors file"),
        (with_header(b"[" * 100_000), "not a safetensors file"),
        (with_header([1, 2]), "not a safetensors file"),
        (with_header({"a": 3}), "not a safetensors file"),
        (with_header({"a": {"dtype": "F32"}}), "not a safetensors file"),
        (with_header({"a": entry(data_offsets=[0])}, bytes(24)), "not a safetensors file"),
        (with_header({"a": entry(data_offsets=[0, 8, 24])}, bytes(24)), "not a safetensors file"),
        (with_header({"a": entry(data_offsets=[0.0, 24.0])}, bytes(24)), "not a safetensors file"),
        (with_header({"a": entry(data_offsets="ab")}, bytes(24)), "not a safetensors file"),
        (with_header({"a": entry(shape=[2, "3"])}, bytes(24)), "not a safetensors file"),
        (with_header({"a": entry(shape=[2, 3.0])}, bytes(24)), "not a safetensors file"),
        (with_header({"a": entry(shape=[-2, -3])}, bytes(24)), "not a safetensors file"),
        (with_header({"a": entry(dtype=["F32"])}, bytes(24)), "not a safetensors file"),
        (with_header({"a": entry(dtype="I8")}, bytes(24)), "dtype I8; allowed: F64, F32, F16, BF16"),
        (with_header({"a": entry(shape=[2, 4])}, bytes(24)), r"shape \[2, 4\] claims 24 bytes"),
        (with_header({"a": entry(data_offsets=[24, 0])}, bytes(24)), "claims -24 bytes"),
        (with_header({"a": entry(data_offsets=[-24, 0])}, bytes(24)), "claims 24 bytes"),
        (with_header({"a": entry()}, bytes(23)), "truncated"),
    ],
    ids=lambda value: repr(value[:60]),
)
def test_files_that_cannot_be_are_refused_by_name(tmp_path: Path, content: bytes, message: str):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"model\.safetensors.*{message}"):
        read_header(tmp_path / FILE)


@given(content=st.binary(max_size=40), header=st.binary(max_size=60), is_framed=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_refused_as_a_checkpoint_error(tmp_path: Path, content: bytes, header: bytes, is_framed: bool):
    (tmp_path / FILE).write_bytes(with_header(header, content) if is_framed else content)
    with pytest.raises(CheckpointError):
        assert list_tensors(tmp_path)


@given(position=st.integers(8, 4000), byte=st.integers(0, 255))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_is_refused_or_names_what_does_not_fit(copy: Path, position: int, byte: int):
    """A byte may also turn into another number or letter, and give a tensor another name or shape."""
    content = bytearray((copy / FILE).read_bytes())
    (copy / "damaged").mkdir(exist_ok=True)
    content[position] = byte
    (copy / "damaged" / FILE).write_bytes(content)
    try:
        load_model(copy / "damaged", SMALL)
    except CheckpointError:
        return
    damaged = list_tensors(copy / "damaged")
    assert {name: stored.shape for name, stored in damaged.items()} == {
        name: stored.shape for name, stored in list_tensors(copy).items()
    }


def test_a_missing_shard_is_named(copy: Path):
    split_into_shards(copy, 3)
    (copy / "model-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names the shard model-00001\.safetensors, which is missing"):
        load_model(copy, SMALL)


def test_a_truncated_shard_is_named(copy: Path):
    split_into_shards(copy, 3)
    shard = copy / "model-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model-00002\.safetensors is truncated"):
        load_model(copy, SMALL)


def test_a_shard_with_other_tensors_than_the_index_says_is_refused(copy: Path):
    weight_map = split_into_shards(copy, 2)
    weight_map[NORM] = next(shard for shard in weight_map.values() if shard != weight_map[NORM])
    write_index(copy, weight_map)
    with pytest.raises(CheckpointError, match=f"does not hold what {INDEX} says: .*{NORM}"):
        load_model(copy, SMALL)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 5])
def test_an_index_that_names_files_outside_is_refused(copy: Path, shard: object):
    (copy / FILE).rename(copy.parent / FILE)
    write_index(copy, dict.fromkeys(load_file(copy.parent / FILE), shard))
    with pytest.raises(CheckpointError, match=r"files outside its folder|which is missing"):
        load_model(copy, SMALL)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": ["b"]}}', "[" * 100_000, "\xff"],
    ids=lambda content: content[:40],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, content: str):
    (tmp_path / INDEX).write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"index\.json is not a safetensors index"):
        list_tensors(tmp_path)


def test_a_folder_without_weights_is_no_checkpoint(tmp_path: Path):
    with pytest.raises(CheckpointError, match=f"neither {FILE} nor {INDEX}"):
        list_tensors(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_noticed(copy: Path):
    stored = list_tensors(copy)[NORM]
    (copy / FILE).write_bytes((copy / FILE).read_bytes()[: stored.offset + 1])
    with pytest.raises(CheckpointError, match="ended early"):
        weights._read(stored, torch.device("cpu"), torch.float32)
