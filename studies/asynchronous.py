"""What acting while thinking costs: success in simulation by latency and by the way plans are joined (docs/run.md).

    python studies/asynchronous.py run                  # every condition on a virtual clock that is not done yet
    python studies/asynchronous.py run network-100      # over the network and in real time: start a server first,
                                                        # molmoact2 serve nano-so101 --port 8107
    python studies/asynchronous.py table                # what was measured, as Markdown

Scenes and noise are those of `molmoact2 evaluate --policy nano-so101 --episodes 34`, which is the condition
"in-process". Every episode is noted when it is over, so a run that was stopped goes on.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from molmoact2.client import Client
from molmoact2.control.clock import VirtualClock, WallClock
from molmoact2.control.guard import Guard, Mode
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Clock
from molmoact2.control.strategies import make_strategy
from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.evaluation.benchmark import FIRST_SEED
from molmoact2.evaluation.ledger import Record, open_ledger, read_records
from molmoact2.evaluation.live import LiveRun, Scene, SimulatedStage
from molmoact2.evaluation.live_keys import Operator
from molmoact2.evaluation.live_planners import Asking, PlannerSource, checkpoint_source, server_source
from molmoact2.evaluation.measure import measure
from molmoact2.evaluation.pairs import pair
from molmoact2.evaluation.policies import PolicyChoice
from molmoact2.evaluation.summary import summarise
from molmoact2.robots.simulated import SimulatedSettings, SimulatedSo101, open_simulated

OUTPUT = Path("runs/asynchronous")
POLICY, EPISODES, SERVER = "nano-so101", 34, "ws://127.0.0.1:8107"
REFERENCE = "in-process"
SPEED = 1.0
"""Of simulated time over the network: below 1 is slow motion, for cores that are shared with other work."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One way to execute."""

    words: str
    latency_s: float
    execution: str = "replan"
    options: dict[str, float | int] = field(default_factory=lambda: {"every": 12})
    is_networked: bool = False


CONDITIONS = {
    "virtual-0": Condition(words="replan every 12", latency_s=0.0),
    "virtual-100": Condition(words="replan every 12", latency_s=0.1),
    "virtual-200": Condition(words="replan every 12", latency_s=0.2),
    "virtual-400": Condition(words="replan every 12", latency_s=0.4),
    "every-8": Condition(words="replan every 8", latency_s=0.1, options={"every": 8}),
    "open-loop": Condition(words="open loop", latency_s=0.1, execution="open-loop", options={}),
    "real-time-12": Condition(words="real-time, every 12", latency_s=0.1, execution="real-time"),
    "real-time-8": Condition(words="real-time, every 8", latency_s=0.1, execution="real-time", options={"every": 8}),
    "real-time": Condition(words="real-time, always", latency_s=0.1, execution="real-time", options={}),
    "blend": Condition(words="blend over 0.2 s, always", latency_s=0.1, execution="blend", options={}),
    "ensemble": Condition(words="ensemble, always", latency_s=0.1, execution="ensemble", options={}),
    "network-100": Condition(words="over the network, replan every 12", latency_s=0.1, is_networked=True),
    "network-real-time": Condition(
        words="over the network, real-time, every 12", latency_s=0.1, execution="real-time", is_networked=True
    ),
}


def run(names: list[str]) -> None:
    """Run the conditions of these names, or those that need no server."""
    torch.set_num_threads(1)
    in_process()
    for name in names or [name for name, condition in CONDITIONS.items() if not condition.is_networked]:
        condition = CONDITIONS[name]
        protocol = {"policy": POLICY, "condition": repr(condition), "first_seed": FIRST_SEED}
        with open_ledger(OUTPUT / name, protocol) as ledger, opened(condition) as live:
            done = {(record["task"], record["seed"]) for record in ledger.records}
            for record in live.episodes(scene for scene in scenes() if (scene.task, scene.seed) not in done):
                ledger.append(record)
            print(f"{name}: {summarise(ledger.records).sentence}", flush=True)


def in_process() -> None:
    """The episodes of `molmoact2 evaluate`, where the world waits for the policy."""
    choice = PolicyChoice(name=POLICY, environment="so101", num_threads=1)
    measure(choice, OUTPUT / REFERENCE, tasks=(), num_episodes=EPISODES, num_workers=1)


def scenes() -> Iterator[Scene]:
    """Those of the evaluation, in its order."""
    for seed in range(FIRST_SEED, FIRST_SEED + EPISODES):
        for task in ("pick", "plate", "push"):
            yield Scene(task=task, seed=seed)


@contextmanager
def opened(condition: Condition) -> Iterator[LiveRun]:
    """A simulated arm that is run as the condition says."""
    asking = Asking(is_real_time=condition.execution == "real-time", added_latency_s=condition.latency_s)
    robot = open_simulated(SimulatedSettings(), WallClock(speed=SPEED) if condition.is_networked else VirtualClock())
    try:
        opener = over_the_network if condition.is_networked else on_a_virtual_clock
        with opener(robot.clock, asking) as source:
            yield live_run(robot, source, condition)
    finally:
        robot.close()


def live_run(robot: SimulatedSo101, source: PlannerSource, condition: Condition) -> LiveRun:
    """Guarded, and watched by nobody."""
    return LiveRun(
        robot=robot,
        stage=SimulatedStage(robot),
        source=source,
        strategy=make_strategy(condition.execution, **condition.options),
        guard_of_episode=partial(Guard, MotionLimits.of(robot.embodiment), mode=Mode.FULL),
        operator=Operator(),
        keys=str,
    )


@contextmanager
def over_the_network(clock: Clock, asking: Asking) -> Iterator[PlannerSource]:
    """A server that was started before."""
    with Client(SERVER) as client:
        yield server_source(client, SO101_TABLETOP, clock, asking)


@contextmanager
def on_a_virtual_clock(clock: Clock, asking: Asking) -> Iterator[PlannerSource]:
    """The checkpoint in this process, heard after exactly the latency."""
    yield checkpoint_source(POLICY, SO101_TABLETOP, clock, asking, is_virtual=True)


def table() -> None:
    """Print what was measured."""
    reference = read_records(OUTPUT / REFERENCE / "episodes.jsonl")
    print("| execution | latency | success | of in-process | 95 % | p |\n|---|---|---|---|---|---|")
    print(f"| in-process, the world waits | 0 | {summarise(reference).sentence} | | | |")
    for name, condition in CONDITIONS.items():
        records = read_records(OUTPUT / name / "episodes.jsonl")
        if len(records) == len(reference):
            print(row(condition, records, reference))


def row(condition: Condition, records: list[Record], reference: list[Record]) -> str:
    """One condition, compared scene by scene."""
    pairs = pair(reference, records)
    low, high = pairs.interval
    return (
        f"| {condition.words} | {1000 * condition.latency_s:.0f} ms | {summarise(records).sentence} | "
        f"{100 * pairs.difference:+.1f} | {100 * low:+.1f} to {100 * high:+.1f} | {pairs.p_value:.2f} |"
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", *names]:
            run(names)
        case ["table"]:
            table()
        case _:
            print(__doc__)
