"""Depth from single images by Depth-Anything-V2, through transformers: relative inverse depth, nearer is larger.

The released Think checkpoints were labelled with the Base model: the shorter side of an image becomes 518 pixels, and
maps are resized to the image bilinearly with aligned corners (training.md G). The rest of what is done to images is as
the model's own `preprocessor_config.json` says; transformers resizes with PIL, the reference with OpenCV.
"""

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8

from molmoact2.depth.sources import Numbered, Pictured, Unit
from molmoact2.tokens.reading import require

DEFAULT_MODEL = "depth-anything/Depth-Anything-V2-Base-hf"
BATCH = 16
"""Images that go through the network at once."""
INSTALL = "Install it with: pip install 'molmoact2[depth]'"


@dataclass(frozen=True, kw_only=True, eq=False)
class AnythingDepth:
    """A depth estimator that looks at the images. Made by `load_anything`."""

    name: str
    processor: Any = field(repr=False)
    """Turns images into what the network sees; of transformers."""
    network: Any = field(repr=False)
    """Of transformers, in evaluation mode."""
    device: str = "cpu"
    unit: Unit = "inverse"

    def episode(self, dataset: Pictured, record: Numbered, camera: str) -> Float32[np.ndarray, "n h w"]:
        """Depth of all frames of one camera in one episode."""
        return self.estimate(dataset.episode_images(record.episode_index, camera))

    def estimate(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n h w"]:
        """Relative inverse depth of images, as large as they are."""
        return np.concatenate([self._batch(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])

    @torch.inference_mode()
    def _batch(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n h w"]:
        size = images.shape[1:3]
        height, width = input_size(size, self.processor.size["height"], self.processor.ensure_multiple_of)
        options = {"size": {"height": height, "width": width}, "keep_aspect_ratio": False, "return_tensors": "pt"}
        inputs = self.processor(images=list(images), **options).to(self.device)
        depth = self.network(**inputs).predicted_depth.float()
        return F.interpolate(depth[:, None], size, mode="bilinear", align_corners=True)[:, 0].cpu().numpy()


def input_size(size: tuple[int, ...], shorter: int, multiple: int) -> tuple[int, ...]:
    """What the network sees of an image of `size` (height, width): the shorter side is `shorter`, both are multiples.

    transformers by itself would make the longer side `shorter` where an image is smaller than that.
    """
    scale = shorter / min(size)
    return tuple(max(shorter, round(side * scale / multiple) * multiple) for side in size)


def require_transformers() -> Any:
    """The package transformers; ValueError, saying how to install it, where it is not."""
    is_there = importlib.util.find_spec("transformers") is not None
    require(is_there, f"Depth-Anything needs the package transformers, which is not installed. {INSTALL}")
    return importlib.import_module("transformers")


def load_anything(model: str = DEFAULT_MODEL, *, device: str = "cpu") -> AnythingDepth:
    """Load an estimator.

    Args:
        model: hub id, which is downloaded once and kept in the hub's cache, or a folder.
        device: where it computes.

    Raises:
        ValueError: transformers is missing, or there is no depth estimator of that name.
    """
    transformers = require_transformers()
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(model)
        network = transformers.AutoModelForDepthEstimation.from_pretrained(model)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(
            f"{model} is no depth estimator that transformers {transformers.__version__} can load: {error} "
            f"Give a hub id such as {DEFAULT_MODEL}, or a folder with its configuration, preprocessor and weights."
        ) from error
    return AnythingDepth(
        name=f"anything:{model}", processor=processor, network=network.to(device).eval(), device=device
    )
