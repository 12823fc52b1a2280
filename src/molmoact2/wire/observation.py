"""What every dialect's observation has to be, before anybody asks whether a policy knows such a robot."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.types import Image, Observation
from molmoact2.wire.arrays import check_area, shown
from molmoact2.wire.limits import Limits, require


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
    named = images if isinstance(images, Mapping) else {}
    found = len(named) if named is images else type(images).__name__
    allowed = f"there must be 1 to {limits.num_images}, by the name of their camera"
    require(1 <= len(named) <= limits.num_images, f"images: {allowed}, got {found}.")
    return {checked_text(name, limits, "images"): checked_image(image, limits, name) for name, image in named.items()}


def checked_image(image: object, limits: Limits, name: object) -> Image:
    """One image, as it is."""
    where = f"images.{name}"
    pixels: NDArray[Any] = image if isinstance(image, np.ndarray) else np.empty(0)
    found = f"{pixels.dtype} {list(pixels.shape)}"
    require(pixels is image, f"{where}: an image must be an array [height, width, 3], got {shown(image)}.")
    advice = "Send uint8, 0 to 255: what a floating point image means is understood differently everywhere."
    require(pixels.dtype == np.uint8, f"{where}: an image must be uint8 [height, width, 3], got {found}. {advice}")
    is_rgb = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    require(is_rgb, f"{where}: an image must be RGB [height, width, 3], got {found}.")
    check_area(pixels.shape[0], pixels.shape[1], limits, where)
    return pixels


def checked_state(state: object, limits: Limits) -> NDArray[Any]:
    """The state as a vector of floating point numbers."""
    vector = state if isinstance(state, np.ndarray) else np.empty(0, np.object_)
    is_vector = vector.dtype.kind in "fiu" and vector.ndim == 1
    found = f"{vector.dtype} {list(vector.shape)}" if vector is state else shown(state)
    require(is_vector, f"state: it must be an array of numbers [state_dim], got {found}.")
    is_short = 1 <= vector.size <= limits.num_values
    require(is_short, f"state: it must be 1 to {limits.num_values} numbers, got {vector.size}.")
    unusable = np.flatnonzero(~np.isfinite(vector))
    require(not unusable.size, f"state: it must be finite, but is not in dimensions {shown(unusable.tolist())}.")
    return vector if vector.dtype.kind == "f" else vector.astype(np.float64)


def checked_text(text: object, limits: Limits, where: str = "instruction") -> str:
    """Words that can be written down."""
    words = text if isinstance(text, str) else ""
    found = f"{len(words)} characters" if words is text else shown(text)
    is_said = words.strip() and len(words) <= limits.num_text
    require(is_said, f"{where}: it must be text of 1 to {limits.num_text} characters, got {found}.")
    require(is_unicode(words), f"{where}: it must be Unicode text, got half a character.")
    return words


def is_unicode(text: str) -> bool:
    """Whether every character is whole; JSON can say halves."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
