"""Cameras against stand-ins of OpenCV, RealSense and ZED: newest frame only, RGB, and what happens when one fails."""

import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vendor_modules import hide, install

from molmoact2.control.clock import VirtualClock
from molmoact2.control.robot import RobotError
from molmoact2.robots.cameras import Camera, Cameras, CameraSettings, source_of

RED, GREEN, BLUE = 200, 100, 50


class ByHand:
    """A source that gives a frame whenever the test says so, and fails when told to."""

    def __init__(self) -> None:
        self._level, self._go = 0, threading.Semaphore(0)
        self.failure: Exception | None = None
        self.is_closed = False

    def grab(self) -> np.ndarray:
        if not self._go.acquire(timeout=5):
            raise TimeoutError("the test said nothing")
        if self.failure is not None:
            raise self.failure
        self._level += 1
        return np.full((4, 6, 3), self._level, np.uint8)

    def close(self) -> None:
        self.is_closed = True

    def shoot(self) -> None:
        self._go.release()


def until(is_so: Callable[[], bool]) -> None:
    """Wait for another thread, at most five seconds."""
    end = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.001)


@pytest.fixture
def by_hand() -> Iterator[tuple[Camera, ByHand, VirtualClock]]:
    source, clock = ByHand(), VirtualClock()
    camera = Camera("front", source, clock)
    yield camera, source, clock
    source.shoot()
    camera.close()


def test_newest_frame_wins(by_hand: tuple[Camera, ByHand, VirtualClock]):
    camera, source, clock = by_hand
    source.shoot()
    assert camera.newest().image[0, 0, 0] == 1
    clock.sleep_until(2.0)
    source.shoot()
    source.shoot()
    until(lambda: camera.newest().image[0, 0, 0] == 3)
    assert camera.newest().time_s == 2.0
    assert camera.newest() is camera.newest(), "it does not wait for a new one"


def test_failed_camera_says_so_and_gives_no_old_frame(by_hand: tuple[Camera, ByHand, VirtualClock]):
    camera, source, _ = by_hand
    source.shoot()
    camera.newest()
    source.failure = OSError("device unplugged")
    source.shoot()
    with pytest.raises(RobotError, match=r"'front'.*unplugged"):
        until(lambda: camera.newest() is None)


def test_close_ends_the_thread_and_frees_the_device():
    source = ByHand()
    camera = Camera("front", source, VirtualClock())
    source.shoot()
    camera.newest()
    source.shoot()
    camera.close()
    assert source.is_closed
    with pytest.raises(RobotError, match="has stopped"):
        camera.newest()


class FakeCapture:
    """OpenCV's `VideoCapture`: blue first."""

    def __init__(self, name: int | str) -> None:
        self.name, self.asked = name, dict[int, float]()
        self.is_open = name != 9

    def set(self, what: int, value: float) -> bool:
        self.asked[what] = value
        return True

    def isOpened(self) -> bool:  # noqa: N802
        return self.is_open

    def read(self) -> tuple[bool, np.ndarray | None]:
        assert self.asked == {3: 32, 4: 24, 5: 30}
        time.sleep(0.001)
        is_lost = self.name == "/dev/lost"
        return (False, None) if is_lost else (True, np.full((24, 32, 3), (BLUE, GREEN, RED), np.uint8))

    def release(self) -> None:
        self.is_open = False


def fake_realsense() -> dict[str, Any]:
    """pyrealsense2, whose frames are views of memory that it reuses."""
    asked: dict[str, Any] = {}

    class Config:
        def enable_device(self, serial: str) -> None:
            asked["serial"] = serial

        def enable_stream(self, *stream: Any) -> None:
            asked["stream"] = stream

    class Pipeline:
        memory = np.zeros((24, 32, 3), np.uint8)

        def start(self, config: Config) -> None:
            assert isinstance(config, Config)
            assert asked == {"serial": "0123", "stream": ("color", 32, 24, "rgb8", 30)}

        def wait_for_frames(self, timeout_ms: int) -> SimpleNamespace:
            assert timeout_ms > 100
            time.sleep(0.001)
            self.memory[:] = (RED, GREEN, BLUE)
            colour = SimpleNamespace(get_data=lambda: self.memory)
            return SimpleNamespace(get_color_frame=lambda: colour)

        def stop(self) -> None: ...

    names = {"stream": SimpleNamespace(color="color"), "format": SimpleNamespace(rgb8="rgb8")}
    return {"config": Config, "pipeline": Pipeline, **names}


def fake_zed(code: str = "SUCCESS") -> dict[str, Any]:
    """pyzed.sl: blue first, with an alpha."""

    class InitParameters:
        serial = 0

        def set_from_serial_number(self, serial: int) -> None:
            self.serial = serial

    class Mat:
        def get_data(self) -> np.ndarray:
            return np.full((24, 32, 4), (BLUE, GREEN, RED, 255), np.uint8)

    class ZedCamera:
        def open(self, parameters: InitParameters) -> str:
            assert vars(parameters) == {"serial": 77, "camera_fps": 30, "depth_mode": "none"}
            return code

        def grab(self) -> str:
            time.sleep(0.001)
            return "SUCCESS"

        def retrieve_image(self, mat: Mat, view: str, memory: str, size: tuple[int, int]) -> None:
            assert isinstance(mat, Mat)
            assert (view, memory, size) == ("left", "cpu", (32, 24))

        def close(self) -> None: ...

    return {
        "InitParameters": InitParameters,
        "DEPTH_MODE": SimpleNamespace(NONE="none"),
        "Resolution": lambda width, height: (width, height),
        "Camera": ZedCamera,
        "Mat": Mat,
        "ERROR_CODE": SimpleNamespace(SUCCESS="SUCCESS"),
        "VIEW": SimpleNamespace(LEFT="left"),
        "MEM": SimpleNamespace(CPU="cpu"),
    }


@pytest.fixture
def vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = {"CAP_PROP_FRAME_WIDTH": 3, "CAP_PROP_FRAME_HEIGHT": 4, "CAP_PROP_FPS": 5}
    install(monkeypatch, "cv2", VideoCapture=FakeCapture, **constants)
    install(monkeypatch, "pyrealsense2", **fake_realsense())
    install(monkeypatch, "pyzed.sl", **fake_zed())


def settings(**cameras: str) -> CameraSettings:
    return CameraSettings(cameras=cameras, image_width=32, image_height=24)


@pytest.mark.usefixtures("vendors")
@pytest.mark.parametrize("spec", ["opencv:0", "opencv:/dev/video2", "realsense:0123", "zed:77"])
def test_every_camera_gives_red_first(spec: str):
    cameras = Cameras(settings(front=spec), VirtualClock())
    image = cameras.look()["front"].image
    cameras.close()
    assert image.shape == (24, 32, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image[0, 0].tolist() == [RED, GREEN, BLUE]


@pytest.mark.usefixtures("vendors")
def test_camera_that_does_not_open_closes_the_others():
    before = threading.active_count()
    with pytest.raises(RobotError, match="opencv:9"):
        Cameras(settings(front="opencv:0", wrist="opencv:9"), VirtualClock())
    until(lambda: threading.active_count() == before)


@pytest.mark.usefixtures("vendors")
def test_camera_without_a_first_frame_is_an_error():
    with pytest.raises(RobotError, match="no frame"):
        Cameras(settings(front="opencv:/dev/lost"), VirtualClock())


def test_zed_that_does_not_open_says_its_code(monkeypatch: pytest.MonkeyPatch):
    install(monkeypatch, "pyzed.sl", **fake_zed("CAMERA_NOT_DETECTED"))
    with pytest.raises(RobotError, match="CAMERA_NOT_DETECTED"):
        Cameras(settings(front="zed:77"), VirtualClock())


def test_unknown_kind_is_refused_before_anything_opens():
    with pytest.raises(ValueError, match="Did you mean 'opencv'"):
        source_of("opencvv:0")


@pytest.mark.parametrize(
    ("spec", "module"), [("opencv:0", "cv2"), ("realsense:1", "pyrealsense2"), ("zed:1", "pyzed.sl")]
)
def test_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch, spec: str, module: str):
    hide(monkeypatch, module)
    with pytest.raises(ValueError, match="Install it"):
        Cameras(settings(front=spec), VirtualClock())


def test_no_cameras_are_none():
    cameras = Cameras(CameraSettings(), VirtualClock())
    assert cameras.look() == {}
    cameras.close()
