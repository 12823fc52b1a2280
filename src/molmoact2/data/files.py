"""Names and safe writing of the files of a LeRobot v3.0 dataset.

A file appears whole or not at all: it is written beside its place under a `.tmp` name, flushed to the disk and renamed.
"""

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from molmoact2.data.errors import expect, malformed

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO_PATH = "meta/info.json"
STATS_PATH = "meta/stats.json"
TASKS_PATH = "meta/tasks.parquet"
FILES_PER_CHUNK = 1000
BYTES_PER_MB = 1024**2
TEMPORARY_SUFFIX = ".tmp"


class Shard(NamedTuple):
    """Which of the numbered files of one kind holds something; sorts in the order of the dataset."""

    chunk_index: int
    file_index: int

    def next(self) -> "Shard":
        """The shard after this one."""
        chunks, file_index = divmod(self.file_index + 1, FILES_PER_CHUNK)
        return Shard(self.chunk_index + chunks, file_index)

    def path(self, template: str, *, video_key: str = "") -> str:
        """Path of this shard inside the dataset, from one of the templates of this module or of `info.json`."""
        return template.format(chunk_index=self.chunk_index, file_index=self.file_index, video_key=video_key)


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; put it in the place of `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        yield temporary
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def template_is_usable(template: Any) -> bool:
    """Whether `Shard.path` can fill in a path template."""
    try:
        return bool(Shard(0, 0).path(template, video_key="camera"))
    except (AttributeError, KeyError, IndexError, ValueError):
        return False


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON, atomically."""
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError, naming the file, when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise malformed(path, "the file is missing", "Is this the root of a LeRobot v3.0 dataset?") from error
    except ValueError as error:
        raise malformed(path, f"it is not valid JSON ({error})") from error
    expect(isinstance(content, dict), path, f"it holds a JSON {type(content).__name__}, not an object")
    return content


def write_table(path: Path, tables: list[pa.Table]) -> None:
    """Write tables of one schema as one parquet file, a row group per table, atomically."""
    with (
        written_atomically(path) as temporary,
        pq.ParquetWriter(temporary, tables[0].schema, compression="snappy", use_dictionary=True) as writer,
    ):
        for table in tables:
            writer.write_table(table)


def read_table(path: Path, *, leave_out: str = "nothing/", columns: Collection[str] | None = None) -> pa.Table:
    """Read a parquet file, but for the columns whose names begin with `leave_out`; of `columns` those that are there.

    Raises ValueError, naming the file, when it is missing or damaged.
    """
    try:
        file = pq.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if not name.startswith(leave_out)]
        return file.read([name for name in names if columns is None or name in columns])
    except FileNotFoundError as error:
        raise malformed(path, "the file is missing") from error
    except (pa.ArrowException, OSError) as error:
        raise malformed(path, f"it was cut off or altered, and is no readable parquet file ({error})") from error


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a directory, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
