"""What is said at the end of a run: success with its interval, how often it looked, what was dropped and guarded."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.markup import escape

from molmoact2.evaluation.ledger import Record
from molmoact2.evaluation.summary import summarise


def summary_lines(records: Sequence[Record]) -> list[str]:
    """A few lines about at least one episode."""
    seconds = sum(record["seconds"] for record in records)
    plans = sum(record["plans"] for record in records)
    findings = Counter[str]()
    for record in records:
        findings.update(record["findings"])
    guarded = ", ".join(f"{kind} in {ticks} ticks" for kind, ticks in findings.most_common())
    return [
        f"Success   {summarise(records).sentence}",
        f"Plans     {plans / max(seconds, 1e-9):.2f} per second, executed {1000 * mean(records, 'plan_age_s'):.0f} ms "
        f"after what they saw; latency {1000 * mean(records, 'latency_s'):.0f} ms",
        f"Dropped   {sum(record['dropped'] for record in records)} plans of "
        f"{plans + sum(record['dropped'] for record in records)}",
        f"Loop      {sum(record['ticks'] for record in records)} ticks, "
        f"{sum(record['late_ticks'] for record in records)} late",
        f"Guard     {guarded or 'nothing found'}",
    ]


def episode_sentence(record: Record) -> str:
    """One episode in a line for the terminal, with rich's markup."""
    mark = "[green]done[/]  " if record["success"] else "[red]ended[/] "
    reason = "" if record["success"] else f", {record['failure']}"
    text = f"{record['instruction']:<34} {record['seconds']:5.1f} s, {record['plans']:2} plans{reason}"
    return f"{mark} {escape(text)}"


def mean(records: Sequence[Record], name: str) -> float:
    """Of the episodes in which there was something to measure."""
    return float(np.mean([record[name] for record in records if record[name]] or [0.0]))
