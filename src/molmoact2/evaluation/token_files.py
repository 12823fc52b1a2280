"""Files of action chunks and of token ids, as `molmoact2 tokenizer encode` and `decode` read and write them."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from molmoact2.data.errors import expect, malformed, require
from molmoact2.data.files import written_atomically
from molmoact2.tokens.reading import parse_json, read_field, read_list

CHUNK_FILES = (".npy", ".npz")
LINE = 'Write a line {"ids": [...], "horizon": 15, "action_dim": 6} per chunk.'


def read_chunks(path: Path) -> Float[np.ndarray, "b h a"]:
    """The chunks in an .npy file, or in an .npz file that holds nothing else.

    Raises:
        ValueError: naming the file, when it is missing or damaged, or holds something else.
    """
    require(path.suffix in CHUNK_FILES, f"{path} must be a file of chunks, {' or '.join(CHUNK_FILES)}.")
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = [loaded] if isinstance(loaded, np.ndarray) else [loaded[name] for name in loaded.files]
    except FileNotFoundError as error:
        raise malformed(path, "the file is missing", "Check the path.") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise malformed(path, f"it is no readable numpy file ({error})", "Save the chunks again.") from error
    found = ", ".join(f"{array.dtype} {list(array.shape)}" for array in arrays)
    are_chunks = [array for array in arrays if array.dtype.kind == "f" and array.ndim == 3 and array.size]
    expect(
        len(arrays) == len(are_chunks) == 1,
        path,
        f"it holds {found or 'nothing'}",
        "Save one array of floating-point numbers, [chunks, horizon, action_dim].",
    )
    return arrays[0]


def write_token_lists(path: Path, batches: Iterable[tuple[list[Int[np.ndarray, " n"]], int, int]]) -> tuple[int, int]:
    """Write the token ids of batches of chunks with their horizon and width, a line of JSON per chunk, atomically.

    Returns the number of chunks and of tokens.
    """
    require(path.suffix == ".jsonl", f"The file of token ids must end in .jsonl, got {path}.")
    num_chunks = num_tokens = 0
    with written_atomically(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for token_ids, horizon, action_dim in batches:
            lines = ({"ids": ids.tolist(), "horizon": horizon, "action_dim": action_dim} for ids in token_ids)
            file.writelines(json.dumps(line) + "\n" for line in lines)
            num_chunks += len(token_ids)
            num_tokens += sum(map(len, token_ids))
    return num_chunks, num_tokens


def read_token_lists(path: Path) -> tuple[list[Int[np.ndarray, " n"]], int, int]:
    """Token ids of each chunk, and the horizon and width that all of them have.

    Raises:
        ValueError: naming the file and line, when it is missing or malformed, or the chunks differ in shape.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise malformed(path, "the file is missing", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise malformed(path, "it is not text", LINE) from error
    expect(bool(lines), path, "it is empty", LINE)
    token_ids: list[Int[np.ndarray, " n"]] = []
    shapes: set[tuple[int, int]] = set()
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        document = parse_json(line, where)
        ids = read_list(document, "ids", int, where)
        too_large = [token for token in ids if not -(2**63) <= token < 2**63]
        require(not too_large, f"{where}: {too_large[:1]} is no token id.")
        token_ids.append(np.array(ids, np.int64))
        shapes.add((read_field(document, "horizon", int, where), read_field(document, "action_dim", int, where)))
    expect(len(shapes) == 1, path, f"its chunks have the shapes {sorted(shapes)[:5]}", "Decode those of a shape alone.")
    horizon, action_dim = shapes.pop()
    expect(min(horizon, action_dim) > 0, path, f"its chunks have the shape [{horizon}, {action_dim}]", LINE)
    return token_ids, horizon, action_dim


def write_chunks(path: Path, chunks: Float[np.ndarray, "b h a"], is_valid: Bool[np.ndarray, " b"]) -> None:
    """Write chunks to an .npy file, or chunks and mask to an .npz file, atomically."""
    with written_atomically(path) as temporary, temporary.open("wb") as file:
        match path.suffix:
            case ".npy":
                np.save(file, chunks)
            case ".npz":
                np.savez(file, chunks=chunks, is_valid=is_valid)
