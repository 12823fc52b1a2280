"""Weights on disk: released names <-> ours, streamed reading, atomic writing.

Files are read with plain `readinto` in pieces instead of a memory map: mapped pages would count as the process's
memory, and a float32 release is twice the size of the bfloat16 network that is made from it.
"""

import json
import logging
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from molmoact2.model.config import ModelConfig
from molmoact2.model.molmoact2 import MolmoAct2

logger = logging.getLogger(__name__)

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000
PIECE_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 100 * 2**20
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip

# For each of our towers: its released prefix, and our name of each part -> the released one.
TOWERS: dict[str, tuple[str, dict[str, str]]] = {
    "vision.": (
        "model.vision_backbone.image_vit.",
        {
            "blocks.": "transformer.resblocks.",
            "attention.query.": "attention.wq.",
            "attention.key.": "attention.wk.",
            "attention.value.": "attention.wv.",
            "attention.out.": "attention.wo.",
            "mlp.up.": "feed_forward.w1.",
            "mlp.down.": "feed_forward.w2.",
            "mlp_norm.": "ffn_norm.",
        },
    ),
    "connector.": (
        "model.vision_backbone.",
        {
            "pooling.query.": "image_pooling_2d.wq.",
            "pooling.key.": "image_pooling_2d.wk.",
            "pooling.value.": "image_pooling_2d.wv.",
            "pooling.out.": "image_pooling_2d.wo.",
            "projector.gate.": "image_projector.w1.",
            "projector.down.": "image_projector.w2.",
            "projector.up.": "image_projector.w3.",
        },
    ),
    "text.": (
        "model.transformer.",
        {
            "embedding": "wte.embedding",
            "new_embedding": "wte.new_embedding",
            "norm.": "ln_f.",
            "attention_norm.": "attn_norm.",
            "mlp_norm.": "ff_norm.",
            "attention.qkv.": "self_attn.att_proj.",
            "attention.out.": "self_attn.attn_out.",
            "attention.query_norm.": "self_attn.q_norm.",
            "attention.key_norm.": "self_attn.k_norm.",
            "mlp.up_gate.": "mlp.ff_proj.",
            "mlp.down.": "mlp.ff_out.",
        },
    ),
    "action_expert.": (
        "model.action_expert.",
        {
            "time_embedding.inner.": "time_embed.1.",
            "time_embedding.outer.": "time_embed.3.",
            "action_embedding.": "action_embed.",
            "context_key.": "context_k_proj.",
            "context_value.": "context_v_proj.",
            "self_attention.qkv.": "self_attn.qkv.",
            "self_attention.out.": "self_attn.out_proj.",
            "cross_attention.query.": "cross_attn.q_proj.",
            "cross_attention.out.": "cross_attn.out_proj.",
            "mlp.up.": "mlp.up_proj.",
            "mlp.gate.": "mlp.gate_proj.",
            "mlp.down.": "mlp.down_proj.",
            "modulation.": "modulation.linear.",
            "final_modulation.": "final_layer.modulation.linear.",
            "velocity_out.": "final_layer.linear.",
        },
    ),
    "depth_gate.": ("model.action_expert_depth_gate.", {}),
    "lm_head.": ("lm_head.", {}),
}
RECOMPUTED = "model.transformer.rotary_emb.inv_freq"
"""Not read; written, because the releases have it and other loaders ask for it."""
UNUSED = re.compile(r"model\.action_expert\.(blocks\.\d+\.cross_attn\.kv_proj|state_encoder)\..+")


class CheckpointError(ValueError):
    """Weights that are not those of the network their config describes."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies on disk."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    """First byte in the file."""

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)


def released_name(name: str) -> str:
    """The released name of one of our parameters, such as `text.norm.weight`."""
    tower, part = re.fullmatch(r"(\w+\.)(.+)", name).groups()  # type: ignore[union-attr]  # all of ours have a tower
    prefix, parts = TOWERS[tower]
    for ours, theirs in parts.items():
        part = re.sub(rf"(^|\.){re.escape(ours)}", rf"\g<1>{theirs}", part)
    return prefix + part


def list_tensors(directory: Path) -> dict[str, StoredTensor]:
    """Every stored tensor of a checkpoint by its released name, from file headers alone.

    Raises:
        CheckpointError: no weights, a shard is missing, or a file is truncated or not safetensors.
    """
    index = directory / INDEX_FILE
    if (directory / SINGLE_FILE).is_file():
        return read_header(directory / SINGLE_FILE)
    if not index.is_file():
        raise CheckpointError(f"{directory} holds neither {SINGLE_FILE} nor {INDEX_FILE}: not a checkpoint.")
    tensors: dict[str, StoredTensor] = {}
    shards = _shard_names(index)
    for shard, names in shards.items():
        if not (directory / shard).is_file():
            raise CheckpointError(f"{index} names the shard {shard}, which is missing. Download it again.")
        header = read_header(directory / shard)
        if set(header) != names:
            raise CheckpointError(f"{shard} does not hold what {INDEX_FILE} says: {sorted(set(header) ^ names)[:5]}.")
        tensors |= header
    return tensors


def _shard_names(index: Path) -> dict[str, set[str]]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            shards.setdefault(shard, set()).add(name)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a safetensors index: {error!r}.") from error
    if unsafe := [shard for shard in shards if Path(str(shard)).name != shard]:
        raise CheckpointError(f"{index} names files outside its folder: {unsafe[:3]}.")
    return shards


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file.

    Raises:
        CheckpointError: the file is truncated, not safetensors, or holds a dtype that is not floating point.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(f"{path} is not a safetensors file, or is truncated ({size} bytes).")
            entries = json.loads(file.read(length))
        tensors = {name: _stored(path, entry, 8 + length, size) for name, entry in entries.items()
                   if name != "__metadata__"}  # fmt: skip
    except (struct.error, json.JSONDecodeError, UnicodeDecodeError, RecursionError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file, or is truncated: {error!r}.") from error
    return tensors


def _stored(path: Path, entry: object, data_start: int, file_size: int) -> StoredTensor:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(stop)]} if all(
            type(size) is int and size >= 0 for size in shape
        ):
            pass
        case _:
            raise CheckpointError(f"{path} is not a safetensors file: {entry!r} describes no tensor.")
    if dtype not in DTYPES:
        raise CheckpointError(f"{path} holds a tensor of dtype {dtype}; allowed: {', '.join(DTYPES)}.")
    stored = StoredTensor(path=path, dtype=DTYPES[dtype], shape=tuple(shape), offset=data_start + start)
    if not 0 <= start <= stop or stop - start != stored.num_elements * stored.dtype.itemsize:
        raise CheckpointError(f"{path}: a tensor of shape {list(stored.shape)} claims {stop - start} bytes.")
    if data_start + stop > file_size:
        raise CheckpointError(f"{path} is truncated: {file_size} bytes, but its header speaks of {data_start + stop}.")
    return stored


def load_model(
    directory: Path, config: ModelConfig, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> MolmoAct2:
    """The network of `config` with the checkpoint's weights, each converted to `dtype` as it is read; for use as it is.

    Raises:
        CheckpointError: tensors are missing, unexpected or misshapen; all of them are named before any is read.
    """
    with torch.device("meta"):
        model = MolmoAct2(config)
    stored = list_tensors(directory)
    wanted = {released: ours for ours, released in released_names(model).items()}
    _check_names(directory, stored, wanted, model)
    parameters = {
        ours: torch.nn.Parameter(_read(stored[name], torch.device(device), dtype))
        for name, ours in wanted.items()
        if name in stored
    }
    model.load_state_dict(parameters, strict=False, assign=True)
    if config.text_config.tie_word_embeddings:
        model.lm_head.weight = model.text.embedding
    return model.eval().requires_grad_(False)


def released_names(model: MolmoAct2) -> dict[str, str]:
    """Our parameter name -> released name, for every parameter that a checkpoint stores."""
    names = {name: released_name(name) for name, _ in model.named_parameters()}
    if not model.config.action_expert_depth_gate_per_layer:
        names = {ours: name.replace("_depth_gate.0.", "_depth_gate.") for ours, name in names.items()}
    return names


def _check_names(
    directory: Path, stored: Mapping[str, StoredTensor], wanted: Mapping[str, str], model: MolmoAct2
) -> None:
    tied = {"lm_head.weight"} if model.config.text_config.tie_word_embeddings else set()
    unused = sorted(name for name in stored if UNUSED.fullmatch(name))
    missing = sorted(set(wanted) - set(stored))
    unexpected = sorted(set(stored) - set(wanted) - set(unused) - tied - {RECOMPUTED})
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    misshapen = [f"{name} is {list(stored[name].shape)}, must be {list(shapes[ours])}"
                 for name, ours in wanted.items() if name in stored and stored[name].shape != shapes[ours]]  # fmt: skip
    problems = [
        f"{len(found)} {kind} ({'; '.join(found[:5])}{'; …' if len(found) > 5 else ''})"
        for kind, found in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen))
        if found
    ]
    if problems:
        raise CheckpointError(f"The tensors in {directory} do not fit its config.json: {', '.join(problems)}.")
    if unused:
        logger.info("Ignoring %d tensors that no MolmoAct2 network uses, such as %s.", len(unused), unused[0])


def _read(stored: StoredTensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    target = torch.empty(stored.num_elements, dtype=dtype, device=device)
    piece = PIECE_BYTES // stored.dtype.itemsize
    buffer = torch.empty(min(piece, max(stored.num_elements, 1)), dtype=stored.dtype)
    with stored.path.open("rb") as file:
        file.seek(stored.offset)
        for start in range(0, stored.num_elements, piece):
            part = buffer[: min(piece, stored.num_elements - start)]
            if file.readinto(part.view(torch.uint8).numpy()) != part.nbytes:  # pyright: ignore[reportArgumentType]
                raise CheckpointError(f"{stored.path} ended early; it changed while it was read.")
            target[start : start + len(part)] = part
    return target.view(stored.shape)


def save_model(model: MolmoAct2, directory: Path) -> None:
    """Write the weights under their released names, in shards of at most 5 GB as the releases do.

    The caller provides an empty directory and publishes it; nothing is overwritten here.
    """
    parameters = dict(model.named_parameters())
    tensors = {released: parameters[ours].detach().contiguous() for ours, released in released_names(model).items()}
    if model.config.text_config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.transformer.wte.embedding"].clone()
    text = model.config.text_config
    exponents = torch.arange(0, text.head_dim, 2, dtype=torch.float32) / text.head_dim
    tensors[RECOMPUTED] = 1.0 / text.rope_theta**exponents
    shards = list(_shards(tensors))
    if len(shards) == 1:
        _write(shards[0], directory / SINGLE_FILE)
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(shard, directory / name)
        weight_map |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (directory / INDEX_FILE).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors leaves it to its owner alone; a checkpoint is shared like the files beside it


def _shards(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    for name in sorted(tensors):
        if shard and sum(t.nbytes for t in shard.values()) + tensors[name].nbytes > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensors[name]
    yield shard
