"""Rules about what the cameras saw, on a bounded sample of frames: blank, frozen, doubled or unreadable."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.quality.findings import Found, Place, Rule, Severity
from molmoact2.data.quality.material import Material, Sample

GRID = 16
"""Images are compared by the means of a grid of so many cells each way, which compression hardly changes."""
SMALLEST_CELL = 8
"""Pixels; small images have fewer cells."""
SAME_LEVELS = 1.5
"""Largest difference, in grey levels of 255, of cells that are the same."""
BLANK_LEVELS = 3.0
"""Largest standard deviation over a blank image, in grey levels."""
DARK_LEVELS = 16.0
LEAST_MOTION = 0.05
"""Of the distance from the 1st to the 99th percentile: how far a joint moves when the image should change."""
FEWEST_SAME = 3
"""Sampled frames in a row that must be the same before a camera counts as frozen."""


def cells(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[n, rows, columns] mean grey level of each cell of `images` [n, height, width, 3]."""
    grey = images.mean(axis=3, dtype=np.float32)
    rows, columns = (
        np.linspace(0, side, max(1, min(GRID, side // SMALLEST_CELL)) + 1).astype(int) for side in grey.shape[1:]
    )
    sums = np.add.reduceat(np.add.reduceat(grey, rows[:-1], axis=1), columns[:-1], axis=2)
    return sums / (np.diff(rows)[:, None] * np.diff(columns))


def unreadable(material: Material) -> Iterator[Found]:
    """Sampled frames that could not be decoded."""
    broken = [sample for sample in material.samples if sample.problem]
    if broken:
        places = tuple(Place(episode=sample.episode) for sample in broken)
        yield Found(measured=f"{len(broken)} of the sampled episodes: {broken[0].problem}", places=places)


def blank(material: Material) -> Iterator[Found]:
    """Images of one colour."""
    for camera, samples in by_camera(material).items():
        places, levels = [], []
        for sample in samples:
            grey = cells(sample.images)
            is_blank = grey.std(axis=(1, 2)) < BLANK_LEVELS
            levels += grey.mean(axis=(1, 2))[is_blank].tolist()
            places += [
                Place(episode=sample.episode, first_frame=int(f), last_frame=int(f), camera=camera)
                for f in sample.frames[is_blank]
            ]
        if places:
            total = sum(len(sample.frames) for sample in samples)
            colour = "black" if np.mean(levels) < DARK_LEVELS else f"of one grey level, {np.mean(levels):.0f} of 255"
            yield Found(
                measured=f"{camera}: {len(places)} of {total} sampled images are {colour}", places=tuple(places)
            )


def frozen(material: Material) -> Iterator[Found]:
    """Cameras whose image stays the same while the robot moves."""
    for camera, samples in by_camera(material).items():
        places = tuple(place for sample in samples for place in frozen_spans(material, sample))
        if places:
            which = f"{len({place.episode for place in places})} of {len(samples)} sampled episodes"
            yield Found(measured=f"{camera}: the image stands still in {which}", places=places)


def frozen_spans(material: Material, sample: Sample) -> Iterator[Place]:
    """Where `FEWEST_SAME` or more sampled images in a row are the same although the state changed between them."""
    grey = cells(sample.images)
    rows = material.starts[sample.episode] + sample.frames
    values = material.state.values[rows]
    is_blank = grey.std(axis=(1, 2)) < BLANK_LEVELS
    is_same = (np.abs(np.diff(grey, axis=0)).max(axis=(1, 2)) <= SAME_LEVELS) & ~(is_blank[1:] & is_blank[:-1])
    has_moved = np.any(np.abs(np.diff(values, axis=0)) > LEAST_MOTION * material.state.span, axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_same, [False]]).astype(int)))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        if end - first + 1 >= FEWEST_SAME and has_moved[first:end].any():
            yield Place(
                episode=sample.episode,
                first_frame=int(sample.frames[first]),
                last_frame=int(sample.frames[end]),
                camera=sample.camera,
            )


def twins(material: Material) -> Iterator[Found]:
    """Two cameras with the same image."""
    seen = {camera: {s.episode: cells(s.images) for s in samples} for camera, samples in by_camera(material).items()}
    for one, other in combinations(seen, 2):
        pairs = [(seen[one][episode], seen[other][episode]) for episode in seen[one].keys() & seen[other].keys()]
        telling = [(a, b) for a, b in pairs if a.std() > BLANK_LEVELS]
        if telling and all(a.shape == b.shape and np.abs(a - b).max() <= SAME_LEVELS for a, b in telling):
            measured = f"{one} and {other} show the same in all {len(telling)} sampled episodes"
            yield Found(measured=measured, places=(Place(camera=one), Place(camera=other)))


def by_camera(material: Material) -> dict[str, list[Sample]]:
    """Camera -> its samples that could be read."""
    readable = [sample for sample in material.samples if not sample.problem]
    return {camera: [sample for sample in readable if sample.camera == camera] for camera in material.cameras}


RULES = (
    Rule(
        name="unreadable_video",
        severity=Severity.ERROR,
        title="Video that cannot be read",
        why="Training stops at these frames.",
        fix="Copy the files again, or leave these episodes out.",
        look=unreadable,
        needs=("images",),
    ),
    Rule(
        name="blank_camera",
        severity=Severity.ERROR,
        title="Black or blank images",
        why="The camera was covered, off or not yet started: the policy learns to act without seeing.",
        fix="Leave these episodes out, or cut the frames off, and record again.",
        look=blank,
        needs=("images",),
    ),
    Rule(
        name="frozen_camera",
        severity=Severity.ERROR,
        title="Frozen camera",
        why="The robot moves and the image does not: the policy learns that what it sees does not matter.",
        fix="Leave these episodes out. Usual causes: USB bandwidth, a recorder that repeats the last frame.",
        look=frozen,
        needs=("images",),
    ),
    Rule(
        name="twin_cameras",
        severity=Severity.WARNING,
        title="Two cameras show the same",
        why="A second copy of the image costs time and says nothing; probably another camera was meant.",
        fix="Check the device numbers in the recorder, and leave one of them out.",
        look=twins,
        needs=("images",),
    ),
)
