"""The benchmarks run, all of them by the one command that `make bench` gives; what they find out is not tested."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLES = (
    "stages", "matrix products", "computed once", "Images to patches", "Frames of a dataset", "Training examples",
    "The simulated arm", "Action chunks to tokens", "A training step", "Memory of a training step", "Packing",
    "The loader", "Real-time chunking", "what the server adds", "Many robots",
)  # fmt: skip


def test_every_table_is_printed():
    command = [sys.executable, "-m", "benchmarks", "--smoke", "--threads", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "1 threads" in result.stdout.splitlines()[0]
    for table in TABLES:
        assert table in result.stdout
