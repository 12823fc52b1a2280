"""What every test runs under: checked tensor shapes, one thread, repeatable properties, and where the goldens are.

One thread, because the networks in tests are tiny: threads that wait for each other are slower than one.
"""

from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

TENSOR_CODE = ("molmoact2.model", "molmoact2.processing", "molmoact2.depth", "molmoact2.training")
"""Where every annotated shape is checked at run time, in tests only; elsewhere users are answered with a ValueError."""

jaxtyping.install_import_hook(TENSOR_CODE, "beartype.beartype")

torch.set_num_threads(1)
hypothesis.settings.register_profile("house", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("house")

HERE = Path(__file__).parent
GOLDENS = (HERE / "golden", HERE.parents[1] / "shared" / "golden")
"""Copies that the project carries, and the originals beside a checkout."""


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the small released-format checkpoints with recorded inputs and outputs."""
    for folder in GOLDENS:
        if folder.is_dir():
            return folder
    pytest.skip(f"no golden checkpoints: neither {GOLDENS[0]} nor {GOLDENS[1]} is there")
