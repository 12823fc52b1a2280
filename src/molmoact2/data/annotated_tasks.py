"""New instructions for the episodes of a dataset, as training reads them (training.md E.6).

    meta/tasks_annotated.parquet     episode_index (the index), task      the new instruction of an episode
    meta/task_to_episode.parquet     task_index, episode_index            which episodes were recorded for a task

An episode without a row has no new instruction: its recorded one stands. The text `ALL_FROZEN` says that no camera of
the episode shows anything happen, so that there is nothing to learn from it.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from molmoact2.data.errors import expect, malformed, require
from molmoact2.data.files import read_table, write_table

ANNOTATIONS_PATH = "meta/tasks_annotated.parquet"
TASK_EPISODES_PATH = "meta/task_to_episode.parquet"
ALL_FROZEN = "<ALL FROZEN FRAMES>"
"""In place of an instruction: training passes over the episode."""
REWRITE = "Write it again with `molmoact2 data annotate`, or remove it."


def read_annotations(root: str | Path) -> dict[int, str]:
    """Episode index -> new instruction, or `ALL_FROZEN`; only of the episodes that have one.

    Raises:
        ValueError: naming the file, when it is missing, damaged, or not rows of distinct episodes with a text each.
    """
    path = Path(root) / ANNOTATIONS_PATH
    table = _with_index(read_table(path), path)
    has_both = {"episode_index", "task"} <= set(table.column_names)
    expect(has_both, path, f"it has the columns {table.column_names}, not episode_index and task", REWRITE)
    episodes, texts = table["episode_index"].to_pylist(), table["task"].to_pylist()
    are_episodes = all(type(index) is int and index >= 0 for index in episodes) and len(set(episodes)) == len(episodes)
    expect(are_episodes, path, "its rows are not distinct episodes, numbered from 0", REWRITE)
    empty = [index for index, text in zip(episodes, texts, strict=True) if type(text) is not str or not text.strip()]
    expect(not empty, path, f"the episodes {empty[:10]} have a row without a text", REWRITE)
    return dict(zip(episodes, texts, strict=True))


def read_task_episodes(root: str | Path) -> dict[int, NDArray[np.int64]]:
    """Task index -> its episodes in ascending order, from `meta/task_to_episode.parquet`.

    Raises:
        ValueError: naming the file, when it is missing, damaged, or not rows of two numbers from 0 on.
    """
    path = Path(root) / TASK_EPISODES_PATH
    table = read_table(path)
    columns = [table[name] for name in ("task_index", "episode_index") if name in table.column_names]
    are_counts = len(columns) == 2 and all(pa.types.is_integer(c.type) and c.null_count == 0 for c in columns)
    expect(are_counts, path, "it does not hold whole numbers named task_index and episode_index", REWRITE)
    pairs = np.unique(np.column_stack([column.to_numpy() for column in columns]).astype(np.int64), axis=0)
    expect(bool((pairs >= 0).all()), path, "it holds negative numbers", REWRITE)
    tasks, starts = np.unique(pairs[:, 0], return_index=True)
    return dict(zip(tasks.tolist(), np.split(pairs[:, 1], starts[1:]), strict=False))  # no rows still split into one


def write_annotations(
    root: str | Path, annotations: Mapping[int, str], *, task_index: ArrayLike, episode_index: ArrayLike
) -> None:
    """Write both files, each of them atomically; nothing else of the dataset is touched.

    Args:
        root: folder of the dataset.
        annotations: episode index -> new instruction, or `ALL_FROZEN`.
        task_index: [frames] the columns of the dataset, from which the episodes of each task are found.
        episode_index: [frames].

    Raises:
        ValueError: an annotation of an episode that is not there, or without words.
    """
    pairs = np.unique(np.column_stack([task_index, episode_index]).astype(np.int64), axis=0)
    unknown = sorted(annotations.keys() - set(pairs[:, 1].tolist()))
    require(not unknown, f"{root} has no episodes {unknown[:10]}, which have annotations.")
    empty = sorted(index for index, text in annotations.items() if not text.strip())
    require(not empty, f"The annotations of the episodes {empty[:10]} are empty. Leave such episodes out.")
    episodes = sorted(annotations)
    texts = pa.table(
        {
            "task": pa.array([annotations[index] for index in episodes], pa.string()),
            "episode_index": pa.array(episodes, pa.int64()),
        }
    )
    pools = pa.table({"task_index": pairs[:, 0], "episode_index": pairs[:, 1]})
    write_table(Path(root) / TASK_EPISODES_PATH, [pools])
    write_table(Path(root) / ANNOTATIONS_PATH, [texts.replace_schema_metadata({"pandas": json.dumps(PANDAS)})])


PANDAS = {
    "index_columns": ["episode_index"],
    "column_indexes": [],
    "columns": [
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        {
            "name": "episode_index",
            "field_name": "episode_index",
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
    ],
    "creator": {"library": "pyarrow", "version": pa.__version__},
    "pandas_version": "2.2.0",
}
"""Tells pandas that the episode index is the index."""


def _with_index(table: pa.Table, path: Path) -> pa.Table:
    """The table with its index as a column: pandas stores an index that is a range of numbers as that range only."""
    try:
        described = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
        ranges = [index for index in described.get("index_columns", []) if isinstance(index, dict)]
        numbers = {index["name"]: range(index["start"], index["stop"], index["step"]) for index in ranges}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise malformed(path, f"what it tells pandas about its index cannot be read ({error!r})", REWRITE) from error
    for name, values in numbers.items():
        expect(len(values) == table.num_rows, path, f"its index {name!r} is not as long as its columns", REWRITE)
        table = table.append_column(str(name), pa.array(values, pa.int64()))
    return table
