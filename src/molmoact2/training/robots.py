"""Robot data for a run: what to learn from, what to measure on, and what a checkpoint has to know about the robots."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmoact2.data.frame_cache import fingerprint
from molmoact2.data.mixture import Mixture
from molmoact2.data.quantiles import pooled_statistics
from molmoact2.data.reader import LeRobotDataset
from molmoact2.data.robot_stream import CameraOrder, RobotStream, open_stream
from molmoact2.data.language import Language
from molmoact2.training.fresh import tag_entry

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
        return {source.name: fingerprint(source.dataset.root) for source in self.train.sources}

    def entries(self) -> dict[str, dict[str, Any]]:
        """Tag -> what `norm_stats.json` says of that robot: statistics are over all frames that are learned from."""
        found = {}
        for tag, sources in self.train.tagged().items():
            pooled = pooled_statistics(sources)
            robot = sources[0].card.robot
            found[tag] = tag_entry(robot, state_stats=pooled["state"], action_stats=pooled["action"])
        return found


def open_robots(
    mixture: Mixture,
    *,
    seed: int,
    cache_dir: Path | None,
    image_size: tuple[int, int],
    held_out_share: float,
    language: Language = "task",
    camera_order: CameraOrder = "fixed",
) -> RobotData:
    """Open a mixture; of every dataset, a share of the episodes, drawn by the seed, is held out.

    `cache_dir` is where images are kept once they are decoded, at `image_size`; None decodes them whenever they are
    needed, which takes no disk and several times as long.

    Raises:
        ValueError: as `open_stream` does.
    """
    opened = {"seed": seed, "cache_dir": cache_dir, "image_size": image_size, "language": language,
              "camera_order": camera_order}  # fmt: skip

    def held(dataset: LeRobotDataset) -> list[int]:
        return held_out_episodes(dataset, share=held_out_share, seed=seed)

    def kept(dataset: LeRobotDataset) -> list[int]:
        return sorted({*dataset.episodes_with_video} - {*held(dataset)})

    train = open_stream(mixture, choose=kept, **opened)
    can_measure = any(held(source.dataset) for source in train.sources)
    return RobotData(train=train, held_out=open_stream(mixture, choose=held, **opened) if can_measure else None)


def held_out_episodes(dataset: LeRobotDataset, *, share: float, seed: int) -> list[int]:
    """A share of the episodes that have video, in ascending order; at least one, if there are two and a share is asked."""
    episodes = dataset.episodes_with_video
    if len(episodes) < FEWEST_EPISODES or not share:
        return []
    count = max(1, round(share * len(episodes)))
    chosen = np.random.default_rng(seed).choice(np.array(episodes), count, replace=False)
    return sorted(chosen.tolist())


def described(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """The robots in one line."""
    return ", ".join(f"{tag} ({entry['setup_type']}, {entry['action_horizon']} steps)" for tag, entry in entries.items())
