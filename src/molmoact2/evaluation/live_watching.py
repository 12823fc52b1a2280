"""Everybody who watches a run: a screen, a recording, the Rerun viewer, the server's dashboard."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live

from molmoact2.control.guard import Guard
from molmoact2.control.observing import LoopObserver
from molmoact2.control.robot import Robot
from molmoact2.control.strategies import Strategy
from molmoact2.data.writer import DatasetWriter
from molmoact2.evaluation.ledger import Record
from molmoact2.evaluation.live import LiveRun, Stage
from molmoact2.evaluation.live_display import Printer, Screen
from molmoact2.evaluation.live_keys import Operator, open_terminal
from molmoact2.evaluation.live_planners import PlannerSource
from molmoact2.evaluation.live_recording import EpisodeRecorder, open_dataset
from molmoact2.evaluation.live_rerun import RerunObserver, viewer_paths
from molmoact2.evaluation.live_telemetry import Reporter
from molmoact2.evaluation.rerun_log import open_rerun

FRAMES_PER_SECOND = 8
"""Of the screen."""


@dataclass(frozen=True, kw_only=True)
class Watching:
    """What is wanted besides the screen."""

    record: Path | None = None
    """Dataset that episodes go to."""
    keep_all: bool = False
    """Whether those go there too that did not succeed."""
    rerun: str | None = None
    """What `open_rerun` calls a target."""


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """Writes the episodes that are worth keeping."""

    recorder: EpisodeRecorder
    writer: DatasetWriter
    keep_all: bool

    def keep(self, record: Record) -> None:
        """An episode is over."""
        if record["success"] or self.keep_all:
            self.recorder.save(self.writer, success=record["success"])
        self.recorder.discard()


@contextmanager
def watched_run(
    robot: Robot,
    stage: Stage,
    source: PlannerSource,
    strategy: Strategy,
    guard_of_episode: Callable[[], Guard],
    watching: Watching,
    console: Console,
) -> Iterator[LiveRun]:
    """A run that is watched; what is written is whole when the block ends.

    Raises ValueError for outputs that cannot be written, before anything moves.
    """
    operator = Operator()
    with ExitStack() as stack:
        observers: list[LoopObserver] = [Reporter(source.report, len(robot.embodiment.action_names))]
        roots = [] if watching.record is None else [watching.record]
        keepers = [stack.enter_context(keeping(root, robot, watching.keep_all)) for root in roots]
        observers += [keeper.recorder for keeper in keepers]
        for target in [] if watching.rerun is None else [watching.rerun]:
            pictures, numbers = viewer_paths(robot.look())
            log = stack.enter_context(open_rerun(target, pictures=pictures, numbers=numbers))
            observers.append(RerunObserver(log, robot.embodiment))
        terminal = stack.enter_context(open_terminal())
        screen = Screen(robot.embodiment, guard_of_episode().limits.ranges, operator)
        observers.append(screen if console.is_terminal else Printer(console))
        if console.is_terminal:
            stack.enter_context(Live(screen, console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True))

        def ended(record: Record) -> None:
            for keeper in keepers:
                keeper.keep(record)

        yield LiveRun(
            robot=robot,
            stage=stage,
            source=source,
            strategy=strategy,
            guard_of_episode=guard_of_episode,
            operator=operator,
            keys=terminal.keys,
            observers=observers,
            begun=screen.begin,
            ended=ended,
        )


@contextmanager
def keeping(root: Path, robot: Robot, keep_all: bool) -> Iterator[Keeper]:
    """A recording of `robot`; the dataset is valid at every moment, and brought into its final form in the end."""
    with open_dataset(root, robot) as writer:
        recorder = EpisodeRecorder(robot.embodiment.control_hz, root)
        try:
            yield Keeper(recorder=recorder, writer=writer, keep_all=keep_all)
        finally:
            recorder.discard()
