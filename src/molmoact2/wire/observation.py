"""What every dialect's observation has to be, before anybody asks whether a policy knows such a robot."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.types import Image, Observation
from molmoact2.wire.arrays import check_area, shown
from molmoact2.wire.limits import Limits, WireError


def checked_observation(images: object, state: object, instruction: object, limits: Limits) -> Observation:
    """The observation, if it is within `limits`; else a WireError that names the field, what came and what is allowed.

    `images` map camera names to uint8 RGB [height, width, 3]; `state` is a vector of finite numbers; `instruction` says
    something.
    """
    return Observation(
        images=checked_images(images, limits),
        state=checked_state(state, limits),
        instruction=checked_text(instruction, limits),
    )


def checked_images(images: object, limits: Limits) -> dict[str, Image]:
    """The images by name."""
    if not isinstance(images, Mapping) or not 1 <= len(images) <= limits.num_images:
        found = f"{len(images)}" if isinstance(images, Mapping) else shown(images)
        raise WireError(f"images: there must be 1 to {limits.num_images}, by the name of their camera, got {found}.")
    return {checked_text(name, limits, "images"): checked_image(image, limits, name) for name, image in images.items()}


def checked_image(image: object, limits: Limits, name: object) -> Image:
    """One image, as it is."""
    where = f"images.{name}"
    if not isinstance(image, np.ndarray):
        raise WireError(f"{where}: an image must be an array [height, width, 3], got {shown(image)}.")
    found = f"{image.dtype} {list(image.shape)}"
    if image.dtype != np.uint8:
        advice = "Send uint8, 0 to 255: what a floating point image means is understood differently everywhere."
        raise WireError(f"{where}: an image must be uint8 [height, width, 3], got {found}. {advice}")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise WireError(f"{where}: an image must be RGB [height, width, 3], got {found}.")
    check_area(image.shape[0], image.shape[1], limits, where)
    return image


def checked_state(state: object, limits: Limits) -> NDArray[Any]:
    """The state as a vector of floating point numbers."""
    if not isinstance(state, np.ndarray) or state.dtype.kind not in "fiu" or state.ndim != 1:
        found = f"{state.dtype} {list(state.shape)}" if isinstance(state, np.ndarray) else shown(state)
        raise WireError(f"state: it must be an array of numbers [state_dim], got {found}.")
    if not 1 <= state.size <= limits.num_values:
        raise WireError(f"state: it must be 1 to {limits.num_values} numbers, got {state.size}.")
    unusable = np.flatnonzero(~np.isfinite(state))
    if unusable.size:
        raise WireError(f"state: it must be finite, but is not in dimensions {shown(unusable.tolist())}.")
    return state if state.dtype.kind == "f" else state.astype(np.float64)


def checked_text(text: object, limits: Limits, where: str = "instruction") -> str:
    """Words that can be written down."""
    if not isinstance(text, str) or not text.strip() or len(text) > limits.num_text:
        found = f"{len(text)} characters" if isinstance(text, str) else shown(text)
        raise WireError(f"{where}: it must be text of 1 to {limits.num_text} characters, got {found}.")
    if not is_unicode(text):
        raise WireError(f"{where}: it must be Unicode text, got half a character.")
    return text


def is_unicode(text: str) -> bool:
    """Whether every character is whole; JSON can say halves."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
