"""Depth maps as short lists of codes: the codec that depth reasoning speaks in.

    depth [n, h, w]  -- scale.py -->  levels [n, s, s]  -- codec_network.py -->  codes [n, cells]  and back

Facts: training.md G. `codec_files.py` has the files, `fit.py` learns one.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn

from molmoact2.depth.codec_config import CodecConfig
from molmoact2.depth.codec_files import digest, read_folder, read_published, write_folder
from molmoact2.depth.codec_network import CodecNetwork
from molmoact2.depth.colours import coloured
from molmoact2.depth.scale import TOP, DepthScale, check_depth, depth_of, levels_of, resized
from molmoact2.tokens.reading import require

__all__ = ["CodecConfig", "DepthCodec", "DepthScale", "fingerprint", "load_codec", "save_codec"]

BATCH = 64
"""Maps that go through the network at once."""


class DepthCodec(nn.Module):
    """Encodes depth maps as codes and decodes them. Made with weights that mean nothing; see `load_codec`."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.network = CodecNetwork(config.channels, config.code_dim, config.num_codes)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast on CPUs
        self.eval()

    def encode(self, depth: np.ndarray) -> Int64[np.ndarray, "n cells"]:
        """The codes of depth maps, row by row.

        With a "fixed" scale, depth outside its limits is treated as the limit.

        Args:
            depth: float32 [n, h, w] in the unit of the codec; with a scale of kind "episode" all maps of one episode.

        Raises:
            ValueError: depth of another type or number of dimensions, or with NaN or infinity; names the frame.
        """
        check_depth(depth)
        limits = self.config.scale.limits(depth)
        blocks = [slice(start, start + BATCH) for start in range(0, len(depth), BATCH)]
        return np.concatenate([self.encode_levels(levels_of(depth[block], limits[block])) for block in blocks])

    @torch.inference_mode()
    def encode_levels(self, levels: UInt8[np.ndarray, "n h w"]) -> Int64[np.ndarray, "n cells"]:
        """The codes of at most a batch of maps that are levels already."""
        return self.network.encode(self.as_input(levels)).cpu().numpy()

    def as_input(self, levels: UInt8[np.ndarray, "n h w"]) -> Tensor:
        """What the network sees of levels: float32 [n, 1, s, s] from -1 to 1, on its device."""
        maps = torch.from_numpy(resized(levels, self.config.image_size)).to(self.network.codebook.vectors.device)
        return (maps[:, None].float() / TOP - 0.5) / 0.5

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> Float32[np.ndarray, "n s s"]:
        """The maps that codes (integers [n, cells]) stand for, from 0 (low end of the scale) to 1 (high end).

        Raises ValueError for codes of another shape, or that the codebook does not have.
        """
        self.check_codes(codes)
        side, device = self.config.side, self.network.codebook.vectors.device
        parts = torch.from_numpy(np.asarray(codes, np.int64)).to(device).split(BATCH)
        maps = [self.network.decode(part, side)[:, 0].mul(0.5).add(0.5).clamp(0, 1).cpu().numpy() for part in parts]
        return np.concatenate(maps)

    def check_codes(self, codes: np.ndarray) -> None:
        """Raise ValueError unless these are codes of this codec: integers [n, cells] below the number of codes."""
        codes, cells = np.asarray(codes), self.config.num_cells
        require(
            codes.ndim == 2 and codes.shape[1] == cells and codes.dtype.kind in "iu" and len(codes),
            f"Depth codes must be integers [frames, {cells}], got {codes.shape} of {codes.dtype}.",
        )
        outside = (codes < 0) | (codes >= self.config.num_codes)
        require(
            not outside.any(),
            f"Depth codes must be from 0 to {self.config.num_codes - 1}, got {codes[outside][:5]} in frame "
            f"{outside.any(axis=1).argmax()}. Were they made with another codec?",
        )

    def to_depth(
        self, values: Float32[np.ndarray, "n h w"], limits: Float32[np.ndarray, "n 2"]
    ) -> Float32[np.ndarray, "n h w"]:
        """Depth of decoded maps in the unit of the source, between the limits that their scale had."""
        return depth_of(values, limits)

    def picture(self, codes: np.ndarray) -> UInt8[np.ndarray, "s s 3"]:
        """The map that codes (integers [cells]) stand for, near bright and far dark. ValueError where `decode` does."""
        return self.coloured(self.decode(np.asarray(codes)[None])[0])

    def coloured(self, values: Float32[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n 3"]:
        """Colours of values from 0 (low end of the scale) to 1 (high end), near bright and far dark."""
        return coloured({"low": 1 - values, "high": values}[self.config.near_is])


def save_codec(codec: DepthCodec, folder: str | Path) -> None:
    """Write a codec as a folder of `config.json` and `model.safetensors`, whole or not at all.

    ValueError if the folder exists already and is not empty.
    """
    write_folder(Path(folder), codec.config, codec.network.state_dict())


def load_codec(path: str | Path) -> DepthCodec:
    """Read a codec: a folder that `save_codec` wrote, or the published `.pt` file.

    Raises ValueError, naming the file, for anything missing, malformed or ambiguous.
    """
    path = Path(path)
    require(path.exists(), f"There is no depth codec at {path}.")
    config, weights = (read_folder if path.is_dir() else read_published)(path)
    codec = DepthCodec(config)
    codec.network.load_state_dict(weights)
    return codec.requires_grad_(False)


def fingerprint(codec: DepthCodec) -> str:
    """A name that two codecs share exactly when their config and weights are the same: 16 hexadecimal digits."""
    return digest(codec.config, codec.network.state_dict())
