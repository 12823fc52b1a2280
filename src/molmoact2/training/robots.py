"""Robot data for a run: what to learn from, what to measure on, and what a checkpoint has to know about the robots."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.chunks import action_chunks
from molmoact2.data.language import Language
from molmoact2.data.mixture import Mixture
from molmoact2.data.quantiles import pooled_statistics
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.robot_stream import CameraOrder, RobotSource, RobotStream, open_stream
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.action_fit import fit_action_tokenizer
from molmoact2.training.fresh import tag_entry
from molmoact2.training.start import Start

CHUNKS_TO_FIT = 8_000
"""Action chunks of each dataset that an action tokenizer is fitted to; on more of them it hardly changes."""

FEWEST_EPISODES = 2
"""A dataset of fewer has none to spare for measuring."""


@dataclass(frozen=True, kw_only=True)
class RobotData:
    """The episodes of a mixture, in two parts."""

    train: RobotStream
    held_out: RobotStream | None
    """Episodes that nothing is learned from; None where no dataset has any to spare."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """Dataset -> what changes when it does."""
        return {source.name: source.fingerprint for source in self.train.sources}


def entries_of(stream: RobotStream) -> dict[str, dict[str, Any]]:
    """Tag -> what `norm_stats.json` says of that robot; statistics are exact, over all frames of the stream."""
    found = {}
    for tag, sources in stream.tagged().items():
        pooled = pooled_statistics(sources)
        robot = sources[0].card.robot
        found[tag] = tag_entry(robot, state_stats=pooled["state"], action_stats=pooled["action"])
    return found


def fitted_tokenizer(start: Start, stream: RobotStream, *, seed: int) -> ActionTokenizer:
    """An action tokenizer for the robots of a stream, fitted to some chunks of each of its datasets."""
    config = start.model.config
    chunks = [
        start.processor.tag(source.card.tag).action_scaling.normalize(sample_chunks(source, seed=seed))
        for source in stream.sources
    ]
    return fit_action_tokenizer(chunks, vocab_size=config.num_action_tokens, longest_horizon=config.max_action_horizon)


def sample_chunks(source: RobotSource, *, seed: int, count: int = CHUNKS_TO_FIT) -> NDArray[np.float32]:
    """Up to `count` chunks [n, horizon, action_dim] of a dataset that end within their episodes, drawn by the seed."""
    ends, horizon = source.dataset.episode_ends, source.card.robot.action_horizon
    starts = source.rows[source.rows + horizon <= ends[source.rows]]
    chosen = np.random.default_rng(seed).permutation(starts)[:count]
    return action_chunks(source.card.actions(source.dataset), np.sort(chosen), ends[np.sort(chosen)], horizon)[0]


def open_robots(
    mixture: Mixture,
    *,
    seed: int,
    cache_dir: Path | None,
    image_size: tuple[int, int],
    held_out_share: float,
    language: Language = "task",
    camera_order: CameraOrder = "fixed",
    depth_labels: Path | None = None,
) -> RobotData:
    """Open a mixture; of every dataset, a share of the episodes, drawn by the seed, is held out.

    `cache_dir` is where images are kept once they are decoded, at `image_size`; None decodes them whenever they are
    needed, which takes no disk and several times as long.

    Raises:
        ValueError: as `open_stream` does.
    """
    opened = {"seed": seed, "cache_dir": cache_dir, "image_size": image_size, "language": language,
              "camera_order": camera_order, "depth_labels": depth_labels}  # fmt: skip

    def held(dataset: LeRobotDataset) -> list[int]:
        return held_out_episodes(dataset, share=held_out_share, seed=seed)

    def kept(dataset: LeRobotDataset) -> list[int]:
        return sorted({*dataset.episodes_with_video} - {*held(dataset)})

    train = open_stream(mixture, choose=kept, **opened)
    can_measure = any(held(source.dataset) for source in train.sources)
    return RobotData(train=train, held_out=open_stream(mixture, choose=held, **opened) if can_measure else None)


def held_out_episodes(dataset: LeRobotDataset, *, share: float, seed: int) -> list[int]:
    """A share of the episodes that have video, in ascending order; at least one, where there are two."""
    episodes = dataset.episodes_with_video
    if len(episodes) < FEWEST_EPISODES or not share:
        return []
    count = max(1, round(share * len(episodes)))
    chosen = np.random.default_rng(seed).choice(np.array(episodes), count, replace=False)
    return sorted(chosen.tolist())
