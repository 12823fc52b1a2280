"""Tensors on disk in pieces: each rank writes the rows it holds, and any number of ranks reads the rows it needs.

A file is plain safetensors. Its metadata says, for every tensor in it, which rows of which whole these are; a number
without a shape is kept as one row:

    {"exp_avg.model.text.norm.weight": {"first_row": 1280, "shape": [2560]}, ...}
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from molmoact2.data.errors import require
from molmoact2.training.parallel import World, local

ROWS = "rows"
"""Key of the metadata."""


def first_row(tensor: Tensor) -> int:
    """Which row of the whole is the first that this rank holds."""
    if not isinstance(tensor, DTensor):
        return 0
    assert tuple(tensor.placements) == (Shard(0),), f"only rows can be stored, not {tensor.placements}"
    per_rank = -(-tensor.shape[0] // tensor.device_mesh.size())
    return min(per_rank * tensor.device_mesh.get_local_rank(), tensor.shape[0])


def write_pieces(path: Path, tensors: Mapping[str, Tensor], world: World) -> None:
    """Write what this rank holds of `tensors`; of those that are not sharded the main rank writes all.

    Raises:
        OSError: the disk is full, for example.
    """
    owned = {name: tensor for name, tensor in tensors.items() if world.owns(tensor)}
    rows = {name: {"first_row": first_row(tensor), "shape": list(tensor.shape)} for name, tensor in owned.items()}
    pieces = {name: torch.atleast_1d(local(tensor)).detach().cpu().contiguous() for name, tensor in owned.items()}
    try:
        save_file(pieces, path, metadata={ROWS: json.dumps(rows)})
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some rows of a tensor in an open file."""

    file: Any
    """What `safe_open` gives, which has no type."""
    first_row: int
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A whole tensor, wherever its pieces are."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    """In the order of their rows."""

    @property
    def is_whole(self) -> bool:
        """Whether the pieces cover every row once."""
        ends = [0, *accumulate(piece.num_rows for piece in self.pieces)]
        follow = all(piece.first_row == end for piece, end in zip(self.pieces, ends, strict=False) if piece.num_rows)
        return follow and ends[-1] == (*self.shape, 1)[0]


@contextmanager
def opened_pieces(paths: Sequence[Path]) -> Iterator[dict[str, StoredTensor]]:
    """Every tensor in the files by name, from their headers alone, for as long as the block runs.

    Raises:
        ValueError: a file is missing, damaged or without its metadata, or rows of a tensor are missing.
    """
    with ExitStack() as stack:
        pieces: dict[str, list[Piece]] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for path in paths:
            try:
                file: Any = stack.enter_context(safe_open(path, framework="pt"))
                rows = json.loads(file.metadata()[ROWS])
                for name in file.keys():  # noqa: SIM118 - it is no dictionary
                    shapes[name] = tuple(rows[name]["shape"])
                    num_rows = file.get_slice(name).get_shape()[0]
                    pieces.setdefault(name, []).append(
                        Piece(file=file, first_row=rows[name]["first_row"], num_rows=num_rows)
                    )
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path} is missing or damaged ({error!r}).") from error
        stored = {
            name: StoredTensor(shape=shapes[name], pieces=tuple(sorted(found, key=lambda piece: piece.first_row)))
            for name, found in pieces.items()
        }
        torn = [name for name, tensor in stored.items() if not tensor.is_whole]
        require(not torn, f"{paths[0].parent} is damaged: rows of {len(torn)} tensors are missing, such as {torn[:1]}.")
        yield stored


@torch.no_grad()
def read_into(name: str, stored: StoredTensor, target: Tensor) -> None:
    """Fill what this rank holds of `target`, whatever number of ranks wrote the tensor."""
    own, first = torch.atleast_1d(local(target)), first_row(target)
    overlaps = [
        (piece, max(first, piece.first_row), min(first + len(own), piece.first_row + piece.num_rows))
        for piece in stored.pieces
    ]
    for piece, start, stop in (overlap for overlap in overlaps if overlap[1] < overlap[2]):
        rows = piece.file.get_slice(name)[start - piece.first_row : stop - piece.first_row]
        own[start - first : stop - first].copy_(rows)
