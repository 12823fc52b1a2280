"""Is this observation one that the policy can be asked about? Everything is checked before anything is computed."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from molmoact2.tokens.prompt import normalize_language

MAX_IMAGES = 5
PREFIX = "observation.images."
"""Datasets put it before the names of cameras; it makes no difference here."""


class ObservationError(ValueError):
    """An observation that this policy cannot be asked about."""


def checked_images(images: object, cameras: Sequence[str]) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """The images of an observation in the policy's order, as uint8.

    `cameras` are the names that a policy expects, in its order; with none, named images keep their own order.
    """
    named = in_order(images, cameras) if isinstance(images, Mapping) else numbered(images)
    if not 1 <= len(named) <= MAX_IMAGES:
        raise ObservationError(f"An observation has 1 to {MAX_IMAGES} images, got {len(named)}.")
    return [checked_image(image, name) for name, image in named.items()]


def in_order(images: Mapping, cameras: Sequence[str]) -> dict[str, object]:
    """The images under their bare names, in the order of `cameras`, of which none may be missing or new."""
    given = {str(name).removeprefix(PREFIX): image for name, image in images.items()}
    expected = [name.removeprefix(PREFIX) for name in cameras] or list(given)
    if set(given) != set(expected) or len(given) != len(images):
        raise ObservationError(
            f"The images must be named {', '.join(expected)} (with or without {PREFIX!r}), "
            f"got {', '.join(map(str, images)) or 'none'}. Give a plain list to pass images in the policy's order."
        )
    return {name: given[name] for name in expected}


def numbered(images: object) -> dict[str, object]:
    """Images that are in the policy's order already."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if not isinstance(images, list | tuple):
        raise ObservationError(
            "images must map camera names to images, or be a list of images in the policy's order, "
            f"got {type(images).__name__}."
        )
    return {f"number {i}": image for i, image in enumerate(images, start=1)}


def checked_image(image: object, name: str) -> UInt8[np.ndarray, "_ _ 3"]:
    """The image as uint8 [height, width, 3]; floating point in [0, 1] is rounded to it."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ObservationError(f"Image {name} must be an RGB array [height, width, 3], got {found}.")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise ObservationError(f"Image {name} must be uint8, or floating point in [0, 1], got {image.dtype}.")
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise ObservationError(
            f"Image {name} is floating point and must be finite and in [0, 1], "
            f"got {image.min()} to {image.max()}. Divide by 255, or pass uint8."
        )
    return np.rint(image * 255).astype(np.uint8)


def checked_state(state: object, *, width: int, names: Sequence[str] | None) -> Float[np.ndarray, " d"]:
    """The state as a finite floating-point vector of `width` values."""
    vector = np.asarray(state)
    if vector.dtype.kind not in "fiu" or vector.shape != (width,):
        described = f" ({', '.join(names)})" if names else ""
        raise ObservationError(
            f"The state must be {width} numbers{described}, got {vector.dtype} of shape {vector.shape}."
        )
    if not np.isfinite(vector).all():
        raise ObservationError(f"The state must be finite, got {vector.tolist()}.")
    return vector.astype(np.float32)


def checked_instruction(instruction: object, *, reserved: Collection[str]) -> str:
    """The instruction as it stands in the prompt; `reserved` strings are single tokens that nobody may write."""
    text = normalize_language(instruction) if isinstance(instruction, str) else ""
    return checked_words(text, instruction, reserved)


def checked_question(question: object, *, reserved: Collection[str]) -> str:
    """A question in words, as it stands."""
    return checked_words(question.strip() if isinstance(question, str) else "", question, reserved)


def checked_words(text: str, original: object, reserved: Collection[str]) -> str:
    """`text`, unless it is empty or writes a token by name, with which it would break the prompt's layout."""
    if not text:
        raise ObservationError(f"The instruction must say in words what is wanted, got {original!r}.")
    tokens = [token for token in reserved if token in text] if "<" in text else []
    if tokens:
        raise ObservationError(
            f"The instruction must be plain words, got {original!r}, which has the token {tokens[0]}."
        )
    return text
