"""LeRobot datasets: reading, writing, action chunks, exact statistics, decoded frames for training."""

from molmoact2.data.chunks import action_chunks
from molmoact2.data.datasets import open_dataset
from molmoact2.data.episodes import EpisodeRecord, VideoSpan
from molmoact2.data.frame_cache import decode_frames
from molmoact2.data.reader import Frame, LeRobotDataset
from molmoact2.data.schema import DatasetSchema, Episode, ExtraColumn
from molmoact2.data.video import VideoEncoding
from molmoact2.data.writer import DatasetWriter

__all__ = [
    "DatasetSchema",
    "DatasetWriter",
    "Episode",
    "EpisodeRecord",
    "ExtraColumn",
    "Frame",
    "LeRobotDataset",
    "VideoEncoding",
    "VideoSpan",
    "action_chunks",
    "decode_frames",
    "open_dataset",
]
