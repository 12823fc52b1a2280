"""How a checkpoint wants its images: the fields of its processor files that change a value.

`preprocessor_config.json` and `processor_config.json` describe images, `video_preprocessor_config.json` frames of a
video. Facts: architecture.md 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from molmoact2.tokens.reading import read_field, read_list, read_optional, require

IMAGE_FILE = "preprocessor_config.json"
LAYOUT_FILE = "processor_config.json"
VIDEO_FILE = "video_preprocessor_config.json"
CropMode: TypeAlias = Literal["resize", "overlap-and-resize-c2"]
BILINEAR = 2
"""Number of bilinear resampling in these files."""


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How an image becomes patches and image tokens."""

    crop_mode: CropMode
    """One view of the whole image, or that and a tiling of overlapping crops."""
    size: tuple[int, int]
    """(height, width) of the view and of every crop, in pixels."""
    patch_size: int
    pooling: tuple[int, int]
    """(rows, columns) of patches that make one image token."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of red, green and blue, after dividing by 255."""
    max_crops: int
    margins: tuple[int, int]
    """Patches at the (low, high) end of a crop that it shares with its neighbour."""
    columns: bool
    """Whether a column token ends each row of the crops."""
    view_columns: bool
    """Whether a column token ends each row of the view of the whole image."""
    view_start: bool
    """Whether the view before crops opens with `<low_res_im_start>` instead of `<im_start>`."""

    def __post_init__(self) -> None:
        wrong = [name for name in ("patch_size", "max_crops") if vars(self)[name] < 1]
        wrong += ["size"] * any(side < 1 or side % self.patch_size for side in self.size)
        wrong += ["pooling_size"] * (min(self.pooling) < 1)
        wrong += ["image_mean or image_std"] * (len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0)
        wrong += ["overlap_margins"] * (min(self.margins) < 0 or min(self.window) < 1)
        require(
            not wrong,
            f"{IMAGE_FILE}: {', '.join(wrong)} cannot be. Sizes are positive multiples of the patch size, mean and "
            f"std have three values, margins leave patches between them. Got {self}.",
        )

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches in a view or crop."""
        return self.size[0] // self.patch_size, self.size[1] // self.patch_size

    @property
    def window(self) -> tuple[int, int]:
        """(rows, columns) of patches by which neighbouring crops are apart."""
        rows, columns = self.grid
        return rows - sum(self.margins), columns - sum(self.margins)


def read_image_settings(image: Mapping[str, Any], layout: Mapping[str, Any]) -> ImageSettings:
    """Read the settings of images from the contents of `preprocessor_config.json` and `processor_config.json`."""
    crop_modes = get_args(CropMode)
    crop_mode = read_field(image, "crop_mode", str, IMAGE_FILE)
    resample = read_field(image, "resample", int, IMAGE_FILE)
    require(
        crop_mode in crop_modes and resample == BILINEAR,
        f"{IMAGE_FILE}: crop_mode must be one of {', '.join(crop_modes)} and resample {BILINEAR} (bilinear), "
        f"got {crop_mode!r} and {resample}.",
    )
    columns = read_field(layout, "image_use_col_tokens", bool, LAYOUT_FILE)
    view_columns = read_optional(layout, "use_single_crop_col_tokens", bool, LAYOUT_FILE)
    return ImageSettings(
        crop_mode=cast(CropMode, crop_mode),
        max_crops=read_field(image, "max_crops", int, IMAGE_FILE),
        margins=read_pair(image, "overlap_margins", IMAGE_FILE),
        columns=columns,
        view_columns=columns if view_columns is None else view_columns,
        view_start=read_field(layout, "use_single_crop_start_token", bool, LAYOUT_FILE),
        **read_geometry(image, IMAGE_FILE),
    )


def read_video_settings(video: Mapping[str, Any], layout: Mapping[str, Any]) -> ImageSettings:
    """Read the settings of video frames: each is one view, whose rows may end in column tokens."""
    columns = read_field(layout, "video_use_col_tokens", bool, LAYOUT_FILE)
    return ImageSettings(
        crop_mode="resize",
        max_crops=1,
        margins=(0, 0),
        columns=columns,
        view_columns=columns,
        view_start=False,
        **read_geometry(video, VIDEO_FILE),
    )


def read_geometry(document: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The fields that images and videos have in common."""
    size = read_field(document, "size", dict, file)
    return {
        "size": (read_field(size, "height", int, file), read_field(size, "width", int, file)),
        "patch_size": read_field(document, "patch_size", int, file),
        "pooling": read_pair(document, "pooling_size", file),
        "mean": tuple(map(float, read_list(document, "image_mean", float, file))),
        "std": tuple(map(float, read_list(document, "image_std", float, file))),
    }


def read_pair(document: Mapping[str, Any], name: str, file: str) -> tuple[int, int]:
    """Two whole numbers."""
    pair = read_list(document, name, int, file)
    require(len(pair) == 2, f"{file}: {name!r} must hold two numbers, got {list(pair)}.")
    return pair[0], pair[1]
