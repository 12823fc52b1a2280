"""Datasets by where they are: a folder, or a dataset of the Hugging Face hub by its id."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from molmoact2.data.errors import require
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.rlds import is_rlds

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
DOWNLOADED = ("meta/*", "data/*", "videos/*")


def open_dataset(source: str | Path, *, revision: str | None = None) -> LeRobotDataset:
    """Open a LeRobot dataset of version 3.0 or 2.1.

    Args:
        source: a folder, or a hub id such as "lerobot/pusht", which is downloaded (once) and kept in the hub's cache.
        revision: branch, tag or commit of a hub id; the newest of the main branch by default.

    Raises:
        ValueError: when there is no such dataset, or it is damaged or contradicts itself.
    """
    folder = locate_dataset(source, revision)
    fix = f"Convert it first: molmoact2 data convert {source} OUTPUT"
    require(not is_rlds(folder), f"{source} holds RLDS data, which is not read frame by frame. {fix}")
    return LeRobotDataset(folder)


def locate_dataset(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a dataset, after downloading what has a hub id."""
    folder = Path(source)
    if folder.is_dir():
        require(revision is None, f"A revision is for hub ids, but {source} is a folder here.")
        return folder
    is_id = HUB_ID.fullmatch(str(source)) is not None
    require(is_id, f"{source} is neither a folder nor a hub id such as 'lerobot/pusht'.")
    try:
        folder = snapshot_download(str(source), repo_type="dataset", revision=revision, allow_patterns=list(DOWNLOADED))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{source} is no folder here, and the hub could not give the dataset {source} at "
            f"{revision or 'its newest revision'}: {error}"
        ) from error
    return Path(folder)
