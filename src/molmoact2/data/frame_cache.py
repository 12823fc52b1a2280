"""All images of a dataset, decoded once to memory-mapped files, so that training reads random frames at memory speed.

A cache lives in a folder named after a fingerprint of the dataset, which appears only when it is complete. When the
dataset changes, the fingerprint does, and a new cache is made; old folders may be deleted at any time.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from molmoact2.data.errors import require
from molmoact2.data.files import INFO_PATH, STATS_PATH
from molmoact2.data.reader import LeRobotDataset


def decode_frames(
    dataset: LeRobotDataset, cache_dir: str | Path, *, show_progress: bool = True
) -> dict[str, NDArray[np.uint8]]:
    """Return camera -> images [frames, height, width, 3] of the whole dataset, read-only memory maps.

    Row `i` is the image of `dataset.frame(i)`. The first call decodes all video into `cache_dir`, which takes
    frames * height * width * 3 bytes per camera; later calls open the files.
    """
    require(len(dataset) > 0, f"{dataset.root} has no finished episodes yet, so there is nothing to decode.")
    folder = Path(cache_dir) / f"frames-{fingerprint(dataset.root)}"
    if not folder.is_dir():
        _build(dataset, folder, show_progress)
    return {camera: np.load(folder / f"{camera}.npy", mmap_mode="r") for camera in dataset.cameras}


def fingerprint(root: Path) -> str:
    """16 hex digits that change with what `info.json` or `stats.json` say, and with the size of any other file."""
    digest = hashlib.sha256()
    for path in (root / INFO_PATH, root / STATS_PATH):
        digest.update(path.read_bytes() if path.exists() else b"")
    for path in sorted(path for folder in ("meta/episodes", "data", "videos") for path in (root / folder).rglob("*.*")):
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def _build(dataset: LeRobotDataset, folder: Path, show_progress: bool) -> None:
    """Decode everything beside `folder`, then move it into place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        with Progress(console=Console(stderr=True), transient=True, disable=not show_progress) as progress:
            for camera in dataset.cameras:
                progress_id = progress.add_task(f"Decoding {camera}", total=len(dataset))
                shape = (len(dataset), *dataset.image_size(camera), 3)
                frames = np.lib.format.open_memmap(temporary / f"{camera}.npy", "w+", np.uint8, shape)
                for record in dataset.episodes:
                    images = dataset.episode_images(record.episode_index, camera)
                    frames[record.from_index : record.to_index] = images
                    progress.advance(progress_id, record.length)
                frames.flush()
        if not folder.is_dir():
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
