"""What has been done so far, on disk: one JSON line per episode, so that a run can be killed and continued.

    DIRECTORY/protocol.json     what is being done; a run with another protocol is refused
    DIRECTORY/episodes.jsonl    one line per finished episode, on disk before the next one counts

A line that was half written when the process died is dropped when the ledger is opened again.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

Record: TypeAlias = dict[str, Any]
"""What is noted about one episode; JSON."""

PROTOCOL_FILE = "protocol.json"
EPISODES_FILE = "episodes.jsonl"


class Ledger:
    """The finished episodes of one run, in the order in which they were noted. Open it with `open_ledger`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records = read_records(path)
        _drop_half_line(path)

    def append(self, record: Record) -> None:
        """Note one episode; it survives a crash once this returns."""
        line = json.dumps(record, allow_nan=False) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)

    def keep(self, records: list[Record]) -> None:
        """Replace all that was noted by `records`, at once."""
        text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
        write_whole(self.path, text)
        self.records = records


@contextmanager
def open_ledger(directory: Path, protocol: Mapping[str, Any]) -> Iterator[Ledger]:
    """Create or continue the ledger in `directory`; nobody else can have it open at the same time.

    Refuses, as a ValueError, a directory in which something else was done: the differing entries are named.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        _lock(lock.fileno(), directory)
        _check_protocol(directory / PROTOCOL_FILE, json.loads(json.dumps(protocol)))
        yield Ledger(directory / EPISODES_FILE)


def read_records(path: Path) -> list[Record]:
    """Return the complete lines of a ledger file; a file that is not there has none."""
    if not path.exists():
        return []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"Line {number} of {path} is not JSON ({error}). Remove the line, or the file.") from None
    return records


def read_protocol(directory: Path) -> dict[str, Any]:
    """Return the protocol of the run in `directory`."""
    path = directory / PROTOCOL_FILE
    if not path.exists():
        raise ValueError(f"{directory} holds no run: it has no {PROTOCOL_FILE}. Give the output directory of a run.")
    return json.loads(path.read_text(encoding="utf-8"))


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a crash leaves either the old content or the new, never a part."""
    draft = path.with_name(path.name + ".draft")
    data = content.encode("utf-8") if isinstance(content, str) else content
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _lock(file_descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(file_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"Another process is writing to {directory}. Wait for it, or choose another one.") from None


def _check_protocol(path: Path, protocol: dict[str, Any]) -> None:
    if not path.exists():
        write_whole(path, json.dumps(protocol, indent=2) + "\n")
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    differing = sorted(key for key in before.keys() | protocol.keys() if before.get(key) != protocol.get(key))
    if differing:
        changes = "; ".join(f"{key} was {before.get(key)!r}, is {protocol.get(key)!r}" for key in differing)
        raise ValueError(
            f"{path.parent} holds a run of another protocol: {changes}. "
            "Choose another output directory, or repeat the earlier settings to continue it."
        )


def _drop_half_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end != len(content):
        with path.open("r+b") as file:
            file.truncate(end)
