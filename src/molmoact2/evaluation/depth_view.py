"""One look of a policy, or of a dataset, ready to be drawn: pictures side by side, and what is said of them.

front              depth, as it thought     true depth      error, 0 to 100 mm or more
[cells outlined]   [cells outlined]         [         ]     [                     ]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from molmoact2.evaluation.depth_pictures import depth_picture, error_colours, outlined, resized
from molmoact2.evaluation.depth_truth import DepthTruth
from molmoact2.types import DepthReasoning, Image

PICTURE_HEIGHT = 320
"""Pixels; all pictures of a view are enlarged or reduced to it."""
AGES = ("this observation", "the observation before")
TITLES = ("depth codes, a colour each", "depth, as it thought")
"""Of what was thought: without a decoder, and with one."""
LARGEST_ERROR_M = 0.1
"""Where the colours of errors end."""


@dataclass(frozen=True, kw_only=True)
class DepthView:
    """What is drawn of one moment."""

    pictures: Mapping[str, NDArray[np.uint8]]
    """Title -> picture [height, width, 3], all of one size."""
    headline: str
    """What it is, for instance the instruction."""
    facts: Sequence[str] = ()
    """What is to be known about it, a few words each."""
    gates: NDArray[np.float32] | None = None
    """[layers] how far each layer lets the map through, in [0, 1]; None where that is not known."""
    time_s: float = 0.0
    """Since the start of the episode."""


def view_thought(
    image: Image,
    thought: DepthReasoning,
    *,
    camera: str,
    headline: str,
    time_s: float = 0.0,
    truth: DepthTruth | None = None,
) -> DepthView:
    """The image that a policy thought about beside the depth map that it thought of, renewed cells outlined in both.

    Without a decoder the codes are drawn as colours. With `truth`, the true depth and the error are drawn as well.
    """
    size = picture_size(image)
    pictures = {
        f"{camera}, renewed cells outlined": resized(image, size),
        TITLES[thought.decoder is not None]: resized(depth_picture(thought), size),
    }
    passes = [f"{thought.passes} passes of the decoder"] * bool(thought.passes)
    return DepthView(
        pictures={
            **{name: outlined(picture, thought.changed) for name, picture in pictures.items()},
            **truth_pictures(truth, size),
        },
        headline=headline,
        facts=(renewed(thought.changed), *passes, f"map of {age_in_words(thought.age)}", *truth_facts(truth)),
        gates=thought.gates,
        time_s=time_s,
    )


def picture_size(image: Image) -> tuple[int, int]:
    """(height, width) in which an image is drawn, its shape kept; both are even, as videos need it."""
    height, width = image.shape[:2]
    return PICTURE_HEIGHT, 2 * round(PICTURE_HEIGHT * width / height / 2)


def renewed(changed: NDArray[np.bool_]) -> str:
    """How many of the cells were renewed, in words."""
    return f"{changed.sum()} of {len(changed)} cells renewed"


def age_in_words(age: int) -> str:
    """Which observation a map was read from."""
    return AGES[age] if age < len(AGES) else f"{age} observations before"


def truth_pictures(truth: DepthTruth | None, size: tuple[int, int]) -> dict[str, NDArray[np.uint8]]:
    """True depth and error as pictures; none without them."""
    if truth is None:
        return {}
    heat = error_colours(truth.estimate - truth.truth, largest=LARGEST_ERROR_M)
    title = f"error, 0 to {1000 * LARGEST_ERROR_M:.0f} mm or more"
    return {"true depth": resized(truth.picture, size), title: resized(heat, size)}


def truth_facts(truth: DepthTruth | None) -> list[str]:
    """The mean error in words; nothing without the truth."""
    if truth is None:
        return []
    return [f"{truth.error_mm:.1f} mm from the truth on average (the codec's own {truth.best_error_mm:.1f})"]
