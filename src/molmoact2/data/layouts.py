"""Where each known version of LeRobot keeps the table of episodes, the instructions and the statistics.

All else (the columns, the pictures, the checks) is read by the same code for every version.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from molmoact2.data.episodes import EpisodesTable, read_episodes
from molmoact2.data.files import STATS_PATH, TASKS_PATH
from molmoact2.data.legacy import (
    TASKS_LINES,
    pooled_statistics,
    read_old_episodes,
    read_old_image_statistics,
    read_old_tasks,
)
from molmoact2.data.metadata import OLD_VERSION, VERSION, read_statistics, read_tasks
from molmoact2.data.statistics import Statistics, image_statistics

Info: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one version lists what a dataset holds."""

    read_episodes: Callable[[Path, Info], EpisodesTable]
    """Where every episode is."""
    read_tasks: Callable[[Path], dict[int, str]]
    """Task index -> instruction."""
    tasks_path: str
    """The file that these are in."""
    read_statistics: Callable[[Path, Info, EpisodesTable], dict[str, Statistics]]
    """Statistics that are stored and cover all frames; those of columns may be left to be computed."""


def _stored_statistics(root: Path, info: Info, table: EpisodesTable) -> dict[str, Statistics]:
    """Those of stats.json; where an interrupted recording of ours left that behind, only those of the pixels."""
    if table.histograms is None:
        return read_statistics(root)
    stored = read_statistics(root) if (root / STATS_PATH).exists() else {}
    if stored and stored["index"]["count"].tolist() == [info["total_frames"]]:
        return stored
    return {key: image_statistics(counts, info["total_frames"]) for key, counts in table.histograms.items()}


LAYOUTS = {
    VERSION: Layout(
        read_episodes=read_episodes,
        read_tasks=read_tasks,
        tasks_path=TASKS_PATH,
        read_statistics=_stored_statistics,
    ),
    OLD_VERSION: Layout(
        read_episodes=read_old_episodes,
        read_tasks=read_old_tasks,
        tasks_path=TASKS_LINES,
        read_statistics=lambda root, info, _table: pooled_statistics(read_old_image_statistics(root, info)),
    ),
}
"""`codebase_version` -> its layout."""
