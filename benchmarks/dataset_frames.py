"""How long a frame of a recorded dataset takes: streamed, at random, and from the cache that training reads.

The baseline opens the video and seeks for every single frame, as readers without state do, with PyAV. The reader uses
torchcodec where it is installed, else PyAV as well.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np

from benchmarks.measuring import Settings, in_turns, measure, milliseconds, print_table, ratio
from molmoact2.data import DatasetSchema, DatasetWriter, Episode, Frame, LeRobotDataset, decode_frames
from molmoact2.data.video import VideoFile
from molmoact2.embodiments import SO101_TABLETOP

SIZE = (240, 320)
BASELINE = "opened and sought anew"


def record(root: Path, *, num_episodes: int, length: int) -> LeRobotDataset:
    """A dataset of moving shapes, which compress like a scene and not like noise."""
    schema = DatasetSchema.for_embodiment(SO101_TABLETOP, image_size=SIZE)
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    with DatasetWriter(root, schema) as writer:
        for _ in range(num_episodes):
            shift = np.arange(length)[:, None, None] * 2 + random.integers(100)
            waves = 127 + 100 * np.sin((rows + shift) / 17) * np.cos((columns - shift) / 23)
            images = np.repeat(waves.astype(np.uint8)[..., None], 3, axis=-1)
            state = random.normal(size=(length, len(schema.state_names))).astype(np.float32)
            writer.add_episode(
                Episode(images=dict.fromkeys(schema.image_sizes, images), state=state, action=state, task="wave")
            )
    return LeRobotDataset(root)


def anew(dataset: LeRobotDataset, path: Path, camera: str, index: int) -> np.ndarray:
    """One image, with nothing kept from the last one."""
    video = VideoFile(path)
    image = video.image_at(index / dataset.fps, tolerance_s=0.01)
    video.close()
    assert image.shape == (*dataset.image_size(camera), 3)
    return image


def each(read: Callable[[int], object], indices: Iterator[int], count: int) -> None:
    """Read the next `count` frames."""
    for _ in range(count):
        read(next(indices))


def streamed(dataset: LeRobotDataset) -> Iterator[Frame]:
    """All frames in order, again and again."""
    while True:
        yield from dataset.stream()


def take(frames: Iterator[Frame], count: int) -> None:
    """Read the next `count` frames of a stream."""
    for _ in range(count):
        next(frames)


def benchmark(settings: Settings) -> None:
    """Measure a dataset of 4 episodes of 100 frames, two cameras of 240 x 320."""
    num_episodes, length, count = (1, 12, 4) if settings.smoke else (4, 100, 25)
    with tempfile.TemporaryDirectory() as folder:
        dataset = record(Path(folder) / "dataset", num_episodes=num_episodes, length=length)
        camera, path = dataset.cameras[0], next((dataset.root / "videos").rglob("*.mp4"))
        cache = decode_frames(dataset, Path(folder) / "cache", show_progress=False)
        shuffled = np.random.default_rng(0).permutation(len(dataset)).tolist()
        calls = {
            "all cameras, streamed": partial(take, streamed(dataset), count),
            "all cameras, at random": partial(each, dataset.frame, cycle(shuffled), count),
            "all cameras, at random, decoded before": partial(
                each, lambda index: [frames[index].copy() for frames in cache.values()], cycle(shuffled), count),
            f"one camera, {BASELINE}": partial(
                each, partial(anew, dataset, path, camera), cycle(shuffled), count),
        }  # fmt: skip
        seconds = {name: whole / count for name, whole in in_turns(calls, settings).items()}
    seconds[f"all cameras, {BASELINE}"] = baseline = len(cache) * seconds.pop(f"one camera, {BASELINE}")
    rows = [[name, milliseconds(time), f"{1 / time:,.0f}", ratio(baseline, time)] for name, time in seconds.items()]
    columns = ["how", "ms per frame", "frames per second", "faster"]
    print_table("Frames of a dataset, 240 x 320, two cameras", columns, rows)


if __name__ == "__main__":
    measure(benchmark, __doc__)
