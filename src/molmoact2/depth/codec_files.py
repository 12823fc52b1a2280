"""A depth codec on disk: a folder of ours, `config.json` and `model.safetensors`, or the published `.pt` file.

The published file was not at hand when this was written. Its tensors are told apart by order and shape, as in
training.md G; whatever does not fit exactly one way is refused.
"""

import hashlib
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from molmoact2.depth.codec_config import CodecConfig
from molmoact2.depth.codec_network import CodecNetwork
from molmoact2.tokens.reading import parse_json, require

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
PUBLISHED_KEY = "weights"
"""Where the published file holds its tensors."""
PARTS = ("encoder.", "decoder.")
CODEBOOK = "codebook.vectors"
EPSILON = 1e-5
"""Of the codebook's moving averages, in the reference."""


def write_folder(folder: Path, config: CodecConfig, weights: Mapping[str, Tensor]) -> None:
    """Write a codec's folder; it appears whole or not at all, and must not exist before, or be empty."""
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    require(is_free, f"{folder} exists already. Choose a new folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(folder) as fresh:
        (fresh / CONFIG_FILE).write_text(json.dumps(config.as_json(), indent=2), encoding="utf-8")
        write_tensors(fresh / WEIGHTS_FILE, weights, {"format": "pt"})
        flush(fresh / CONFIG_FILE)
        flush(fresh)
        os.replace(fresh, folder)
    flush(folder.parent)


@contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, removed at the end unless it was renamed."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    fresh.chmod(0o755)
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: dict[str, str]) -> None:
    """Write a safetensors file; it appears whole or not at all, and replaces one that was there before."""
    temporary = path.with_name(path.name + ".tmp")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, metadata=notes)
    temporary.chmod(0o644)
    flush(temporary)
    os.replace(temporary, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a directory, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; ValueError, naming it, when it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a safetensors file, or was cut off: {error}") from error


def read_folder(folder: Path) -> tuple[CodecConfig, dict[str, Tensor]]:
    """Config and weights of a codec's folder; ValueError, naming the file, for anything missing or malformed."""
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    require(not missing, f"{folder} is no depth codec: it lacks {' and '.join(missing)}.")
    config_path = folder / CONFIG_FILE
    config = CodecConfig.from_json(parse_json(config_path.read_bytes(), str(config_path)), str(config_path))
    return config, fitting(read_tensors(folder / WEIGHTS_FILE), config, folder / WEIGHTS_FILE)


def fitting(weights: Mapping[str, Tensor], config: CodecConfig, where: Path) -> dict[str, Tensor]:
    """The weights as float32; ValueError unless they are exactly those of `config`'s network, all finite."""
    shapes = shapes_of(config)
    different = sorted(shapes.keys() ^ weights.keys())
    different += [name for name in shapes.keys() & weights.keys() if shapes[name] != tuple(weights[name].shape)]
    require(
        not different,
        f"{where} does not fit its {CONFIG_FILE}: {len(different)} tensors differ, such as {different[:3]}.",
    )
    bad = [name for name, tensor in weights.items() if not (tensor.is_floating_point() and tensor.isfinite().all())]
    require(not bad, f"{where} has tensors that are not finite floating-point numbers: {bad[:3]}.")
    return {name: tensor.float() for name, tensor in weights.items()}


def shapes_of(config: CodecConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a codec's network, in order."""
    with torch.device("meta"):
        network = CodecNetwork(config.channels, config.code_dim, config.num_codes)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def digest(config: CodecConfig, weights: Mapping[str, Tensor]) -> str:
    """A name that two codecs share when they give the same codes and maps: 16 hexadecimal digits."""
    summary = hashlib.sha256(json.dumps(config.as_json(), sort_keys=True).encode())
    for name in sorted(weights):
        summary.update(name.encode())
        summary.update(weights[name].detach().float().cpu().contiguous().numpy().tobytes())
    return summary.hexdigest()[:16]


def read_published(path: Path) -> tuple[CodecConfig, dict[str, Tensor]]:
    """Config and weights of the published file: `{"weights": {name: tensor}}`, the reference's sizes.

    Only tensors and plain containers are unpacked, nothing that a file could make run. ValueError, naming what was
    found, unless the tensors can be told apart in exactly one way.
    """
    config = CodecConfig()
    tensors = _published_tensors(path)
    shapes = shapes_of(config)
    rest = list(tensors)
    weights: dict[str, Tensor] = {}
    for part in PARTS:
        wanted = {name: shape for name, shape in shapes.items() if name.startswith(part)}
        names = _find(path, part, list(wanted.values()), {name: tuple(tensors[name].shape) for name in rest}, tensors)
        weights |= {ours: tensors[theirs] for ours, theirs in zip(wanted, names, strict=True)}
        rest = [name for name in rest if name not in names]
    weights[CODEBOOK] = _find_codebook(path, {name: tensors[name] for name in rest}, config)
    return config, fitting({name: weights[name] for name in shapes}, config, path)


def _published_tensors(path: Path) -> dict[str, Tensor]:
    try:
        document: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not a file of tensors that torch can read safely: {error}") from error
    is_right = isinstance(document, dict) and isinstance(document.get(PUBLISHED_KEY), Mapping)
    found = sorted(map(str, document))[:5] if isinstance(document, dict) else type(document).__name__
    require(is_right, f"{path} must hold a dictionary with {PUBLISHED_KEY!r}: name -> tensor; found {found}.")
    tensors = document[PUBLISHED_KEY]
    strange = [name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)]
    require(not strange, f"{path}: these of {PUBLISHED_KEY!r} are not tensors: {strange[:5]}.")
    return dict(tensors)


def _find(
    path: Path,
    part: str,
    wanted: list[tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    all_: Mapping[str, Tensor],
) -> list[str]:
    """Names of the one run of neighbouring tensors that has the wanted shapes."""
    names, sizes = list(shapes), list(shapes.values())
    starts = [start for start in range(len(names)) if sizes[start : start + len(wanted)] == wanted]
    require(
        len(starts) == 1,
        f"{path}: the {part.rstrip('.')} is a run of {len(wanted)} tensors from {wanted[0]} to {wanted[-2]} "
        f"(training.md G); {len(starts)} such runs were found in {describe(all_)}.",
    )
    return names[starts[0] : starts[0] + len(wanted)]


def _find_codebook(path: Path, rest: Mapping[str, Tensor], config: CodecConfig) -> Tensor:
    """The codebook among what is neither encoder nor decoder: at most the vectors, their sums and their counts."""
    size = (config.num_codes, config.code_dim)
    tables = {name: _as_table(tensor, size) for name, tensor in rest.items() if tensor.numel() == size[0] * size[1]}
    counts = [tensor.flatten() for tensor in rest.values() if tensor.numel() == size[0]]
    others = [name for name, tensor in rest.items() if tensor.numel() not in (1, size[0], size[0] * size[1])]
    found = describe(rest)
    require(not others, f"{path}: beside encoder and decoder there should be the codebook only, found {found}.")
    is_alone = len(tables) == 1
    is_averaged = len(tables) == 2 and len(counts) == 1
    require(
        is_alone or is_averaged,
        f"{path}: the codebook should be one tensor {size}, or two and their {size[0]} counts; found {found}.",
    )
    vectors = [name for name in tables if is_alone or _are_means(tables, name, counts[0])]
    require(
        len(vectors) == 1,
        f"{path}: which of {', '.join(tables)} are the vectors cannot be told: neither or both are the other divided "
        "by the counts.",
    )
    return tables[vectors[0]]


def _as_table(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """Vectors as rows, whatever dimensions of 1 come before, and whichever way they lie."""
    flat = tensor.reshape(tensor.shape[-2:])
    return flat.T if tuple(flat.shape) == size[::-1] else flat


def _are_means(tables: Mapping[str, Tensor], name: str, counts: Tensor) -> bool:
    """Whether these vectors are the other table's sums over the smoothed counts."""
    (sums,) = (table for other, table in tables.items() if other != name)
    total = counts.sum()
    smoothed = (counts + EPSILON) / (total + len(counts) * EPSILON) * total
    return torch.allclose(tables[name], sums / smoothed[:, None], rtol=1e-3, atol=1e-5)


def describe(tensors: Mapping[str, Tensor]) -> str:
    """Names and shapes, the first and the last of many."""
    each = [f"{name} {list(tensor.shape)}" for name, tensor in tensors.items()]
    return f"{len(each)} tensors: " + "; ".join(each if len(each) <= 8 else [*each[:4], "…", *each[-4:]])
