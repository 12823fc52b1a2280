"""A progress bar for episodes: how many, how fast, how long still, and what they say so far."""

from collections.abc import Callable, Iterator

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from molmoact2.evaluation.ledger import Record


class SpeedColumn(ProgressColumn):
    """Episodes per second."""

    def render(self, task: Task) -> Text:
        """For instance "5.2/s", or nothing before the first episode."""
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="progress.data.speed")


def follow(
    runs: Iterator[list[Record]],
    *,
    title: str,
    total: int,
    count: Callable[[list[Record]], int],
    describe: Callable[[list[Record]], str],
    announce: Callable[[Record], str] | None = None,
) -> list[Record]:
    """Show the progress of a run that yields all its records after each episode; return the last ones.

    `count` says how many of the `total` the records amount to, `describe` what is written behind the bar, and
    `announce` what is printed about each new record, if anything.
    """
    records = next(runs)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        note = describe(records) if records else ""
        task = progress.add_task(title, total=total, completed=count(records), note=note)
        for records in runs:
            progress.update(task, completed=count(records), note=describe(records))
            if announce:
                progress.console.print(announce(records[-1]), soft_wrap=True)
    return records
