"""What a stopped run needs to continue as if it had never stopped: tensors in safetensors, the rest in JSON.

A checkpoint is one folder that appears whole; only the newest is kept.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from molmoact2.training.optimizer import MovingAverage

TENSORS, PROGRESS = "state.safetensors", "progress.json"


def save_checkpoint(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    average: MovingAverage,
    progress: Mapping[str, Any],
) -> None:
    """Write `folder/step-N`, then remove older ones; `progress` holds at least `step`."""
    tensors = {f"{name}.{key}": p.data for name, module in modules.items() for key, p in module.named_parameters()}
    tensors |= {f"average.{key}": tensor for key, tensor in average.average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{progress['step']:07d}"
    temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / TENSORS)
    (temporary / PROGRESS).write_text(json.dumps({**progress, "average_updates": average.updates}), encoding="utf-8")
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    if final.exists():
        shutil.rmtree(final)
    os.replace(temporary, final)
    for old in folder.iterdir():
        if old != final:
            shutil.rmtree(old)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, None if there is none."""
    return max(folder.glob("step-*"), default=None)


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """The JSON part.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        return json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{checkpoint} is damaged ({error}). Delete it to start from an older one.") from error


def load_checkpoint(
    checkpoint: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, average: MovingAverage
) -> None:
    """Bring everything to the state that was saved.

    Raises:
        ValueError: the file is damaged or belongs to another network.
    """
    try:
        tensors = load_file(checkpoint / TENSORS)
        for name, module in modules.items():
            module.load_state_dict(_part(tensors, name), strict=False)
            if missing := [key for key, _ in module.named_parameters() if f"{name}.{key}" not in tensors]:
                raise KeyError(missing[0])
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise ValueError(f"{checkpoint} is damaged or of another network ({error}).") from error
    average.average = _part(tensors, "average")
    average.updates = read_progress(checkpoint)["average_updates"]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimizer").items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
