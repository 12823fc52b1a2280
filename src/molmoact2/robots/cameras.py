"""Cameras: a thread each, that keeps the newest frame and throws the others away.

A camera is written "opencv:0", "opencv:/dev/video2", "realsense:SERIAL" or "zed:SERIAL"; "zed:" and "realsense:" alone
take the first one found.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from molmoact2.control.robot import Clock, Frame, RobotError
from molmoact2.registry import unknown
from molmoact2.robots.vendor import as_far_as_possible, device, driver
from molmoact2.types import Image

FIRST_FRAME_S = 5.0
"""How long a camera may take to begin."""
SILENCE_S = 2.0
"""How long a driver waits for a frame before the camera counts as lost."""


@dataclass(frozen=True, kw_only=True)
class CameraSettings:
    """The cameras of a robot."""

    cameras: dict[str, str] = field(default_factory=dict)
    """Name, as the checkpoint calls it -> device, such as "opencv:0", "realsense:SERIAL" or "zed:SERIAL"."""
    image_width: int = 640
    image_height: int = 480
    camera_fps: int = 30


class Source(Protocol):
    """One opened camera."""

    def grab(self) -> Image:
        """Wait for the next frame: [height, width, 3] uint8 RGB. A driver's error where none comes."""
        ...

    def close(self) -> None:
        """Let go of the camera."""
        ...


class OpenCvSource:
    """A USB camera, or anything else that OpenCV opens."""

    def __init__(self, name: str, settings: CameraSettings) -> None:
        cv2 = driver("cv2", install="pip install opencv-python")
        self._capture = cv2.VideoCapture(int(name) if name.isdigit() else name)
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.image_width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.image_height)
        self._capture.set(cv2.CAP_PROP_FPS, settings.camera_fps)
        if not self._capture.isOpened():
            raise RobotError(f"No camera opens as opencv:{name}. Is it plugged in, and used by nothing else?")

    def grab(self) -> Image:
        """The next frame; OpenCV gives blue first."""
        has_frame, image = self._capture.read()
        if not has_frame:
            raise RobotError("the camera gave no frame")
        return np.ascontiguousarray(image[..., ::-1])

    def close(self) -> None:
        """Free the device."""
        self._capture.release()


class RealSenseSource:
    """The colour stream of an Intel RealSense."""

    def __init__(self, name: str, settings: CameraSettings) -> None:
        rs = driver("pyrealsense2", install="pip install pyrealsense2")
        config = rs.config()
        if name:
            config.enable_device(name)
        size = (settings.image_width, settings.image_height)
        config.enable_stream(rs.stream.color, *size, rs.format.rgb8, settings.camera_fps)
        self._pipeline = rs.pipeline()
        self._pipeline.start(config)

    def grab(self) -> Image:
        """The next frame; the driver reuses its memory, so it is copied."""
        frames = self._pipeline.wait_for_frames(int(SILENCE_S * 1000))
        return np.array(frames.get_color_frame().get_data(), np.uint8)

    def close(self) -> None:
        """Stop the stream."""
        self._pipeline.stop()


class ZedSource:
    """The left eye of a Stereolabs ZED, as DROID uses it."""

    def __init__(self, name: str, settings: CameraSettings) -> None:
        self._sl = sl = driver("pyzed.sl", install="the ZED SDK and its Python API, from stereolabs.com")
        parameters = sl.InitParameters()
        parameters.camera_fps = settings.camera_fps
        parameters.depth_mode = sl.DEPTH_MODE.NONE
        if name:
            parameters.set_from_serial_number(int(name))
        self._size = sl.Resolution(settings.image_width, settings.image_height)
        self._camera, self._mat = sl.Camera(), sl.Mat()
        if (code := self._camera.open(parameters)) != sl.ERROR_CODE.SUCCESS:
            raise RobotError(f"No camera opens as zed:{name}: {code}.")

    def grab(self) -> Image:
        """The next frame, in the size that was asked for; ZED gives blue first, and an alpha."""
        if (code := self._camera.grab()) != self._sl.ERROR_CODE.SUCCESS:
            raise RobotError(f"the camera gave no frame: {code}")
        self._camera.retrieve_image(self._mat, self._sl.VIEW.LEFT, self._sl.MEM.CPU, self._size)
        return np.ascontiguousarray(self._mat.get_data()[..., 2::-1])

    def close(self) -> None:
        """Free the device."""
        self._camera.close()


SOURCES: dict[str, Callable[[str, CameraSettings], Source]] = {
    "opencv": OpenCvSource,
    "realsense": RealSenseSource,
    "zed": ZedSource,
}


class Camera:
    """The newest frame of a source, kept by a thread."""

    def __init__(self, name: str, source: Source, clock: Clock) -> None:
        self._name, self._source, self._clock = name, source, clock
        self._frame: Frame | None = None
        self._trouble: RobotError | None = None
        self._has_news, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"camera {name}", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        """Take every frame as it comes, until closed or until the camera fails."""
        try:
            while not self._is_over.is_set():
                with device(f"Camera {self._name!r}"):
                    self._frame = Frame(image=self._source.grab(), time_s=self._clock.now())
                self._has_news.set()
        except RobotError as error:
            self._trouble = error
        finally:
            self._has_news.set()

    def newest(self) -> Frame:
        """The newest frame, at once, but for the first; RobotError where the camera has failed."""
        self._has_news.wait(FIRST_FRAME_S)
        if self._frame is None and self._thread.is_alive():
            raise RobotError(f"Camera {self._name!r} gave no frame within {FIRST_FRAME_S:g} s.")
        if self._frame is None or not self._thread.is_alive():
            raise self._trouble or RobotError(f"Camera {self._name!r} has stopped.")
        return self._frame

    def close(self) -> None:
        """End the thread, then let go of the device."""
        self._is_over.set()
        self._thread.join(FIRST_FRAME_S)
        self._source.close()


class Cameras:
    """All cameras of a robot."""

    def __init__(self, settings: CameraSettings, clock: Clock) -> None:
        """Open every camera of the settings and wait for its first frame; or open none.

        RobotError where one does not open or shows nothing, ValueError for a kind or a driver that is not there.
        """
        self._cameras: dict[str, Camera] = {}
        makers = {name: source_of(spec) for name, spec in settings.cameras.items()}
        try:
            for name, (make, which) in makers.items():
                with device(f"Opening camera {name!r} ({settings.cameras[name]})"):
                    self._cameras[name] = Camera(name, make(which, settings), clock)
            self.look()
        except (RobotError, ValueError):
            self.close()
            raise

    def look(self) -> dict[str, Frame]:
        """The newest frame of each."""
        return {name: camera.newest() for name, camera in self._cameras.items()}

    def close(self) -> None:
        """Let go of all."""
        for name, camera in self._cameras.items():
            with as_far_as_possible("A camera"), device(f"Closing camera {name!r}"):
                camera.close()


def source_of(spec: str) -> tuple[Callable[[str, CameraSettings], Source], str]:
    """What opens "kind:which", and which; ValueError for a kind that is not known."""
    kind, _, which = spec.partition(":")
    if kind not in SOURCES:
        raise unknown("kind of camera", kind, SOURCES)
    return SOURCES[kind], which
