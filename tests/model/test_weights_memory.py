"""Loading takes the memory of the weights in their new dtype and little more, however large the file.

A process of its own loads 400 MB of float32 into 200 MB of bfloat16 and reports its peak. The file is sparse: its zeros
take no room on the disk, but have to be read like any others.
"""

import json
import struct
import subprocess
import sys
from pathlib import Path

import torch

from molmoact2.model.config import ModelConfig, config_as_json
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.model.weights import SINGLE_FILE, released_names
from small_networks import small_config

LARGE = small_config(text_config={"vocab_size": 1_560_000}, image_patch_id=1_560_000)
"""Two tables of 1.56 M rows of 32 channels: 400 MB in float32."""
BOUND_BYTES = 120 * 2**20
"""One piece of 64 MiB that is read at a time, the allocator's leftovers, and the code that loading imports."""

LOAD = """
import json, resource, sys
from pathlib import Path
import torch
from molmoact2.model.config import read_config
from molmoact2.model.weights import load_model

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

directory, before = Path(sys.argv[1]), peak()
model = load_model(directory, read_config(json.loads((directory / "config.json").read_text())), dtype=torch.bfloat16)
print(peak() - before, sum(parameter.nbytes for parameter in model.parameters()))
"""


def write_zeros(directory: Path, config: ModelConfig) -> int:
    """Write a float32 checkpoint of zeros; return its size."""
    with torch.device("meta"):
        model = MolmoAct2(config)
    names, header, end = released_names(model), {}, 0
    for name, parameter in model.named_parameters():
        begin, end = end, end + 4 * parameter.numel()
        header[names[name]] = {"dtype": "F32", "shape": list(parameter.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (directory / SINGLE_FILE).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    (directory / "config.json").write_text(json.dumps(config_as_json(config)))
    return end


def test_peak_memory_is_that_of_the_weights(tmp_path: Path):
    stored_bytes = write_zeros(tmp_path, LARGE)
    command = [sys.executable, "-c", LOAD, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    growth, loaded_bytes = map(int, result.stdout.split())
    assert stored_bytes > 390e6
    assert 2 * loaded_bytes == stored_bytes
    assert growth < loaded_bytes + BOUND_BYTES
