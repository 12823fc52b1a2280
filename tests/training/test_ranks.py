"""A run is the same however its steps are cut into passes, packed into rows, and shared out over ranks.

float32 sums in another order. Measured after four steps that move weights by up to 4e-3: losses differ by 2e-6 of their
values, weights by 2e-6 (an adapter's two matrices multiplied) and 7e-7 (all others).
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from ranks_run import CONFIGS, other_half
from safetensors.torch import load_file
from small_run import small_start

HERE = Path(__file__).parent
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SAME_LOSS, SAME_WEIGHT = 1e-5, 5e-6
NOT_COMPARED = {"examples_per_s", "stage"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one process has run everything."""
    return finished([sys.executable], tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def together(alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have run everything, and have continued what one had begun."""
    folder = tmp_path_factory.mktemp("together")
    shutil.copytree(alone / "half", folder / "other half")
    return finished(TORCHRUN, folder)


def finished(python: Sequence[str], folder: Path) -> Path:
    command = [*python, str(HERE / "ranks_run.py"), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def assert_same_run(found: Path, expected: Path):
    logs = [[json.loads(line) for line in (path / "metrics.jsonl").open()] for path in (found, expected)]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    for mine, other in zip(*logs, strict=True):
        assert mine.keys() == other.keys()
        for name in mine.keys() - NOT_COMPARED:
            assert mine[name] == pytest.approx(other[name], rel=SAME_LOSS, abs=1e-7), f"{name} of step {mine['step']}"
    weights = [load_file(path / "checkpoint" / "model.safetensors") for path in (found, expected)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        torch.testing.assert_close(
            tensor, weights[1][name], rtol=0, atol=SAME_WEIGHT, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_weights_have_moved_further_than_they_are_compared(alone: Path):
    start = small_start().model
    trained = load_file(alone / "plain" / "checkpoint" / "model.safetensors")["model.transformer.wte.embedding"]
    assert (trained - start.text.embedding).abs().max() > 100 * SAME_WEIGHT


@pytest.mark.parametrize("name", ["one by one", "packed", "recomputed"])
def test_cutting_and_packing_change_nothing(alone: Path, name: str):
    assert_same_run(alone / name, alone / "plain")


def test_insulation_changes_the_decoder(alone: Path):
    """So that the comparisons here can fail."""
    with pytest.raises(AssertionError):
        assert_same_run(alone / "insulated", alone / "plain")


@pytest.mark.parametrize("name", CONFIGS)
def test_two_ranks_are_one(together: Path, alone: Path, name: str):
    assert_same_run(together / name, alone / name)


def test_two_ranks_continue_what_one_has_begun(together: Path, alone: Path):
    assert_same_run(together / "other half", alone / "packed")


def test_one_continues_what_two_ranks_have_begun(together: Path, alone: Path, tmp_path: Path):
    shutil.copytree(together / "half", tmp_path / "other half")
    other_half(tmp_path)
    assert_same_run(tmp_path / "other half", alone / "packed")


def test_a_step_without_anything_to_learn_leaves_the_losses_out(alone: Path):
    for line in (alone / "nothing to say" / "metrics.jsonl").open():
        assert {"language", "z"} <= json.loads(line).keys()
        assert not {"flow", "place", "named"} & json.loads(line).keys()


def test_a_loss_that_is_not_finite_is_blamed_on_its_example(together: Path, alone: Path):
    first, second, only = [
        json.loads((folder / f"said-{rank}.json").read_text())["blame"]
        for folder, rank in ((together, 0), (together, 1), (alone, 0))
    ]
    assert "the loss of words 2 is not finite" in first
    assert "no single example's loss is to blame on this rank" in second
    assert only == first
