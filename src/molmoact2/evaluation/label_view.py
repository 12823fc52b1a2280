"""The depth labels of an episode, to be looked at: what the camera saw, its own codes, and what a policy remembers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from molmoact2.data import LeRobotDataset
from molmoact2.data.depth_labels import DepthLabels
from molmoact2.data.errors import require
from molmoact2.data.reader import Frame
from molmoact2.depth.codec import DepthCodec, fingerprint
from molmoact2.evaluation.depth_pictures import depth_picture, outlined, resized
from molmoact2.evaluation.depth_truth import DepthTruth, EpisodeTruth, check_episode
from molmoact2.evaluation.depth_view import (
    DepthView,
    picture_size,
    renewed,
    truth_facts,
    truth_pictures,
)
from molmoact2.evaluation.rerun_log import TRUTH_NUMBERS, TRUTH_PICTURES, RerunLog, log_thought, numbered
from molmoact2.types import DepthReasoning


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledEpisode:
    """One episode and the labels of one of its cameras."""

    dataset: LeRobotDataset
    labels: DepthLabels
    camera: str
    episode: int
    codec: DepthCodec | None = None
    """Decodes the codes; without it they are drawn as colours."""
    truth: EpisodeTruth | None = None

    def __post_init__(self) -> None:
        check_episode(self.dataset, self.episode)
        known = self.labels.codec_fingerprint
        found = known if self.codec is None else fingerprint(self.codec)
        require(
            found == known,
            f"The labels were made with the codec {known}, this one is {found}: it would draw their codes wrongly. "
            "Give the codec of the labels, or label the dataset again with this one.",
        )

    @property
    def num_moments(self) -> int:
        """Frames of the episode."""
        return self.dataset.episodes[self.episode].length

    @property
    def moments_per_second(self) -> float:
        """Frames per second of the robot's time."""
        return self.dataset.fps

    @property
    def viewer_paths(self) -> tuple[Sequence[str], Sequence[str]]:
        """Pictures and groups of numbers that get a view of their own in the viewer."""
        cameras, has_truth = [f"cameras/{name}" for name in self.dataset.cameras], self.truth is not None
        numbers = ["actions", "state", "cells", *TRUTH_NUMBERS * has_truth]
        return [*cameras, "own_depth", "depth", *TRUTH_PICTURES * has_truth], numbers

    def moments(self) -> Iterator[Frame]:
        """The frames of the episode, with images."""
        return self.dataset.stream([self.episode])

    def view(self, frame: Frame) -> DepthView:
        """A frame and its labels as pictures."""
        own, remembered = self.thoughts(frame)
        image, truth = frame.images[self.camera], self.truth_of(frame)
        size = picture_size(image)
        stale = int((own.codes != remembered.codes).sum())
        return DepthView(
            pictures={
                f"{self.camera}, renewed cells outlined": outlined(resized(image, size), remembered.changed),
                "codes of this frame": resized(depth_picture(own), size),
                "codes that a policy remembers": outlined(resized(depth_picture(remembered), size), remembered.changed),
                **truth_pictures(truth, size),
            },
            headline=f"“{frame.task}”",
            facts=(
                renewed(remembered.changed),
                f"{stale} remembered codes are not the frame's own",
                *truth_facts(truth),
            ),
            time_s=frame.timestamp_s,
        )

    def log(self, log: RerunLog, frame: Frame) -> None:
        """Log a frame and its labels for the viewer."""
        own, remembered = self.thoughts(frame)
        log.at(frame.frame_index, frame.timestamp_s)
        for name, image in frame.images.items():
            log.image(f"cameras/{name}", image)
        log.cells(f"cameras/{self.camera}/renewed", remembered.changed, frame.images[self.camera])
        log.image("own_depth", depth_picture(own))
        log_thought(log, remembered, self.truth_of(frame))
        log.numbers("actions", numbered(None, len(frame.action)), frame.action)
        log.numbers("state", numbered(None, len(frame.state)), frame.state)

    def thoughts(self, frame: Frame) -> tuple[DepthReasoning, DepthReasoning]:
        """The codes of the frame itself, and those that a policy remembers, as if a policy had thought of them."""
        codes, remembered, changed = (column[frame.frame_index] for column in self.columns)
        decoder = None if self.codec is None else self.codec.picture
        own, kept = (DepthReasoning(codes=one, changed=changed, decoder=decoder) for one in (codes, remembered))
        return own, kept

    def truth_of(self, frame: Frame) -> DepthTruth | None:
        """The truth beside what a policy remembers."""
        return self.truth and self.truth.of(frame.frame_index, self.columns[1][frame.frame_index])

    @cached_property
    def columns(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Codes, buffer codes and updates [frames, cells] of the episode."""
        record, labels = self.dataset.episodes[self.episode], self.labels
        rows = slice(record.from_index, record.to_index)
        return (
            labels.codes(self.camera)[rows],
            labels.buffer_codes(self.camera)[rows],
            labels.updated(self.camera)[rows],
        )
