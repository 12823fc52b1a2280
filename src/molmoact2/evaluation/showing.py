"""An episode with depth, shown: as a contact sheet, as a video, and in the Rerun viewer, in one go."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import track

from molmoact2.data.errors import require
from molmoact2.evaluation.depth_drawing import check_output, write_views
from molmoact2.evaluation.depth_view import DepthView
from molmoact2.evaluation.rerun_log import RerunLog, open_rerun

Moment = TypeVar("Moment")


class Showable(Protocol[Moment]):
    """An episode that can be looked at moment by moment."""

    @property
    def num_moments(self) -> int:
        """How many there are."""
        ...

    @property
    def moments_per_second(self) -> float:
        """Of the robot's time."""
        ...

    @property
    def viewer_paths(self) -> tuple[Sequence[str], Sequence[str]]:
        """Pictures and groups of numbers that get a view of their own in the viewer."""
        ...

    def moments(self) -> Iterator[Moment]:
        """One after the other; making one may take long."""
        ...

    def view(self, moment: Moment, /) -> DepthView:
        """A moment as pictures."""
        ...

    def log(self, log: RerunLog, moment: Moment, /) -> None:
        """Log a moment for the viewer."""
        ...


def show(episode: Showable[Moment], *, output: Path | None, rerun: str | None) -> None:
    """Write a contact sheet (.png) or a video (.mp4), and record for the viewer, whichever is asked for.

    `rerun` is what `open_rerun` calls a target. Shows progress on stderr. Raises ValueError, before anything is
    computed, for outputs that cannot be written.
    """
    require(output is not None or rerun is not None, "There is nothing to do: give --output, --rerun, or both.")
    check_output(output)
    pictures, numbers = episode.viewer_paths
    with ExitStack() as stack:
        targets = [] if rerun is None else [rerun]
        logs = [stack.enter_context(open_rerun(target, pictures=pictures, numbers=numbers)) for target in targets]
        views = watched(episode, logs)
        if output is None:
            deque(views, maxlen=0)
            return
        write_views(output, views, frames_per_second=episode.moments_per_second)


def watched(episode: Showable[Moment], logs: Sequence[RerunLog]) -> Iterator[DepthView]:
    """The views of an episode, each moment logged before it is drawn."""
    console = Console(stderr=True)
    for moment in track(episode.moments(), "Looking", total=episode.num_moments, transient=True, console=console):
        for log in logs:
            episode.log(log, moment)
        yield episode.view(moment)
