"""Renders pools of simulated SO-101 scenes with exact positions, for learning to point before learning to act."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from rich.progress import Progress

from molmoact2.data.scenes import ScenePool, unflatten_labels
from molmoact2.envs.labels import THINGS, label_row
from molmoact2.envs.so101 import So101Env

SCENES_PER_CALL = 250
HOME_FRACTION = 0.2
"""Scenes with the arm at its start; in the others it is somewhere over the table."""


def render_scenes(
    path: Path, *, num_scenes: int, seed: int, image_size: tuple[int, int], num_workers: int = 2
) -> ScenePool:
    """Render `num_scenes` scenes and save them at `path`; an existing file is read instead.

    Scene i is laid out by seed `seed + i`, whatever the number of workers.

    Raises:
        ValueError: the existing file is not a pool of this many scenes of this size.
    """
    if path.exists():
        return _checked(ScenePool.load(path), path, num_scenes, image_size)
    starts = range(seed, seed + num_scenes, SCENES_PER_CALL)
    counts = [min(SCENES_PER_CALL, seed + num_scenes - start) for start in starts]
    pools = []
    with (
        ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as workers,
        Progress(*Progress.get_default_columns(), transient=True) as progress,
    ):
        bar = progress.add_task("Rendering scenes", total=num_scenes)
        for pool in workers.map(_render, starts, counts, [image_size] * len(counts)):
            pools.append(pool)
            progress.advance(bar, len(pool))
    pool = ScenePool.join(pools)
    pool.save(path)
    return pool


def _checked(pool: ScenePool, path: Path, num_scenes: int, image_size: tuple[int, int]) -> ScenePool:
    if len(pool) != num_scenes or pool.images.shape[2:4] != image_size:
        raise ValueError(f"{path} holds {len(pool)} scenes of {pool.images.shape[2:4]} pixels, but {num_scenes} of "
                         f"{image_size} were asked for. Delete it or use another output folder.")  # fmt: skip
    return pool


def _render(seed: int, count: int, image_size: tuple[int, int]) -> ScenePool:
    environment = So101Env(image_size=image_size)
    observations, rows = [], []
    for scene_seed in range(seed, seed + count):
        rng = np.random.default_rng((scene_seed, 1))
        environment.reset(seed=scene_seed, task=environment.tasks[rng.integers(len(environment.tasks))])
        if rng.random() > HOME_FRACTION:
            environment.scatter(rng)
        observations.append(environment.observe())
        rows.append(label_row(environment))
    environment.close()
    labels = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return ScenePool(
        things=np.array(THINGS),
        cameras=np.array(environment.cameras),
        images=np.stack([[o.images[camera] for camera in environment.cameras] for o in observations]),
        state=np.stack([o.state for o in observations]),
        **unflatten_labels(labels, num_cameras=len(environment.cameras), num_things=len(THINGS)),
    )
