"""Writing what happens along time for the Rerun viewer (rerun.io): pictures, cells, depth maps and numbers.

Needs the extra `view`. Paths are those of the viewer's tree: what is logged at `cameras/front/renewed` lies over the
picture at `cameras/front`.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.errors import require
from molmoact2.data.files import written_atomically
from molmoact2.evaluation.depth_pictures import depth_picture, spread
from molmoact2.evaluation.depth_truth import DepthTruth
from molmoact2.types import DepthReasoning, Image

VIEWER = "viewer"
"""Target that opens a window in place of writing a file."""
TRUTH_PICTURES, TRUTH_NUMBERS = ("metres/true", "metres/thought"), ("error_mm",)
"""What is logged where the true depth is known."""
JPEG_QUALITY = 90
RENEWED, KEPT = (255, 255, 255, 90), (0, 0, 0, 0)
"""Colours of cells over a picture, with their opacity."""


def import_rerun() -> ModuleType:
    """The library; ValueError where it is not installed."""
    try:
        return importlib.import_module("rerun")
    except ModuleNotFoundError as error:
        raise ValueError('--rerun needs rerun-sdk. Install it with: pip install "molmoact2[view]"') from error


@contextmanager
def open_rerun(target: str, *, pictures: Sequence[str], numbers: Sequence[str]) -> Iterator["RerunLog"]:
    """A recording for the viewer: a file that appears whole when the block ends, or a window that is opened at once.

        with open_rerun("episode.rrd", pictures=["cameras/front"], numbers=["state"]) as log:
            log.at(0, 0.0)
            log.image("cameras/front", image)
            log.numbers("state", ["pan", "lift"], state)

    `target` is the path of a .rrd file, or "viewer". Each path of `pictures` and of `numbers` gets a view of its own.
    Raises ValueError for another target, and where rerun is not installed.
    """
    require(
        target == VIEWER or Path(target).suffix == ".rrd",
        f'Rerun records to a file that ends in .rrd, or opens a window for "{VIEWER}"; got {target!r}.',
    )
    rerun: Any = import_rerun()
    blueprint = layout(pictures, numbers)
    recording: Any = rerun.RecordingStream("molmoact2")
    with ExitStack() as stack:
        if target == VIEWER:
            recording.spawn(default_blueprint=blueprint)
        else:
            recording.save(stack.enter_context(written_atomically(Path(target))), default_blueprint=blueprint)
        stack.callback(recording.disconnect)
        yield RerunLog(rerun, recording)


def layout(pictures: Sequence[str], numbers: Sequence[str]) -> Any:
    """Pictures in a row, lines over time below."""
    views: Any = importlib.import_module("rerun.blueprint")
    return views.Blueprint(
        views.Vertical(
            views.Horizontal(*(views.Spatial2DView(origin=path, name=path) for path in pictures)),
            views.Horizontal(*(views.TimeSeriesView(origin=path, name=path) for path in numbers)),
            row_shares=[3, 2],
        ),
        collapse_panels=True,
    )


class RerunLog:
    """An open recording; see `open_rerun`."""

    def __init__(self, rerun: Any, recording: Any) -> None:
        self.rerun = rerun
        self.recording = recording

    def at(self, frame: int, time_s: float) -> None:
        """When what is logged from here on happened."""
        self.recording.set_time("frame", sequence=frame)
        self.recording.set_time("time", duration=time_s)

    def image(self, path: str, image: Image) -> None:
        """Log a picture."""
        self.recording.log(path, self.rerun.Image(image).compress(jpeg_quality=JPEG_QUALITY))

    def cells(self, path: str, renewed: NDArray[np.bool_], image: Image) -> None:
        """Log cells [side * side] that lie over a picture of the shape of `image`."""
        colours = [(0, "kept", KEPT), (1, "renewed", RENEWED)]
        self.recording.log(path, self.rerun.AnnotationContext(colours), static=True)
        self.recording.log(path, self.rerun.SegmentationImage(spread(renewed, image.shape[:2]).astype(np.uint8)))

    def depth(self, path: str, depth: NDArray[np.float32]) -> None:
        """Log a depth map [height, width] in metres."""
        self.recording.log(path, self.rerun.DepthImage(depth, meter=1.0))

    def numbers(self, path: str, names: Sequence[str], values: NDArray[np.floating]) -> None:
        """Log a number under each name."""
        for name, value in zip(names, values.tolist(), strict=True):
            self.recording.log(f"{path}/{name.replace(' ', '_')}", self.rerun.Scalars(value))


def log_thought(log: RerunLog, thought: DepthReasoning, truth: DepthTruth | None) -> None:
    """Log the map that was thought of, what is new in it, the gates, and the truth where it is known."""
    picture = depth_picture(thought)
    log.image("depth", picture)
    log.cells("depth/renewed", thought.changed, picture)
    log.numbers("cells", ["renewed"], np.array([thought.changed.sum()]))
    gates = np.zeros(0) if thought.gates is None else thought.gates
    log.numbers("gates", [f"layer {layer:02d}" for layer in range(len(gates))], gates)
    for known in filter(None, [truth]):
        for path, depth in zip(TRUTH_PICTURES, (known.truth, known.estimate), strict=True):
            log.depth(path, depth)
        log.numbers(*TRUTH_NUMBERS, ["thought", "codec"], np.array([known.error_mm, known.best_error_mm]))


def numbered(names: Sequence[str] | None, count: int) -> Sequence[str]:
    """The names, or numbers where there are none."""
    return names or [str(index) for index in range(count)]
