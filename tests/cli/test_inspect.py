"""`molmoact2 inspect`: what is said about a checkpoint, and that its weights stay unread."""

import json
import shutil
import struct
import time
from pathlib import Path

import pytest

from molmoact2.cli.inspect import describe
from molmoact2.cli.main import main


@pytest.mark.parametrize(
    ("name", "kind", "actions"),
    [
        ("tiny", "robot policy", ("continuous", "discrete")),
        ("tiny-think", "Think robot policy", ("continuous", "discrete")),
        ("tiny-discrete", "pretrained model", ("discrete",)),
    ],
)
def test_kind_and_ways_to_act(golden: Path, name: str, kind: str, actions: tuple[str, ...]):
    description = describe(golden / name)
    assert description.kind.startswith(kind)
    assert description.actions == actions


def test_robots_are_described_in_the_order_the_network_sees_them(golden: Path):
    arm, wide = describe(golden / "tiny").robots
    assert (arm.tag, arm.cameras, arm.action_horizon, arm.n_action_steps) == ("toy_arm", ("front", "wrist"), 6, 4)
    assert arm.state_names == ("shoulder_pan.pos", "shoulder_lift.pos", "elbow_flex.pos", "wrist.pos", "gripper.pos")
    assert (wide.control_mode, len(wide.state_names), len(wide.action_names)) == ("delta end-effector pose", 7, 8)
    assert arm.normalization == "q01_q99"


def test_every_number_of_the_weights_is_counted_once(golden: Path):
    description = describe(golden / "tiny-think")
    header = read_header(golden / "tiny-think" / "model.safetensors")
    stored = sum((entry["data_offsets"][1] - entry["data_offsets"][0]) // 4 for entry in header.values())
    assert sum(description.parameters.values()) + description.ignored_parameters == stored
    assert list(description.parameters) == ["embeddings", "text", "vision", "connector", "depth gate", "action expert"]
    assert description.memory_bytes["float32"] == 2 * description.memory_bytes["bfloat16"]


def test_shards_are_counted_together(golden: Path, tmp_path: Path):
    whole = describe(golden / "tiny")
    split_into_shards(golden / "tiny", tmp_path)
    assert describe(tmp_path).parameters == whole.parameters


def test_weights_are_not_read(golden: Path, tmp_path: Path):
    """Eight gigabytes of hole, which would take seconds to read."""
    shutil.copytree(golden / "tiny", tmp_path, dirs_exist_ok=True)
    shape = [2**20, 2**11]
    header = {"lm_head.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 2**33]}}
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 2**33)
    start = time.perf_counter()
    assert describe(tmp_path).parameters == {"embeddings": 2**31}
    assert time.perf_counter() - start < 1.0


def test_json_says_the_same(golden: Path, capsys: pytest.CaptureFixture[str]):
    main(["inspect", str(golden / "tiny"), "--json"])
    printed = json.loads(capsys.readouterr().out)
    description = describe(golden / "tiny")
    assert printed["kind"] == description.kind
    assert printed["parameters"] == description.parameters
    assert [robot["tag"] for robot in printed["robots"]] == ["toy_arm", "toy_wide"]


def test_tables_name_robots_parts_and_precisions(golden: Path, capsys: pytest.CaptureFixture[str]):
    main(["inspect", str(golden / "tiny-think")])
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("toy_arm", "front, wrist", "depth gate", "bfloat16", "plans 6", "executes 4")
    )


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(tmp_path)])
    assert stop.value.code == 2
    assert "config.json" in capsys.readouterr().err


def test_truncated_weights_are_refused(golden: Path, tmp_path: Path):
    shutil.copytree(golden / "tiny", tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes((golden / "tiny" / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(ValueError, match="truncated"):
        describe(tmp_path)


def read_header(file: Path) -> dict:
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    header.pop("__metadata__", None)
    return header


def split_into_shards(source: Path, target: Path) -> None:
    """Copy a checkpoint, its weights in two shards with an index."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model.safetensors"))
    tensors = load_file(source / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, target / shard)
        weight_map |= dict.fromkeys(part, shard)
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
