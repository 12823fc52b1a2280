"""What a robot does, on one screen of a terminal: joints, plan, guard, and what was said lately."""

from collections import deque
from collections.abc import Sequence

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from molmoact2.control.guard import Mode
from molmoact2.control.observing import Silent, Tick
from molmoact2.control.plan import Plan, Trouble
from molmoact2.embodiments import Embodiment
from molmoact2.evaluation.live_counts import Counts
from molmoact2.evaluation.live_keys import HELP, Operator

BAR = 24
NUM_NOTES = 5
MODE_STYLES = {Mode.FULL: "green", Mode.SLOW: "yellow", Mode.HOLD: "red", Mode.SHADOW: "cyan"}


class Screen(Silent):
    """Observer that keeps what is on the screen; rich asks it whenever it draws."""

    def __init__(self, embodiment: Embodiment, ranges: Sequence[tuple[float, float]], operator: Operator) -> None:
        """`ranges` are the lowest and highest position of every joint: the ends of its bar."""
        self.embodiment = embodiment
        self.ranges = ranges
        self.operator = operator
        self.begin("", Counts())
        self.notes: deque[str] = deque(maxlen=NUM_NOTES)

    def begin(self, title: str, counts: Counts) -> None:
        """Another episode, counted by `counts`."""
        self.title = title
        self.counts = counts
        self.tick: Tick | None = None

    def ticked(self, tick: Tick, /) -> None:
        """Show this one."""
        self.tick = tick

    def planned(self, _plan: Plan, refusal: Trouble | None, /) -> None:
        """Say why a plan was dropped."""
        self.notes.extend([refusal.message] if refusal else [])

    def noted(self, time_s: float, note: str, /) -> None:
        """Show it among the last ones."""
        self.notes.append(f"{time_s:7.1f} s  {note}")

    def __rich__(self) -> RenderableType:
        """The screen as it is now."""
        tick = self.tick
        if tick is None:
            return Text(self.title)
        notes = Text("\n".join(tuple(self.notes)) or "-", style="dim")
        return Panel(
            Group(self._phase(tick), self._joints(tick), notes, Text(self._keys(), style="bold")),
            title=Text(self.title),
        )

    def _phase(self, tick: Tick) -> Text:
        tally, plan_age = self.counts.tally(), tick.plan_age_s
        age = "no plan" if plan_age is None else f"plan {1000 * plan_age:4.0f} ms old"
        numbers = (
            f"  {age}, latency {1000 * tally.latency_s:.0f} ms, {tally.plans_per_second:.1f} plans/s, "
            f"{tally.dropped} dropped, {tally.late_ticks} late ticks"
        )
        verdict, state = tick.verdict, "holding" if tick.verdict.is_holding else "moving"
        return Text.assemble(
            (f"{tick.instruction}\n", "bold"), (f"{verdict.mode}, {state}", MODE_STYLES[verdict.mode]), numbers
        )

    def _joints(self, tick: Tick) -> Table:
        """A row per joint: where it is and where it is told to go."""
        table = Table(box=None, padding=(0, 1))
        for column in ("joint", "", "is", "told", "unit"):
            table.add_column(column, justify="right" if column in ("is", "told") else "left")
        state = tick.reading.state if tick.reading is not None else np.full(len(self.ranges), np.nan)
        told = tick.verdict.proposal if tick.verdict.proposal is not None else np.full(len(self.ranges), np.nan)
        names, units = self.embodiment.action_names, self.embodiment.action_units
        for name, unit, limits, at, to in zip(names, units, self.ranges, state.tolist(), told.tolist(), strict=True):
            table.add_row(name, bar(at, to, *limits), f"{at:.4g}", f"{to:.4g}", unit)
        return table

    def _keys(self) -> str:
        draft = self.operator.draft
        return HELP if draft is None else f"new instruction (Enter gives it, Escape does not): {draft}_"


def bar(at: float, to: float, low: float, high: float) -> str:
    """A joint in its range: `|` where it is, `o` where it is told to go; nothing where that is not known."""
    cells = ["·"] * BAR
    for value, sign in ((to, "o"), (at, "|")):
        if np.isfinite(value):
            cells[int(np.clip((value - low) / (high - low), 0.0, 1.0) * (BAR - 1))] = sign
    return "".join(cells)


class Printer(Silent):
    """Observer for where there is no terminal: notes as lines."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def noted(self, time_s: float, note: str, /) -> None:
        """Print it."""
        self.console.print(Text(f"{time_s:7.1f} s  {note}"), soft_wrap=True)
