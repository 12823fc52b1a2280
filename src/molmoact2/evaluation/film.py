"""What an episode looked like: a video, and what the policy saw, planned and executed.

    NAME.mp4     H.264, one frame per control step and the last one
    NAME.npz     steps [plans], chunks [plans, horizon, action_dim], executed [steps, action_dim],
                 measured [steps + 1, state_dim], and as JPEG files [bytes] `poster`, the last frame of the video,
                 and `camera/NAME`, that camera's images, one per plan, row by row, `SHEET_COLUMNS` in a row; what a
                 policy thought at each plan is there as a camera's image too

Frames are compressed and images kept small as they come, so that a long episode takes little memory.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import av
import einops
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from molmoact2.evaluation.depth_tile import thought_tile
from molmoact2.evaluation.ledger import write_whole
from molmoact2.types import ActionChunk, DepthReasoning, Environment, Image, Observation, Outcome

FILM_CAMERA = "overview"
FILM_HEIGHT, FILM_WIDTH = 360, 480
CAMERA_PREFIX = "camera/"
THOUGHT = "its depth map"
"""Stands where a camera's name stands, for what a policy thought."""
SHEET_COLUMNS = 16


class FilmedEnvironment(Environment, Protocol):
    """An environment with a camera for people, whose joints can be read without rendering."""

    def render(self, camera: str, *, height: int, width: int) -> NDArray[np.uint8]:
        """Return the view [height, width, 3] of the camera named `camera`; "overview" is the one for people."""
        ...

    def joint_state(self) -> NDArray[np.floating]:
        """Return the state [state_dim] as `observe` would."""
        ...


Judge: TypeAlias = Callable[[str, DepthReasoning], float]
"""Says how far a thought about what a camera sees now is from the true depth: the mean distance in millimetres."""


class Film:
    """Observer that films one episode of an environment."""

    def __init__(self, environment: FilmedEnvironment, judge: Judge | None = None) -> None:
        """`judge` knows the true depth; without it thoughts are shown without their errors."""
        self.environment = environment
        self.judge = judge
        self.video = VideoEncoder(height=FILM_HEIGHT, width=FILM_WIDTH, frames_per_second=round(environment.control_hz))
        self.steps: list[int] = []
        self.chunks: list[NDArray[np.float32]] = []
        self.executed: list[NDArray[np.floating]] = []
        self.measured: list[NDArray[np.floating]] = []
        self.images: dict[str, list[Image]] = {}

    def planned(self, step: int, observation: Observation, chunk: ActionChunk, /) -> None:
        """Keep what the policy saw and planned."""
        if step == 0:
            self._expose()
        self.steps.append(step)
        self.chunks.append(chunk.actions)
        for name, image in (named_images(observation) | self._thought(observation, chunk.depth)).items():
            self.images.setdefault(name, []).append(image)

    def stepped(self, _step: int, executed: NDArray[np.floating], _outcome: Outcome, /) -> None:
        """Keep what was executed, and film it."""
        self.executed.append(executed)
        self._expose()

    def save(self, path: Path) -> None:
        """Write `path`.mp4 and `path`.npz, each whole or not at all."""
        archive = io.BytesIO()
        sheets = {CAMERA_PREFIX + name: contact_sheet(images) for name, images in self.images.items()}
        np.savez_compressed(
            archive,
            steps=np.array(self.steps),
            chunks=np.array(self.chunks, dtype=np.float32),
            executed=np.array(self.executed, dtype=np.float32),
            measured=np.array(self.measured, dtype=np.float32),
            poster=jpeg(self.last_frame),
            allow_pickle=False,
            **sheets,
        )
        write_whole(path.with_name(path.name + ".mp4"), self.video.finish())
        write_whole(path.with_name(path.name + ".npz"), archive.getvalue())

    def _thought(self, observation: Observation, thought: DepthReasoning | None) -> dict[str, Image]:
        """The thought as a picture like those of the cameras; none where there was no thought."""
        if thought is None:
            return {}
        camera, image = next(iter(named_images(observation).items()))
        error_mm = None if self.judge is None else self.judge(camera, thought)
        return {THOUGHT: thought_tile(thought, image, error_mm=error_mm)}

    def _expose(self) -> None:
        self.measured.append(self.environment.joint_state())
        self.last_frame = self.environment.render(FILM_CAMERA, height=FILM_HEIGHT, width=FILM_WIDTH)
        self.video.add(self.last_frame)


@dataclass(frozen=True, kw_only=True)
class Footage:
    """A film as it was saved."""

    video: bytes
    """MP4 file."""
    steps: NDArray[np.int64]
    """[plans] control step before which each plan was made."""
    chunks: NDArray[np.float32]
    """[plans, horizon, action_dim] planned rows."""
    executed: NDArray[np.float32]
    """[steps, action_dim] commands"""
    measured: NDArray[np.float32]
    """[steps + 1, state_dim] before each control step, and after the last"""
    poster: bytes
    """JPEG file of the last frame."""
    sheets: Mapping[str, bytes]
    """Camera name -> JPEG file with the images of all plans, `SHEET_COLUMNS` in a row."""


def read_footage(path: Path) -> Footage:
    """Read what `Film.save(path)` wrote."""
    with np.load(path.with_name(path.name + ".npz")) as archive:
        return Footage(
            video=path.with_name(path.name + ".mp4").read_bytes(),
            steps=archive["steps"],
            chunks=archive["chunks"],
            executed=archive["executed"],
            measured=archive["measured"],
            poster=archive["poster"].tobytes(),
            sheets={
                key.removeprefix(CAMERA_PREFIX): archive[key].tobytes()
                for key in archive.files
                if key.startswith(CAMERA_PREFIX)
            },
        )


def named_images(observation: Observation) -> dict[str, Image]:
    """The camera images by name; images that came without names are called by their position."""
    if isinstance(observation.images, Mapping):
        return dict(observation.images)
    return {f"camera {number}": image for number, image in enumerate(observation.images, start=1)}


def contact_sheet(images: list[Image]) -> NDArray[np.uint8]:
    """Return the images, uint8 [height, width, 3] each, row by row as one JPEG file."""
    blanks = [np.zeros_like(images[0])] * (-len(images) % SHEET_COLUMNS)
    tiles = np.stack([*images, *blanks])
    return jpeg(einops.rearrange(tiles, "(row column) h w c -> (row h) (column w) c", column=SHEET_COLUMNS))


def jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the bytes of a JPEG file of an image [height, width, 3]."""
    file = io.BytesIO()
    PillowImage.fromarray(image).save(file, format="jpeg", quality=85)
    return np.frombuffer(file.getvalue(), dtype=np.uint8)


class VideoEncoder:
    """Frames in, an H.264 file for browsers out; frames are compressed as they come. Both sides are even."""

    def __init__(self, *, height: int, width: int, frames_per_second: int) -> None:
        self.file = io.BytesIO()
        self.container = av.open(self.file, "w", format="mp4")
        self.stream = self.container.add_stream(
            "libx264", rate=frames_per_second, options={"crf": "24", "preset": "veryfast"}
        )
        self.stream.height, self.stream.width = height, width
        self.stream.pix_fmt = "yuv420p"
        self.stream.thread_count = 1

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Append one frame [height, width, 3]."""
        self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def finish(self) -> bytes:
        """Return the MP4 file; nothing can be added after that."""
        self.container.mux(self.stream.encode())
        self.container.close()
        return self.file.getvalue()
