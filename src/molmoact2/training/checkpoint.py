"""What a stopped run needs to continue as if it had never stopped, on any number of ranks.

    checkpoints/step-0000500/
        parameters-00000-of-00002.safetensors      each rank's pieces (training/pieces.py), the same for
        average-…  exp_avg-…  exp_avg_sq-…  step-…  the moving average and for each kind of optimiser state
        progress.json                              the rest

A checkpoint appears whole: all ranks write into a hidden folder, and when every file is on the disk it is renamed. All
ranks must see the same folder. Only what learns is stored. What is frozen is not: it comes from where the run started,
and a checksum tells whether that is still the same.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from molmoact2.data.errors import require
from molmoact2.data.files import flush_to_disk
from molmoact2.training.optimizer import MovingAverage
from molmoact2.training.parallel import ALONE, World, local
from molmoact2.training.pieces import StoredTensor, opened_pieces, read_into, write_pieces

PARAMETERS, AVERAGE, AVERAGED = "parameters", "average", "model"
PROGRESS, STORED = "progress.json", "stored"
WRITING, REMOVING, REPLACED = ".writing-", ".removing-", ".replaced"


def save_checkpoint(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    average: MovingAverage,
    progress: Mapping[str, Any],
    *,
    world: World = ALONE,
    keep: int = 1,
) -> None:
    """Write `folder/step-N` and leave the newest `keep` checkpoints; `progress` holds at least `step`.

    All ranks must call it. The one of `modules` that is called "model" is the one `average` is of.

    Raises:
        OSError: the disk is full, for example; on every rank, and earlier checkpoints are as they were.
    """
    final = folder / f"step-{progress['step']:07d}"
    temporary = folder / f"{WRITING}{final.name}"
    kinds = _by_kind(modules, optimizer, average)
    stored = {
        "average_updates": average.updates,
        "files": [_file_name(kind, rank, world.size) for kind in kinds for rank in range(world.size)],
        "frozen": checksum(modules, world),
    }

    def write() -> None:
        for kind, tensors in kinds.items():
            path = temporary / _file_name(kind, world.rank, world.size)
            write_pieces(path, tensors, world)
            flush_to_disk(path)

    try:
        world.main_does(lambda: _begin(temporary))
        world.together(write)
        world.main_does(lambda: _publish(temporary, final, {**progress, STORED: stored}))
    finally:
        if world.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
    world.main_does(lambda: _prune(final, keep))


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
    checkpoint: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    average: MovingAverage,
    *,
    world: World = ALONE,
) -> None:
    """Bring everything to the state that was saved, on however many ranks it was. All ranks must call it.

    Raises:
        ValueError: a file is damaged, or this is of another network, of other trained parts, or of a run that started
            from other weights. In a run of one process nothing has changed then.
    """
    frozen = checksum(modules, world)
    world.together(lambda: _load(checkpoint, modules, optimizer, average, frozen))


def _load(
    checkpoint: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    average: MovingAverage,
    frozen: int,
) -> None:
    try:
        about = read_progress(checkpoint)[STORED]
        paths, updates, stored_frozen = about["files"], about["average_updates"], about["frozen"]
        paths = [checkpoint / name for name in paths]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{checkpoint} is damaged, or of another version of this program ({error!r}).") from error
    with opened_pieces(paths) as stored:
        learning = _learning(modules)
        state = _empty_state(stored, learning)
        targets = _named(learning, average)
        targets |= {f"{kind}.{name}": tensor for name, of in state.items() for kind, tensor in of.items()}
        _refuse_others(checkpoint, stored, targets)
        have_others = f"{checkpoint} is of a run with other frozen weights. Start from those it started from."
        require(frozen == stored_frozen, have_others)
        for name, target in targets.items():
            read_into(name, stored[name], target)
    average.updates = updates
    numbers = {index: state[name] for index, name in enumerate(_optimized(learning, optimizer)) if name in state}
    optimizer.load_state_dict({"state": numbers, "param_groups": optimizer.state_dict()["param_groups"]})


def checksum(modules: Mapping[str, nn.Module], world: World = ALONE) -> int:
    """A number that tells frozen weights from others, the same on any number of ranks: the sum of their half-words."""
    frozen = (p for module in modules.values() for p in module.parameters() if not p.requires_grad and world.owns(p))
    halves = (local(parameter).detach().flatten().view(torch.int16) for parameter in frozen)
    return int(world.sum(torch.tensor(sum(int(half.sum(dtype=torch.int64)) for half in halves))))


def _learning(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    """Every parameter that learns, by its module's name and its own."""
    return {
        f"{module_name}.{name}": parameter
        for module_name, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def _named(learning: Mapping[str, nn.Parameter], average: MovingAverage) -> dict[str, Tensor]:
    """Parameters and their moving averages, by their names on disk."""
    averages = {
        f"{AVERAGE}.{AVERAGED}.{name}": tensor
        for name, tensor in average.average.items()
        if f"{AVERAGED}.{name}" in learning
    }
    for name, tensor in averages.items():
        assert tensor.shape == learning[name.removeprefix(f"{AVERAGE}.")].shape, f"{name} is not laid out as it should"
    return {**{f"{PARAMETERS}.{name}": parameter.data for name, parameter in learning.items()}, **averages}


def _optimized(learning: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the optimiser's parameters, in its order."""
    names = {id(parameter): name for name, parameter in learning.items()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _by_kind(
    modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, average: MovingAverage
) -> dict[str, dict[str, Tensor]]:
    """Everything that is stored, by kind and by name on disk."""
    learning = _learning(modules)
    tensors = _named(learning, average)
    state = optimizer.state_dict()["state"]
    for index, name in enumerate(_optimized(learning, optimizer)):
        tensors |= {f"{kind}.{name}": value for kind, value in state.get(index, {}).items()}
    kinds: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kinds.setdefault(name.split(".")[0], {})[name] = tensor
    return kinds


def _empty_state(
    stored: Mapping[str, StoredTensor], learning: Mapping[str, nn.Parameter]
) -> dict[str, dict[str, Tensor]]:
    """Room for the stored optimiser state: sharded like its parameter where it has the same shape."""
    state: dict[str, dict[str, Tensor]] = {}
    keys = ((tensor, *full_name.split(".", 1)) for full_name, tensor in stored.items())
    for tensor, kind, name in ((t, k, n) for t, k, n in keys if k not in (PARAMETERS, AVERAGE) and n in learning):
        parameter = learning[name].detach()
        is_alike = tensor.shape == tuple(parameter.shape)
        state.setdefault(name, {})[kind] = torch.zeros_like(parameter) if is_alike else torch.zeros(tensor.shape)
    return state


def _refuse_others(checkpoint: Path, stored: Mapping[str, StoredTensor], targets: Mapping[str, Tensor]) -> None:
    different = sorted(stored.keys() ^ targets.keys())
    different += [name for name in stored.keys() & targets.keys() if stored[name].shape != tuple(targets[name].shape)]
    require(
        not different,
        f"{checkpoint} is of another network, or other parts of it were trained: {len(different)} tensors differ, such "
        f"as {different[:1]}. Use the settings of that run, or another output folder.",
    )


def _file_name(kind: str, rank: int, size: int) -> str:
    return f"{kind}-{rank:05d}-of-{size:05d}.safetensors"


def _begin(temporary: Path) -> None:
    """Clear away what stopped runs have left, and make the hidden folder."""
    temporary.parent.mkdir(parents=True, exist_ok=True)
    for prefix in (WRITING, REMOVING):
        for leftover in temporary.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover)
    temporary.mkdir()


def _publish(temporary: Path, final: Path, progress: Mapping[str, Any]) -> None:
    """Give the finished folder its name. At every moment the newest name in the folder is a complete checkpoint."""
    path = temporary / PROGRESS
    path.write_text(json.dumps(progress), encoding="utf-8")
    flush_to_disk(path)
    flush_to_disk(temporary)
    if final.exists():
        replaced = final.with_name(final.name + REPLACED)
        _remove([replaced])
        os.replace(final, replaced)
    os.replace(temporary, final)
    flush_to_disk(final.parent)


def _prune(final: Path, keep: int) -> None:
    """Remove all but `final` and the newest before it; later ones are of a course that was given up."""
    earlier = sorted(path for path in final.parent.glob("step-*") if path.name < final.name)
    kept = {final, *earlier[len(earlier) - keep + 1 :]}
    _remove(set(final.parent.glob("step-*")) - kept)


def _remove(checkpoints: Iterable[Path]) -> None:
    """Remove those that exist; none of them is ever seen half removed."""
    for old in (path for path in checkpoints if path.exists()):
        hidden = old.with_name(REMOVING + old.name)
        os.replace(old, hidden)
        shutil.rmtree(hidden)
