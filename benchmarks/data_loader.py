"""How many training examples a second one process gets from a mixture: from video, and from images decoded before.

Every example is a random frame with two cameras and a chunk of actions. "As the policy sees them" scales images to
378 x 378 when they are decoded, which the policy's processor then need not do; the last row adds the augmentation of
the paper to that.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.dataset_frames import SIZE, record
from benchmarks.measuring import Settings, in_turns, measure, milliseconds, print_table, ratio
from molmoact2.data.augmentation import Augmentation
from molmoact2.data.mixture import Group, Mixture
from molmoact2.data.robot_stream import RobotStream, open_stream
from molmoact2.embodiments import SO101_TABLETOP

POLICY_SIZE = (378, 378)


def next_examples(stream: RobotStream, numbers: count, num_examples: int) -> None:
    """Go on in the stream."""
    for _ in range(num_examples):
        stream.example(next(numbers))


def augmented_examples(stream: RobotStream, numbers: count, num_examples: int) -> None:
    """Go on in the stream, and augment the images."""
    augment = Augmentation()
    for _ in range(num_examples):
        number = next(numbers)
        augment(stream.example(number).images, np.random.default_rng(number))


def places(stream: RobotStream, numbers: count, num_examples: int) -> None:
    """Find out which frames are next, and nothing else."""
    for _ in range(num_examples):
        stream.place(next(numbers))


def benchmark(settings: Settings) -> None:
    """Measure two datasets of 2 episodes of 100 frames, two cameras of 240 x 320."""
    num_episodes, length, num_examples = (1, 12, 4) if settings.smoke else (2, 100, 25)
    size = (56, 56) if settings.smoke else POLICY_SIZE
    with tempfile.TemporaryDirectory() as folder:
        datasets = tuple(
            str(record(Path(folder) / name, num_episodes=num_episodes, length=length).root) for name in ("a", "b")
        )
        mixture = Mixture(name="two", groups=(Group(tag=SO101_TABLETOP.tag, rate=1.0, datasets=datasets),))
        opened = partial(open_stream, mixture, seed=0, show_progress=False)
        decoded = opened(cache_dir=Path(folder) / "cache", image_size=size)
        contests: dict[str, tuple[Callable[[RobotStream, count, int], None], RobotStream]] = {
            "from video": (next_examples, opened()),
            "from video, as the policy sees them": (next_examples, opened(image_size=size)),
            "decoded before": (next_examples, opened(cache_dir=Path(folder) / "cache")),
            "decoded before, as the policy sees them": (next_examples, decoded),
            "the same, augmented": (augmented_examples, decoded),
            "only which frame": (places, decoded),
        }
        calls = {name: partial(work, stream, count(), num_examples) for name, (work, stream) in contests.items()}
        seconds = {name: whole / num_examples for name, whole in in_turns(calls, settings).items()}
    slowest = max(seconds.values())
    rows = [[name, milliseconds(time), f"{1 / time:,.0f}", ratio(slowest, time)] for name, time in seconds.items()]
    height, width = SIZE
    title = f"Training examples, two cameras of {height} x {width}"
    print_table(title, ["how", "ms per example", "examples a second", "faster"], rows)


if __name__ == "__main__":
    measure(benchmark, __doc__)
