"""Which library decodes video: torchcodec where it is installed, else PyAV. The frames are equal.

torchcodec took 0.3 to 0.95 of PyAV's processor time per frame (H.264 of 64 x 64, AV1 of 480 x 640), but it looks
through a whole file before it gives the first one: 0.1 s for 110 MB, where PyAV opens in 3 ms. So files stay open.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import expect, malformed
from molmoact2.data.video import TOLERANCE_S, VideoFile


class Frames(Protocol):
    """An open video file that hands out frames by time."""

    def image_at(self, time_s: float, *, tolerance_s: float = TOLERANCE_S) -> NDArray[np.uint8]:
        """The frame [height, width, 3] RGB at `time_s`; ValueError, naming the file, where there is none."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def open_video(path: Path) -> Frames:
    """Open a video file. Raises ValueError, naming the file, when it is missing or is no video."""
    has_torchcodec = importlib.util.find_spec("torchcodec") is not None
    return TorchcodecFile(path) if has_torchcodec else VideoFile(path)


class TorchcodecFile:
    """A video file read by torchcodec, one frame per request; frames in order are decoded without seeking."""

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises ValueError when it is no video, or torchcodec itself cannot be loaded."""
        self.path = path
        try:
            decoders: Any = importlib.import_module("torchcodec.decoders")
        except (ImportError, OSError, RuntimeError) as error:
            raise ValueError(
                f"torchcodec is installed and cannot be loaded: {error}. Install the version that fits your torch and "
                "FFmpeg, or uninstall it; PyAV takes its place."
            ) from error
        try:
            options = {"dimension_order": "NHWC", "num_ffmpeg_threads": 1, "seek_mode": "exact"}
            self._decoder: Any = decoders.VideoDecoder(str(path), **options)
        except (RuntimeError, ValueError) as error:
            raise malformed(path, f"it is missing or cut off, and cannot be opened ({error})") from error

    def close(self) -> None:
        """Let go of the file; torchcodec closes it with its decoder."""
        self._decoder = None

    def image_at(self, time_s: float, *, tolerance_s: float = TOLERANCE_S) -> NDArray[np.uint8]:
        """The frame [height, width, 3] RGB at `time_s`, as `VideoFile.image_at`."""
        try:
            frame = self._decoder.get_frame_played_at(time_s + tolerance_s)
        except IndexError as error:
            raise malformed(self.path, f"no frame at {time_s:.6f} s: the video ends before") from error
        except RuntimeError as error:
            raise malformed(self.path, f"no frame at {time_s:.6f} s: {error}") from error
        problem = f"no frame at {time_s:.6f} s (± {tolerance_s:.6f}), the last one is at {frame.pts_seconds:.6f} s"
        expect(abs(frame.pts_seconds - time_s) <= tolerance_s, self.path, problem)
        return frame.data.numpy()
