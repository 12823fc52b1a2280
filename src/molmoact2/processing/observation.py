"""Is this observation one that the policy can be asked about? Everything is checked before anything is computed."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from molmoact2.tokens.prompt import normalize_language
from molmoact2.tokens.reading import require

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
    count = len(named)
    require(1 <= count <= MAX_IMAGES, f"An observation has 1 to {MAX_IMAGES} images, got {count}.", ObservationError)
    return [checked_image(image, name) for name, image in named.items()]


def in_order(images: Mapping, cameras: Sequence[str]) -> dict[str, object]:
    """The images under their bare names, in the order of `cameras`, of which none may be missing or new."""
    given = {str(name).removeprefix(PREFIX): image for name, image in images.items()}
    expected = [name.removeprefix(PREFIX) for name in cameras] or list(given)
    require(
        given.keys() == set(expected) and len(given) == len(images),
        f"The images must be named {', '.join(expected)} (with or without {PREFIX!r}), got "
        f"{', '.join(map(str, images)) or 'none'}. Give a plain list to pass images in the policy's order.",
        ObservationError,
    )
    return {name: given[name] for name in expected}


def numbered(images: object) -> dict[str, object]:
    """Images that are in the policy's order already: a list, a tuple, or an array [images, height, width, 3]."""
    is_sequence = isinstance(images, list | tuple) or (isinstance(images, np.ndarray) and images.ndim == 4)
    require(
        is_sequence,
        "images must map camera names to images, or be a list of images in the policy's order, "
        f"got {type(images).__name__}.",
        ObservationError,
    )
    return {f"number {i}": image for i, image in enumerate(images, start=1)}  # type: ignore[arg-type]


def checked_image(image: object, name: str) -> UInt8[np.ndarray, "_ _ 3"]:
    """The image as uint8 [height, width, 3]; floating point in [0, 1] is rounded to it."""
    pixels: np.ndarray = image if isinstance(image, np.ndarray) else np.empty(0)
    found = f"{pixels.dtype} {list(pixels.shape)}" if pixels is image else type(image).__name__
    is_rgb = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size
    require(is_rgb, f"Image {name} must be an RGB array [height, width, 3], got {found}.", ObservationError)
    if pixels.dtype == np.uint8:
        return pixels
    is_float = np.issubdtype(pixels.dtype, np.floating)
    require(is_float, f"Image {name} must be uint8, or floating point in [0, 1], got {found}.", ObservationError)
    low, high = pixels.min(), pixels.max()
    require(
        low >= 0 and high <= 1,  # false for NaN
        f"Image {name} is floating point and must be finite and in [0, 1], got {low} to {high}. "
        "Divide by 255, or pass uint8.",
        ObservationError,
    )
    return np.rint(pixels * 255).astype(np.uint8)


def checked_state(state: object, *, width: int, names: Sequence[str] | None) -> Float32[np.ndarray, " d"]:
    """The state as a finite vector of `width` values."""
    vector = np.asarray(state)
    require(
        vector.dtype.kind in "fiu" and vector.shape == (width,),
        f"The state must be {width} numbers ({', '.join(names or ['not named'])}), "
        f"got {vector.dtype} of shape {vector.shape}.",
        ObservationError,
    )
    with np.errstate(over="ignore"):
        single = vector.astype(np.float32)
    infinite = np.flatnonzero(~np.isfinite(single))
    require(not infinite.size, f"The state must be finite, but is not in dimensions {infinite}.", ObservationError)
    return single


def checked_instruction(instruction: object, *, reserved: Collection[str]) -> str:
    """The instruction as it stands in the prompt; `reserved` strings are single tokens that nobody may write."""
    return checked_words(normalize_language(words_of(instruction)), instruction, reserved)


def checked_question(question: object, *, reserved: Collection[str]) -> str:
    """A question in words, as it stands."""
    return checked_words(words_of(question).strip(), question, reserved)


def words_of(text: object) -> str:
    """`text`, or no words where it is no text."""
    return text if isinstance(text, str) else ""


def checked_words(text: str, original: object, reserved: Collection[str]) -> str:
    """`text`, unless it is empty or writes a token by name, with which it would break the prompt's layout."""
    require(text, f"The instruction must say in words what is wanted, got {original!r}.", ObservationError)
    tokens = [token for token in reserved if token in text] if "<" in text else []
    complaint = f"The instruction must be plain words, got {original!r}, which has the token {', '.join(tokens)}."
    require(not tokens, complaint, ObservationError)
    return text
