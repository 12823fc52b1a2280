"""A run that is killed at any moment loses the steps since its last checkpoint, and ends in the same bits."""

import json
import subprocess
import sys
import time
from pathlib import Path

from interrupted_run import CHECKPOINT_EVERY, config

from molmoact2.training.checkpoint import latest_checkpoint

SCRIPT = Path(__file__).parent / "interrupted_run.py"
PATIENCE_S = 240


def logged(folder: Path) -> list[int]:
    """Steps in the log, but for a line that is not whole."""
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def step_of(checkpoint: Path | None) -> int:
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))


def wait_for_step(folder: Path, step: int) -> None:
    began = time.monotonic()
    while step_of(latest_checkpoint(folder / "checkpoints")) < step:
        assert time.monotonic() - began < PATIENCE_S, "no checkpoint came"
        time.sleep(0.003)


def test_a_killed_run_continues_as_if_it_had_not_been(tmp_path: Path):
    whole, parts, num_steps = tmp_path / "whole", tmp_path / "parts", config().num_steps
    process = subprocess.Popen([sys.executable, SCRIPT, tmp_path, "whole", "parts"], stderr=subprocess.DEVNULL)
    try:
        wait_for_step(parts, 4 * CHECKPOINT_EVERY)
    finally:
        process.kill()
    assert process.wait() == -9
    last = step_of(latest_checkpoint(parts / "checkpoints"))
    assert max(logged(parts)) - CHECKPOINT_EVERY <= last < num_steps, "it was killed in the middle"
    subprocess.run([sys.executable, SCRIPT, tmp_path, "parts"], check=True, stderr=subprocess.DEVNULL)
    assert logged(parts) == logged(whole) == list(range(1, num_steps + 1))
    found, expected = (latest_checkpoint(folder / "checkpoints") for folder in (parts, whole))
    assert found is not None
    assert expected is not None
    assert step_of(found) == step_of(expected) == num_steps
    files = sorted(path.name for path in expected.iterdir())
    assert len(files) == 6
    assert files == sorted(path.name for path in found.iterdir())
    for name in files:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert [path.name for path in (parts / "checkpoints").iterdir()] == [found.name], "nothing half-written is left"
