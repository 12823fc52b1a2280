"""The numbers of a depth codec, as they stand in its `config.json`."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from molmoact2.depth.scale import KINDS, DepthScale
from molmoact2.tokens.reading import is_a, read_field, read_list, read_optional, require

UNITS = {"m": "low", "inverse": "high"}
"""Unit of a depth source -> which end of its scale is near."""
SIZES = {"nano": ((8, 16, 32, 64, 64), 64), "reference": ((16, 32, 64, 128, 256), 512)}
"""Name -> channels and code_dim. A nano codec has 0.6 million parameters, the reference 7.7 million."""
FORMAT = "molmoact2 depth codec 1"


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Sizes of the network and what its levels mean. The defaults are the reference's (training.md G)."""

    image_size: int = 320
    """Pixels of a side that maps are resized to."""
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Width after each halving of the map."""
    code_dim: int = 512
    """Numbers in a vector of the codebook."""
    num_codes: int = 128
    """Vectors in the codebook."""
    scale: DepthScale = field(default_factory=DepthScale)
    """Which depths the levels stand for."""
    unit: Literal["m", "inverse"] = "inverse"
    """Metres along the camera's axis, or relative inverse depth as Depth-Anything gives it."""

    def __post_init__(self) -> None:
        sizes = (self.image_size, *self.channels, self.code_dim, self.num_codes)
        good = all(is_a(size, int) and size > 0 for size in sizes) and self.channels
        require(good, f"The sizes of a depth codec must be positive integers, got {self}.")
        require(
            self.image_size % self.pixels_per_cell == 0,
            f"image_size must be a multiple of 2^{len(self.channels)} = {self.pixels_per_cell}, because the map is "
            f"halved once per entry of channels; got {self.image_size}.",
        )
        require(self.unit in UNITS, f"The unit of a depth codec must be one of {', '.join(UNITS)}, got {self.unit!r}.")

    @property
    def pixels_per_cell(self) -> int:
        """Side of the square of pixels that one code stands for."""
        return 2 ** len(self.channels)

    @property
    def side(self) -> int:
        """Cells along a side of the map."""
        return self.image_size // self.pixels_per_cell

    @property
    def num_cells(self) -> int:
        """Codes of one map."""
        return self.side**2

    @property
    def near_is(self) -> Literal["low", "high"]:
        """Which end of the scale is near the camera."""
        return {"m": "low", "inverse": "high"}[self.unit]  # type: ignore[return-value]

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {"format": FORMAT, **asdict(self), "channels": list(self.channels)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], file: str) -> "CodecConfig":
        """Read the contents of a `config.json`; ValueError, naming the file, for anything missing or malformed."""
        says = document.get("format")
        require(says == FORMAT, f"{file} is not of a depth codec: its 'format' is {says!r}, not {FORMAT!r}.")
        scale = read_field(document, "scale", dict, file)
        unknown = (document.keys() - {"format", *cls.__dataclass_fields__}) | (scale.keys() - {"kind", "low", "high"})
        require(not unknown, f"{file} has fields that no depth codec has: {', '.join(sorted(unknown))}.")
        limits = {name: read_optional(scale, name, float, file) for name in ("low", "high")}
        return cls(
            image_size=read_field(document, "image_size", int, file),
            channels=read_list(document, "channels", int, file),
            code_dim=read_field(document, "code_dim", int, file),
            num_codes=read_field(document, "num_codes", int, file),
            scale=DepthScale(
                kind=_one_of(scale, "kind", KINDS, file),
                **{name: None if value is None else float(value) for name, value in limits.items()},
            ),
            unit=_one_of(document, "unit", UNITS, file),
        )


def _one_of(document: Mapping[str, Any], name: str, allowed: Collection[str], file: str) -> Any:
    """A word that must be one of those allowed."""
    word = read_field(document, name, str, file)
    require(word in allowed, f"{file}: {name!r} must be one of {', '.join(allowed)}, got {word!r}.")
    return word
