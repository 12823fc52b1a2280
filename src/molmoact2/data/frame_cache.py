"""All images of a dataset, decoded once to memory-mapped files, so that training reads random frames at memory speed.

A cache lives in a folder named after a fingerprint of the dataset and of what was asked for, which appears only when it
is complete. When the dataset changes, the fingerprint does, and a new cache is made; old folders may be deleted at any
time.
"""

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress

from molmoact2.data.errors import require
from molmoact2.data.files import INFO_PATH, STATS_PATH
from molmoact2.data.reader import LeRobotDataset


def decode_frames(
    dataset: LeRobotDataset,
    cache_dir: str | Path,
    *,
    size: tuple[int, int] | None = None,
    episodes: Sequence[int] | None = None,
    show_progress: bool = True,
) -> dict[str, NDArray[np.uint8]]:
    """Return camera -> images [frames, height, width, 3], read-only memory maps.

    The first call decodes all video into `cache_dir`, which takes frames * height * width * 3 bytes per camera; later
    calls open the files.

    Args:
        dataset: an open dataset.
        cache_dir: folder of all caches.
        size: (height, width) that images are scaled to, exactly as a policy's processor scales them; None keeps theirs.
        episodes: episodes to decode, in ascending order. Row `i` is then the i-th frame of these; of all of them, when
            None, so that row `i` is the image of `dataset.frame(i)`.
        show_progress: show a bar while decoding.

    Raises:
        ValueError: there is nothing to decode, a video is damaged, or the disk has no room.
    """
    kept = range(len(dataset.episodes)) if episodes is None else list(episodes)
    require(list(kept) == sorted(set(kept)), f"Episodes must be distinct and in ascending order, got {kept}.")
    require(len(dataset) > 0, f"{dataset.root} has no finished episodes yet, so there is nothing to decode.")
    require(len(kept) > 0, f"There are no episodes of {dataset.root} to decode.")
    last = len(dataset.episodes) - 1
    require(kept[0] >= 0 and kept[-1] <= last, f"There is no episode {kept[-1]}; the dataset has 0 to {last}.")
    folder = Path(cache_dir) / "-".join(["frames", fingerprint(dataset.root), *_variant(size, episodes)])
    if not folder.is_dir():
        _build(dataset, folder, size, kept, show_progress)
    return {camera: np.load(folder / f"{camera}.npy", mmap_mode="r") for camera in dataset.cameras}


def _variant(size: tuple[int, int] | None, episodes: Sequence[int] | None) -> list[str]:
    """What tells a cache from the one of all images as they are."""
    sizes = [f"{size[0]}x{size[1]}"] if size is not None else []
    chosen = [hashlib.sha256(repr(list(episodes)).encode()).hexdigest()[:8]] if episodes is not None else []
    return sizes + chosen


def fingerprint(root: Path) -> str:
    """16 hex digits that change with what `info.json` or `stats.json` say, and with the size of any other file."""
    digest = hashlib.sha256()
    for path in (root / INFO_PATH, root / STATS_PATH):
        digest.update(path.read_bytes() if path.exists() else b"")
    for path in sorted(path for folder in ("meta/episodes", "data", "videos") for path in (root / folder).rglob("*.*")):
        digest.update(f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def _build(
    dataset: LeRobotDataset, folder: Path, size: tuple[int, int] | None, episodes: Sequence[int], show_progress: bool
) -> None:
    """Decode everything beside `folder`, then move it into place."""
    num_frames = sum(dataset.episodes[index].length for index in episodes)
    shapes = {camera: (num_frames, *(size or dataset.image_size(camera)), 3) for camera in dataset.cameras}
    folder.parent.mkdir(parents=True, exist_ok=True)
    needed, free = sum(map(math.prod, shapes.values())), shutil.disk_usage(folder.parent).free
    require(
        needed < free,
        f"The decoded frames of {dataset.root} take {decimal(needed)}, but {folder.parent} has {decimal(free)} left. "
        "Choose another cache folder, a smaller image size, or fewer episodes.",
    )
    temporary = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        frames = {
            camera: np.lib.format.open_memmap(temporary / f"{camera}.npy", "w+", np.uint8, shape)
            for camera, shape in shapes.items()
        }
        with Progress(console=Console(stderr=True), transient=True, disable=not show_progress) as progress:
            what = f"Decoding {dataset.root.name}"
            for row, frame in enumerate(progress.track(dataset.stream(episodes), num_frames, description=what)):
                for camera, image in frame.images.items():
                    frames[camera][row] = _scaled(image, size)
        for images in frames.values():
            images.flush()
        if not folder.is_dir():
            os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _scaled(image: NDArray[np.uint8], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    from molmoact2.processing.images import resize  # brings torch, which a recording does without

    return image if size is None else resize(image, size)
