"""A picture of how a run went: pointing error, flow loss, and success where snapshots were measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

SUCCESS_FILE = "success.json"
"""Step -> task -> [successes, episodes], in a run's folder."""
SMOOTHED_LOGS = 10


def draw_curves(folder: Path) -> Path:
    """Draw `learning.png` from a run's `metrics.jsonl` and, where it is there, `success.json`; return its path."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = folder / SUCCESS_FILE
    success = json.loads(measured.read_text(encoding="utf-8")) if measured.exists() else {}
    figure, axes = plt.subplots(1, 3 if success else 2, figsize=(13 if success else 9, 3.6), layout="constrained")
    _pointing(axes[0], rows)
    _flow(axes[1], rows)
    if success:
        _success(axes[2], success)
    begins = [row["step"] for row in rows if "flow" in row]
    for axis in axes:
        axis.set_xlabel("training step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if begins:
            axis.axvline(begins[0], color="black", linestyle=":", linewidth=1)
    path = folder / "learning.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _pointing(axis: Axes, rows: list[dict[str, Any]]) -> None:
    for name, label in (("held_out_error_cm", "the thing named"), ("held_out_renamed_error_cm", "another one named")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    axis.set(title="Pointing error on unseen scenes", ylabel="cm", yscale="log")
    axis.legend(frameon=False)


def _flow(axis: Axes, rows: list[dict[str, Any]]) -> None:
    steps, losses = np.array([(row["step"], row["flow"]) for row in rows if "flow" in row] or [(0, np.nan)]).T
    axis.plot(steps, losses, alpha=0.3)
    if len(losses) >= SMOOTHED_LOGS:
        smooth = np.convolve(losses, np.full(SMOOTHED_LOGS, 1 / SMOOTHED_LOGS), mode="valid")
        axis.plot(steps[SMOOTHED_LOGS - 1 :], smooth, color="C0")
    axis.set(title="Flow loss while acting is learned", yscale="log")


def _success(axis: Axes, success: Mapping[str, Mapping[str, tuple[int, int]]]) -> None:
    steps = sorted(success, key=int)
    for task in success[steps[0]]:
        rates = [100 * success[step][task][0] / success[step][task][1] for step in steps]
        axis.plot([int(step) for step in steps], rates, marker="o", markersize=3, label=task)
    axis.set(title="Success on unseen episodes", ylabel="%", ylim=(0, 101))
    axis.legend(frameon=False)
