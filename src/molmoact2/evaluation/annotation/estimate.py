"""What a run would ask for, from what is known without decoding a picture."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from molmoact2.data.reader import LeRobotDataset
from molmoact2.evaluation.annotation.asking import Asking, settled
from molmoact2.evaluation.annotation.storyboard import NUM_MOMENTS, fitted
from molmoact2.evaluation.ledger import EPISODES_FILE, read_records

PIXELS_PER_TOKEN = 28 * 28
"""Of the Qwen2-VL family; others differ by a factor of two either way."""
WORDS_TOKENS = 330
"""Of the words of a question, with a typical tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """At most, if every first answer is usable: cameras that turn out frozen are not sent."""

    num_answered: int
    """Episodes whose answer is in the ledger."""
    num_requests: int
    num_pictures: int
    num_input_tokens: int
    """Roughly."""
    num_without_video: int
    """Episodes of the dataset that cannot be asked about, because video files are missing."""


def estimate(dataset: LeRobotDataset, asking: Asking, folder: Path, episodes: Collection[int]) -> Estimate:
    """What asking about `episodes` takes, given the ledger in `folder`."""
    records = settled(read_records(folder / EPISODES_FILE)).values()
    known = {record["episode_index"] for record in records if record["settings"] == asking.settings}
    to_ask = [index for index in episodes if index not in known]
    sizes = [fitted(*dataset.image_size(camera), asking.manner.image_side) for camera in dataset.cameras]
    num_moments = sum(min(NUM_MOMENTS, dataset.episodes[index].length) for index in to_ask)
    tokens = sum(-(-height * width // PIXELS_PER_TOKEN) for height, width in sizes)
    return Estimate(
        num_answered=len(episodes) - len(to_ask),
        num_requests=len(to_ask),
        num_pictures=num_moments * len(dataset.cameras),
        num_input_tokens=num_moments * tokens + len(to_ask) * WORDS_TOKENS,
        num_without_video=len(dataset.episodes) - len(dataset.episodes_with_video),
    )


def sentence(expected: Estimate) -> str:
    """The estimate in words."""
    left_out = f" Left out, because their video is missing: {expected.num_without_video:,} episodes."
    return (
        f"To ask: {expected.num_requests:,} requests with {expected.num_pictures:,} pictures, roughly "
        f"{expected.num_input_tokens:,} input tokens, before repetitions. Answered before: {expected.num_answered:,}."
        f"{left_out if expected.num_without_video else ''}"
    )
