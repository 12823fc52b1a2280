"""What many episodes amount to: success per task with its interval, failures by reason, time per plan."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table

from molmoact2.evaluation.ledger import Record
from molmoact2.evaluation.statistics import wilson_interval

WRONG_OBJECT = "wrong object"
"""The failure of an episode in which something else was done than was asked for."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Some episodes, counted."""

    num_episodes: int
    num_successes: int
    failures: Mapping[str, int]
    """Reason -> episodes, the most frequent first."""

    @property
    def num_failures(self) -> int:
        """Episodes without success."""
        return self.num_episodes - self.num_successes

    @property
    def rate(self) -> float:
        """Successes per episode; 0 without episodes."""
        return self.num_successes / max(1, self.num_episodes)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the rate."""
        return wilson_interval(self.num_successes, self.num_episodes)

    @property
    def wrong_object_rate(self) -> float:
        """Episodes that failed because of the wrong object, per episode."""
        return self.failures.get(WRONG_OBJECT, 0) / max(1, self.num_episodes)

    @property
    def sentence(self) -> str:
        """For instance "47 of 50, 94 % (84-98)"."""
        low, high = self.interval
        return f"{self.num_successes} of {self.num_episodes}, {self.rate:.0%} ({100 * low:.0f}-{100 * high:.0f})"


@dataclass(frozen=True, kw_only=True)
class Tempo:
    """How fast a policy plans, and how often it looks."""

    control_hz: float
    num_action_steps: int
    """Actions executed per plan."""
    plan_seconds: float
    """Median wall-clock time of a plan."""
    plan_seconds_p95: float
    stage_seconds: Mapping[str, float]
    """Stage -> median seconds; empty when the policy reports no stages."""

    @property
    def replans_per_second(self) -> float:
        """How often the policy looks, in the robot's time, while planning takes none of it: control_hz / actions."""
        return self.control_hz / self.num_action_steps

    @property
    def blocking_replans_per_second(self) -> float:
        """How often a real robot would look if it stood still while the policy plans."""
        return 1 / (1 / self.replans_per_second + self.plan_seconds)

    @property
    def amortised_actions_per_second(self) -> float:
        """Executed actions per second of planning; not how often the policy looks."""
        return self.num_action_steps / self.plan_seconds


def summarise(records: Sequence[Record]) -> Summary:
    """Count episodes."""
    failures = Counter(record["failure"] for record in records if not record["success"])
    return Summary(
        num_episodes=len(records),
        num_successes=sum(record["success"] for record in records),
        failures=dict(failures.most_common()),
    )


def summarise_tasks(records: Sequence[Record]) -> dict[str, Summary]:
    """Count the episodes of each task, in the order in which the tasks appear."""
    tasks = dict.fromkeys(record["task"] for record in records)
    return {task: summarise([record for record in records if record["task"] == task]) for task in tasks}


def measure_tempo(records: Sequence[Record]) -> Tempo:
    """Pool the times of all plans of at least one episode. Each episode's first plan, which warms up, counts too."""
    plans = np.concatenate([record["each_plan_seconds"] for record in records])
    stages = dict.fromkeys(stage for record in records for stage in record["stage_seconds"])
    return Tempo(
        control_hz=records[0]["control_hz"],
        num_action_steps=records[0]["actions_per_plan"],
        plan_seconds=float(np.median(plans)),
        plan_seconds_p95=float(np.percentile(plans, 95)),
        stage_seconds={
            stage: float(np.median([r["stage_seconds"][stage] for r in records if stage in r["stage_seconds"]]))
            for stage in stages
        },
    )


def episode_line(record: Record) -> str:
    """One episode in a line for the terminal, with rich's markup."""
    mark = "[green]done[/]  " if record["success"] else "[red]failed[/]"
    time = f"{record['steps'] / record['control_hz']:4.1f} s, {record['plans']:2} plans of"
    reason = "" if record["success"] else f", {record['failure']}"
    return f"{mark}  {record['instruction']:<34} {time} {1000 * record['plan_seconds']['p50']:.0f} ms{reason}"


def task_table(records: Sequence[Record]) -> Table:
    """A table for the terminal: one row per task, and one for all."""
    table = Table(box=box.SIMPLE_HEAD, title="Success", title_justify="left", title_style="bold")
    table.add_column("task")
    for column in ("success", "rate", "95 % interval", WRONG_OBJECT):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("other failures")
    tasks = summarise_tasks(records)
    for task, summary in tasks.items():
        table.add_row(*_cells(task, summary))
    if len(tasks) > 1:
        table.add_section()
        table.add_row(*_cells("all", summarise(records)), style="bold")
    return table


def _cells(name: str, summary: Summary) -> list[str]:
    low, high = summary.interval
    others = ", ".join(f"{n} {reason}" for reason, n in summary.failures.items() if reason != WRONG_OBJECT)
    return [
        name,
        f"{summary.num_successes} / {summary.num_episodes}",
        f"{summary.rate:.1%}",
        f"{100 * low:.1f} - {high:.1%}",
        f"{summary.wrong_object_rate:.1%}",
        others or "-",
    ]
