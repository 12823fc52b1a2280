"""Charts as SVG that a web page can hold: they take their colours from the page's style sheet and stretch with it.

Coordinates inside a chart are data: x in control steps, y in robot units, y up. Lines keep their width when a chart
is stretched; all words are left to the page.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HEADROOM = 0.08
"""Empty part of a chart above and below its lines."""
SMALLEST_SPAN = 4.0
"""Robot units that a chart spans at least, so that a joint that stays still looks still."""


def line(values: NDArray[np.floating], *, start: float = 0) -> str:
    """SVG path commands through `values` [n] at x = start, start + 1, ...; "" for none."""
    points = (f"{start + index:g} {-value:.2f}" for index, value in enumerate(values.tolist()))
    return "M" + "L".join(points) if len(values) else ""


def stairs(values: NDArray[np.floating], *, start: float = 0) -> str:
    """SVG path commands that hold each of `values` [n] for one step; "" for none."""
    moves = (f"{start + index:g} {-value:.2f}H{start + index + 1:g}" for index, value in enumerate(values.tolist()))
    return "M" + "L".join(moves) if len(values) else ""


def value_range(*lines: NDArray[np.floating]) -> tuple[float, float]:
    """Lowest and highest value of the lines, opened up to `SMALLEST_SPAN` around their middle."""
    values = np.concatenate([np.ravel(values) for values in lines])
    middle, half = (values.max() + values.min()) / 2, (values.max() - values.min()) / 2
    half = max(float(half), SMALLEST_SPAN / 2)
    return float(middle) - half, float(middle) + half


def joint_chart(
    *,
    steps: Sequence[int],
    planned: NDArray[np.floating],
    executed: NDArray[np.floating],
    measured: NDArray[np.floating] | None,
) -> str:
    """Chart of one joint: what every plan wanted, what was commanded, and where the joint was.

    Args:
        steps: [plans] control step before which each plan was made.
        planned: [plans, horizon]
        executed: [steps]
        measured: [steps + 1], or None where the state does not say what was commanded.
    """
    low, high = value_range(planned, executed, *([] if measured is None else [measured]))
    room = HEADROOM * (high - low)
    num_steps = max(len(executed), int(steps[-1]) + 1)
    plans = "".join(
        f'<path class="plan" data-plan="{index}" d="{stairs(rows, start=step)}"/>'
        for index, (step, rows) in enumerate(zip(steps, planned, strict=True))
    )
    position = "" if measured is None else f'<path class="measured" d="{line(measured)}"/>'
    return (
        f'<svg class="joint" preserveAspectRatio="none" aria-hidden="true" '
        f'viewBox="0 {-high - room:.2f} {num_steps} {high - low + 2 * room:.2f}">'
        f'{position}<path class="executed" d="{stairs(executed)}"/>{plans}'
        f'<path class="cursor" d="M0 {-high - room:.2f}V{-low + room:.2f}"/></svg>'
    )


def interval_bar(rate: float, interval: tuple[float, float]) -> str:
    """A rate between 0 and 1 as a dot on its confidence interval, on a track from 0 to 1."""
    low, high = interval
    return (
        '<span class="track" aria-hidden="true">'
        f'<span class="interval" style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></span>'
        f'<span class="rate" style="left:{100 * rate:.1f}%"></span></span>'
    )
