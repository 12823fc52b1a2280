"""`molmoact2 run`: a policy moves an arm."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from molmoact2.control.robot import Robot
    from molmoact2.control.strategies import Strategy
    from molmoact2.evaluation.ledger import Record
    from molmoact2.evaluation.live import Scene, Stage
    from molmoact2.evaluation.live_planners import PlannerSource

LOOK_S = 2.0
"""How long the doctor looks at a robot."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Let a policy move an arm, real or simulated.

    The arm moves while the policy thinks. Between every plan and the motors stands the safety guard; real robots begin
    in shadow, where nothing is commanded, until you say otherwise. Keys: s success, f failure, space hold and resume,
    i another instruction, q stop. Ctrl-C holds the arm and ends. See docs/run.md.
    """

    robot: str
    """so101-sim, so101, yam, droid or dry-run."""
    settings: Path | None = None
    """robot.toml, which says what the robot is connected to; see docs/robots.md."""
    server: str | None = None
    """Ask this server, for instance ws://127.0.0.1:8000."""
    token_file: Path | None = None
    """File with the server's token."""
    policy: str | None = None
    """Ask a checkpoint in this process in place of a server."""
    instruction: str | None = None
    """What to do, in words; in simulation the scene's own by default."""
    mode: Literal["shadow", "slow", "full"] | None = None
    """What the guard lets through; shadow by default for real robots, full for others."""
    execution: Literal["open-loop", "replan", "ensemble", "blend", "real-time"] = "replan"
    """How plans are joined."""
    every: int | None = None
    """Rows of a plan after which the next one takes over, for replan; by default as many as in training."""
    episodes: int = 1
    """Episodes per task; on a real robot, episodes."""
    task: tuple[str, ...] = ()
    """Tasks of the simulation; all of them by default."""
    seed: int | None = None
    """Of the first simulated scene; by default that of `molmoact2 evaluate`."""
    seconds: float | None = None
    """Longest episode of a robot that is not simulated."""
    record: Path | None = None
    """LeRobot dataset to record episodes to; a new one, or one that was begun so."""
    keep_all: bool = False
    """Record aborted and failed episodes too; without it only those that succeeded are kept."""
    rerun: str | None = None
    """Record for the Rerun viewer: a .rrd file, or "viewer"."""
    added_latency: float = 0.0
    """Seconds for which every plan is held back, to see what a slow network would do."""
    flow_steps: int | None = None
    """Steps of the flow sampler; the checkpoint's own number by default."""
    think: bool = False
    """A policy that was trained to think predicts the depth map before it plans; the dashboard shows it."""
    think_ahead: bool = False
    """With --think, plan on the depth map of the look before, and renew it while the arm moves."""
    doctor: bool = True
    """Compare a real robot with the checkpoint before anything moves."""

    def run(self) -> None:
        """Run the episodes, and say what became of them."""
        from rich.console import Console

        from molmoact2.client import ConnectionLostError, RefusedError
        from molmoact2.control.robot import RobotError
        from molmoact2.evaluation.live_summary import episode_sentence, summary_lines

        console, records = Console(), []
        try:
            with ExitStack() as stack:
                for record in self._records(stack, console):
                    console.print(episode_sentence(record), soft_wrap=True)
                    records.append(record)
        except RobotError as error:
            raise ValueError(f"The robot does not answer: {error}") from None
        except (ConnectionLostError, RefusedError) as error:
            raise ValueError(f"The server at {self.server} does not answer: {error}") from None
        finally:
            for line in summary_lines(records) if records else []:
                console.print(line, soft_wrap=True)

    def _records(self, stack: ExitStack, console: "Console") -> "Iterator[Record]":
        """Open everything, then yield the record of each episode; what is open closes with `stack`."""
        from molmoact2.control.guard import Guard, Mode
        from molmoact2.control.limits import MotionLimits
        from molmoact2.evaluation.live_watching import Watching, watched_run
        from molmoact2.robots.catalog import entry_of, open_robot

        self._check()
        is_real = entry_of(self.robot).is_real
        mode = Mode(self.mode or ("shadow" if is_real else "full"))
        robot = open_robot(self.robot, self.settings)
        stack.callback(robot.close)
        source = self._source(robot, stack)
        if self.doctor and is_real:
            examine(self.robot, robot, source, console, may_move=mode is not Mode.SHADOW)
        is_attended = is_real and mode is not Mode.SHADOW and sys.stdin.isatty()
        stage, scenes = self._scenes(robot, begins_held=is_attended)
        watching = Watching(record=self.record, keep_all=self.keep_all, rerun=self.rerun)
        make_guard = partial(Guard, MotionLimits.of(robot.embodiment), mode=mode)
        guard_of_episode = cache(make_guard) if is_real else make_guard
        run = stack.enter_context(
            watched_run(robot, stage, source, self._strategy(source), guard_of_episode, watching, console)
        )
        yield from run.episodes(scenes)

    def _check(self) -> None:
        """Refuse, before anything is opened, what does not go together."""
        if (self.server is None) == (self.policy is None):
            raise ValueError("Say who plans: either --server URL or --policy CHECKPOINT.")
        if self.every is not None and self.execution not in ("replan", "real-time"):
            raise ValueError(f"--every is for --execution replan or real-time, not for {self.execution}.")
        if self.episodes < 1:
            raise ValueError(f"--episodes must be at least 1, got {self.episodes}.")

    def _source(self, robot: "Robot", stack: ExitStack) -> "PlannerSource":
        """Who plans."""
        from molmoact2.client import Client
        from molmoact2.evaluation.live_planners import Asking, checkpoint_source, server_source

        asking = Asking(
            is_real_time=self.execution == "real-time",
            added_latency_s=self.added_latency,
            num_flow_steps=self.flow_steps,
            think=self.think,
            think_ahead=self.think_ahead,
        )
        if self.policy is not None:
            return checkpoint_source(self.policy, robot.embodiment, robot.clock, asking)
        assert self.server is not None, "checked before"
        token = None if self.token_file is None else self.token_file.read_text(encoding="utf-8").strip()
        client = stack.enter_context(Client(self.server, token=token))
        return server_source(client, robot.embodiment, robot.clock, asking)

    def _strategy(self, source: "PlannerSource") -> "Strategy":
        """How plans are joined."""
        from molmoact2.control.strategies import make_strategy

        if self.execution == "replan":
            return make_strategy("replan", every=self.every or source.rows_per_plan)
        return make_strategy(self.execution, **({} if self.every is None else {"every": self.every}))

    def _scenes(self, robot: "Robot", *, begins_held: bool) -> "tuple[Stage, list[Scene]]":
        """Where episodes happen, and which."""
        from molmoact2.evaluation.benchmark import FIRST_SEED
        from molmoact2.evaluation.live import OpenStage, Scene, SimulatedStage
        from molmoact2.evaluation.setup import choose_tasks
        from molmoact2.robots.simulated import SimulatedSo101

        if isinstance(robot, SimulatedSo101):
            first = FIRST_SEED if self.seed is None else self.seed
            seeds = range(first, first + self.episodes)
            tasks = choose_tasks(robot.environment, self.task)
            scenes = [Scene(task=task, seed=seed) for seed in seeds for task in tasks]
            return SimulatedStage(robot, self.instruction), scenes
        if self.instruction is None:
            raise ValueError('Say what to do: --instruction "pick up the red cube".')
        stage = OpenStage(robot, self.instruction, self.seconds, begins_held=begins_held)
        return stage, [Scene(seed=self.seed)] * self.episodes


def examine(name: str, robot: "Robot", source: "PlannerSource", console: "Console", *, may_move: bool) -> None:
    """Compare the robot with the checkpoint; ValueError for problems, where it is to move."""
    from molmoact2.robots.catalog import entry_of
    from molmoact2.robots.doctor.examine import diagnose
    from molmoact2.robots.doctor.report import print_diagnosis
    from molmoact2.robots.doctor.sample import sample

    looked = sample(robot, LOOK_S, source=f"{name}, {entry_of(name).summary}")
    diagnosis = diagnose(looked, source.card, checkpoint=source.label, execution="asynchronous")
    print_diagnosis(diagnosis, console)
    if may_move and not diagnosis.is_healthy:
        raise ValueError(
            "This robot is not what the checkpoint expects: see above. Mend it, or run with --mode shadow, which moves "
            "nothing, or with --no-doctor if you know better."
        )
