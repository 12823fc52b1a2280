"""Video files: writing one per episode, joining them without loss, and finding frames by time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from molmoact2.data.errors import expect, malformed
from molmoact2.data.files import written_atomically

TOLERANCE_S = 1e-4
"""How far the time of a frame may be from the time that was asked for."""
LONGEST_READ_AHEAD = 16
"""Frames that are decoded and dropped to get forward before it is quicker to seek."""


@dataclass(frozen=True, kw_only=True)
class VideoEncoding:
    """How images become H.264. The defaults favour random access and fidelity over size."""

    crf: int = 18
    """Quality, from 0 (lossless) to 51 (worst)."""
    frames_per_keyframe: int = 2
    """Distance of key frames; a frame is found by decoding at most this many."""
    preset: str = "veryfast"
    """Effort of the encoder, as libx264 names it."""

    def options(self) -> dict[str, str]:
        """Options for libx264. Without B-frames, files are stored in display order and can be joined as they are."""
        return {"crf": str(self.crf), "g": str(self.frames_per_keyframe), "preset": self.preset, "bf": "0"}

    def feature_info(self, *, height: int, width: int, fps: int) -> dict[str, Any]:
        """What `info.json` says about a camera whose video is encoded like this."""
        return {
            "video.height": height,
            "video.width": width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": 3,
            "has_audio": False,
            "video.g": self.frames_per_keyframe,
            "video.crf": self.crf,
            "video.preset": self.preset,
            "video.fast_decode": 0,
            "video.video_backend": "pyav",
            "video.extra_options": {"bf": 0},
        }


def encode_video(path: Path, images: NDArray[np.uint8], *, fps: int, encoding: VideoEncoding) -> None:
    """Write `images` [T, height, width, 3] RGB as an mp4 with frame `i` at `i / fps` seconds, atomically."""
    with written_atomically(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=encoding.options())
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def join_videos(path: Path, parts: Sequence[tuple[Path, int]], *, fps: float) -> None:
    """Write the first frames of several files of one encoding as one file, without encoding again, atomically.

    Args:
        path: the file to write; may be one of the parts.
        parts: files in order, each with the number of frames to take from its start.
        fps: frames per second of all of them.
    """
    with written_atomically(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        with av.open(str(parts[0][0])) as first:
            stream = container.add_stream_from_template(first.streams.video[0], opaque=True)
        num_frames = 0
        for source, count in parts:
            for packet in _first_packets(source, count):
                packet.stream = stream
                offset = round(num_frames / fps / packet.time_base)
                packet.pts, packet.dts = (packet.pts or 0) + offset, (packet.dts or 0) + offset
                container.mux(packet)
            num_frames += count


def decoder_setup(path: Path) -> tuple[Any, ...]:
    """What a decoder must know before the first packet; files in which it is equal can be joined."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.codec.name, stream.width, stream.height, stream.time_base, stream.codec_context.extradata


def packet_times(path: Path) -> NDArray[np.float64]:
    """When each frame of a file is shown, in seconds, in the order in which they are stored; nothing is decoded.

    Raises ValueError, naming the file, when it is no video.
    """
    try:
        with av.open(str(path)) as container:
            tick_s = float(container.streams.video[0].time_base or Fraction(1, av.time_base))
            return np.array([packet.pts for packet in container.demux(video=0) if packet.pts is not None]) * tick_s
    except (FFmpegError, IndexError) as error:
        raise malformed(path, f"it is missing or cut off, and holds no readable video ({error})") from error


def _first_packets(path: Path, count: int) -> Iterable[av.Packet]:
    """The packets of the first `count` frames of a file without B-frames."""
    with av.open(str(path)) as container:
        packets = (packet for packet in container.demux(video=0) if packet.pts is not None)
        for found, packet in enumerate(packets):
            if found == count:
                return
            yield packet


class VideoFile:
    """An open video file that hands out frames by time.

    Frames that are asked for in order are decoded one after the other without seeking.
    """

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises ValueError, naming the file, when it is missing or is no video."""
        self.path = path
        try:
            self._container = av.open(str(path))
        except FFmpegError as error:
            raise malformed(path, f"it is missing or cut off, and cannot be opened ({error.strerror})") from error
        expect(len(self._container.streams.video) > 0, path, "it holds no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1  # measured faster than threads, both in order and at random
        self._tick_s = float(self._stream.time_base or Fraction(1, av.time_base))
        self._read_ahead_s = LONGEST_READ_AHEAD / float(self._stream.average_rate or 30)
        self._frames = iter(())
        self._frame: av.VideoFrame | None = None

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def image_at(self, time_s: float, *, tolerance_s: float = TOLERANCE_S) -> NDArray[np.uint8]:
        """The frame [height, width, 3] RGB shown at `time_s` seconds of the file.

        Raises ValueError, naming the file, when no frame is within `tolerance_s` of that time.
        """
        ahead_s = -1.0 if self._frame is None else time_s - self._frame.time
        if not -tolerance_s <= ahead_s <= self._read_ahead_s:
            self._seek(time_s)
        while self._frame is None or self._frame.time < time_s - tolerance_s:
            self._frame = self._decode_next(time_s)
        problem = f"no frame at {time_s:.6f} s (± {tolerance_s:.6f}), the next one is at {self._frame.time:.6f} s"
        expect(self._frame.time <= time_s + tolerance_s, self.path, problem)
        return cast(NDArray[np.uint8], self._frame.to_ndarray(format="rgb24"))

    def _seek(self, time_s: float) -> None:
        self._frame = None
        try:
            self._container.seek(max(0, round(time_s / self._tick_s)), stream=self._stream)
        except FFmpegError as error:
            raise self._damaged(time_s, str(error.strerror)) from error
        self._frames = self._container.decode(self._stream)

    def _decode_next(self, time_s: float) -> av.VideoFrame:
        try:
            frame = next(self._frames, None)
        except FFmpegError as error:
            self._frame = None
            raise self._damaged(time_s, str(error.strerror)) from error
        if frame is None:
            self._frame = None
            raise self._damaged(time_s, "the video ends before")
        return frame

    def _damaged(self, time_s: float, reason: str) -> ValueError:
        return malformed(self.path, f"no frame at {time_s:.6f} s: {reason}")
