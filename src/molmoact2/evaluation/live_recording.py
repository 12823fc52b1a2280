"""Episodes of a robot that moves, as a LeRobot dataset: what it saw and felt, and what it was told to do.

Pictures wait in a nameless file on disk until their episode is over, so that a long episode takes little memory and a
crash leaves nothing behind.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from molmoact2.control.observing import Silent, Tick
from molmoact2.control.robot import Frame, Robot
from molmoact2.data.files import INFO_PATH
from molmoact2.data.schema import DatasetSchema, Episode, ExtraColumn
from molmoact2.data.writer import DatasetWriter
from molmoact2.tokens.reading import require

SUCCESS = "success"
"""Column that says of every frame whether its episode ended well."""
ALMOST = 1e-6


def open_dataset(root: Path, robot: Robot) -> DatasetWriter:
    """A writer of episodes of `robot`: a new dataset, or one that was begun with the same robot.

    Raises ValueError for a folder that holds something else, and for pictures that cannot be stored.
    """
    schema = schema_of_robot(robot)
    if not (root / INFO_PATH).exists():
        return DatasetWriter(root, schema)
    writer = DatasetWriter.resume(root)
    require(
        writer.schema == schema,
        f"{root} holds episodes of another robot or of other cameras. Choose another folder to record to.",
    )
    return writer


def schema_of_robot(robot: Robot) -> DatasetSchema:
    """What recordings of a robot are made of: its cameras give the sizes that they give now."""
    embodiment, frames = robot.embodiment, robot.look()
    return DatasetSchema(
        fps=round(embodiment.control_hz),
        robot_type=embodiment.tag,
        state_names=embodiment.state_names,
        action_names=embodiment.action_names,
        image_sizes={name: (frame.image.shape[0], frame.image.shape[1]) for name, frame in frames.items()},
        extras={SUCCESS: ExtraColumn(dtype="bool", names=(SUCCESS,))},
    )


class EpisodeRecorder(Silent):
    """Observer that keeps one frame per control period, from the moment of the last change of the instruction on.

    What happens while a person holds the arm is left out.
    """

    def __init__(self, control_hz: float, folder: Path) -> None:
        """`folder` is where pictures wait; it has to be on a disk with room for them."""
        self.folder = folder
        self.period_s = 1 / control_hz
        self.forget()

    def forget(self) -> None:
        """Begin again with nothing."""
        self.instruction = ""
        self.next_s = -np.inf
        self.states: list[NDArray[np.float32]] = []
        self.actions: list[NDArray[np.float32]] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.files: dict[str, IO[bytes]] = {}
        self.stack = ExitStack()

    def ticked(self, tick: Tick, /) -> None:
        """Keep a frame, where one is due."""
        if tick.instruction != self.instruction:
            self.discard()
            self.instruction = tick.instruction
        command = tick.verdict.command
        is_due = not tick.waits_for_resume and tick.time_s >= self.next_s - ALMOST
        if tick.reading is None or command is None or not is_due:
            return
        self.next_s = max(self.next_s + self.period_s, tick.time_s + self.period_s / 2)
        for name, frame in tick.frames.items():
            self._keep(name, frame)
        self.states.append(tick.reading.state)
        self.actions.append(command)

    def save(self, writer: DatasetWriter, *, success: bool) -> int | None:
        """Write the episode and forget it; returns its index, None where nothing was commanded."""
        try:
            return writer.add_episode(self._episode(success)) if self.states else None
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget the episode, and free its pictures."""
        self.stack.close()
        self.forget()

    def _keep(self, name: str, frame: Frame) -> None:
        if name not in self.files:
            self.files[name] = self.stack.enter_context(tempfile.TemporaryFile(dir=self.folder))  # noqa: SIM115
            self.shapes[name] = frame.image.shape
        require(
            frame.image.shape == self.shapes[name],
            f"Camera {name!r} changed its size from {self.shapes[name]} to {frame.image.shape} during an episode.",
        )
        self.files[name].write(np.ascontiguousarray(frame.image).data)

    def _episode(self, success: bool) -> Episode:
        length = len(self.states)
        return Episode(
            images={name: self._pictures(name, length) for name in self.files},
            state=np.stack(self.states),
            action=np.stack(self.actions),
            task=self.instruction,
            extras={SUCCESS: np.full((length, 1), success)},
        )

    def _pictures(self, name: str, length: int) -> NDArray[Any]:
        """[length, height, width, 3] as they wait on disk."""
        self.files[name].flush()
        return np.memmap(self.files[name], np.uint8, mode="r", shape=(length, *self.shapes[name]))
