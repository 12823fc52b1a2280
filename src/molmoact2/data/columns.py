"""The numeric columns of a LeRobot dataset: `data/`, parquet files of a row per frame, a row group per episode.

A column of one number per frame is stored plainly, a vector as a fixed-size list.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from molmoact2.data.episodes import EpisodeRecord
from molmoact2.data.errors import expect
from molmoact2.data.files import Shard, read_table
from molmoact2.data.metadata import is_numeric


def data_table(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Build the table of one episode from arrays [T] or [T, d]."""
    return pa.table({name: _to_arrow(array) for name, array in columns.items()})


def read_columns(root: Path, info: Mapping[str, Any], records: Sequence[EpisodeRecord]) -> dict[str, NDArray[Any]]:
    """Read all numeric columns into memory: name -> [frames] or [frames, d], in the order of `index`."""
    features = {name: feature for name, feature in info["features"].items() if is_numeric(feature)}
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in features}
    for path, table in read_shards(root, info["data_path"], records, columns=features.keys()):
        for name, feature in features.items():
            parts[name].append(_to_numpy(path, name, table, feature))
    columns = {
        name: np.concatenate(parts[name]) if parts[name] else np.zeros((0, *_row_shape(feature)), feature["dtype"])
        for name, feature in features.items()
    }
    starts = np.repeat([record.from_index for record in records], [record.length for record in records])
    for name, expected in (("index", np.arange(len(starts))), ("frame_index", np.arange(len(starts)) - starts)):
        is_right = np.array_equal(columns[name], expected)
        expect(is_right, root / "data", f"the column {name!r} does not count the frames")
    return columns


def read_shards(
    root: Path, data_path: str, records: Sequence[EpisodeRecord], *, columns: Collection[str] | None = None
) -> Iterator[tuple[Path, pa.Table]]:
    """Read the data files that `records` name, in order; of each file the rows of these episodes only."""
    for shard, members in groupby(records, key=lambda record: record.data_shard):
        yield read_shard(root, data_path, shard, list(members), columns=columns)


def read_shard(
    root: Path,
    data_path: str,
    shard: Shard,
    records: Sequence[EpisodeRecord],
    *,
    columns: Collection[str] | None = None,
) -> tuple[Path, pa.Table]:
    """Read the rows of `records` from one data file; returns its path and the rows, episode after episode.

    Of the columns, all that are there or those among `columns`, which must have "episode_index" in it.
    """
    path = root / shard.path(data_path)
    table = read_table(path, columns=columns)
    expect("episode_index" in table.column_names, path, "the column 'episode_index' is missing")
    wanted = np.array([record.episode_index for record in records])
    found = table["episode_index"].to_numpy()
    kept = np.isin(found, wanted)
    is_right = np.array_equal(found[kept], np.repeat(wanted, [record.length for record in records]))
    problem = f"its rows are not those of the episodes {wanted[0]} to {wanted[-1]} as meta/episodes counts them"
    expect(is_right, path, problem)
    return path, table if kept.all() else table.filter(pa.array(kept))


def _row_shape(feature: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tuple(feature["shape"])
    return () if shape == (1,) else shape


def _to_arrow(array: NDArray[Any]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    width = array.size // len(array)
    return flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)


def _to_numpy(path: Path, name: str, table: pa.Table, feature: Mapping[str, Any]) -> NDArray[Any]:
    """One column as an array, after checking that it has the type and shape of its feature."""
    expect(name in table.column_names, path, f"the column {name!r} is missing")
    column, is_even = table[name].combine_chunks(), True
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        is_even &= len(pc.call_function("list_value_length", [column]).unique()) < 2
        column = column.flatten()
    shape = (table.num_rows, *_row_shape(feature))
    values = column.to_numpy(zero_copy_only=False)
    fits = is_even and not column.null_count and values.size == np.prod(shape)
    problem = f"the column {name!r} is not {feature['dtype']} of shape {list(shape)}: {table[name].type}"
    expect(fits and np.can_cast(values.dtype, feature["dtype"], "same_kind"), path, problem)
    return values.reshape(shape).astype(feature["dtype"], copy=False)
