"""A picture of how a run went: pointing error, flow loss, and success where snapshots were measured."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

SUCCESS_FILE = "success.json"
"""Step -> task -> [successes, episodes], in a run's folder."""
SMOOTHED_LOGS, SHORTEST_SMOOTHED = 10, 40
WIDTH_PER_PANEL = 4.4
PANELS: tuple[dict[str, Any], ...] = (
    {
        "title": "Pointing error on unseen scenes",
        "names": {"scenes_error_m": "the thing named", "renamed_error_m": "another one named"},
        "factor": 100.0,
        "unit": "cm",
    },
    {
        "title": "Losses",
        "names": {"flow": "flow", "language": "language"},
        "factor": 1.0,
        "unit": "",
    },
    {
        "title": "Losses on what is held out",
        "names": {"held_out_flow": "flow", "held_out_language": "language", "questions_language": "words"},
        "factor": 1.0,
        "unit": "",
    },
)
"""What is drawn where a run has it: names in `metrics.jsonl` -> label."""


def draw_curves(folder: Path) -> Path:
    """Draw `learning.png` from a run's `metrics.jsonl` and, where it is there, `success.json`; return its path."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = folder / SUCCESS_FILE
    success = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else {}
    panels = [
        partial(_lines, rows=rows, **panel) for panel in PANELS if any(n in r for n in panel["names"] for r in rows)
    ]
    panels += [partial(_success, success=success)] * bool(success)
    width = WIDTH_PER_PANEL * len(panels)
    figure, axes = plt.subplots(1, len(panels), figsize=(width, 3.6), layout="constrained", squeeze=False)
    for axis, draw in zip(axes[0], panels, strict=True):
        draw(axis)
        axis.set_xlabel("training step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    path = folder / "learning.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _lines(
    axis: Axes, *, rows: list[dict[str, Any]], title: str, names: Mapping[str, str], factor: float, unit: str
) -> None:
    for name, label in ((name, label) for name, label in names.items() if any(name in row for row in rows)):
        steps, values = np.array([(row["step"], factor * row[name]) for row in rows if name in row]).T
        is_long = len(values) >= SHORTEST_SMOOTHED
        axis.plot(steps, values, alpha=0.3 if is_long else 1.0, color=None, label="" if is_long else label)
        if is_long:
            smooth = np.convolve(values, np.full(SMOOTHED_LOGS, 1 / SMOOTHED_LOGS), mode="valid")
            axis.plot(steps[SMOOTHED_LOGS - 1 :], smooth, color=axis.lines[-1].get_color(), label=label)
    axis.set(title=title, ylabel=unit, yscale="log")
    axis.legend(frameon=False)


def _success(axis: Axes, *, success: Mapping[str, Mapping[str, tuple[int, int]]]) -> None:
    steps = sorted(success, key=int)
    for task in success[steps[0]]:
        rates = [100 * success[step][task][0] / success[step][task][1] for step in steps]
        axis.plot([int(step) for step in steps], rates, marker="o", markersize=3, label=task)
    axis.set(title="Success on unseen episodes", ylabel="%", ylim=(0, 101))
    axis.legend(frameon=False)
