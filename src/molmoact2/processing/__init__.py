"""Between observations and tensors, the same way in training and inference."""

from molmoact2.processing.encoded import Encoded, collate
from molmoact2.processing.norm_stats import FeatureStats, NormStats, TagStats
from molmoact2.processing.observation import ObservationError
from molmoact2.processing.processor import Processor

__all__ = ["Encoded", "FeatureStats", "NormStats", "ObservationError", "Processor", "TagStats", "collate"]
