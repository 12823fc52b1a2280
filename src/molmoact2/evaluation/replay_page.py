"""What another checkpoint would have done, as one HTML file: how far, when, and at its worst.

It fetches nothing, follows the reader's light or dark, and fits a phone.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from molmoact2.evaluation.ledger import write_whole
from molmoact2.evaluation.replay import Comparison, Difference
from molmoact2.evaluation.report import PAGE, data_url
from molmoact2.evaluation.training_page import path, sign, svg

NUM_MOMENTS = 6
"""Exchanges that are shown in full, those that differ most."""
MOST_POINTS = 400
"""Exchanges of a curve; of more, the largest of neighbours is drawn."""
LEAD = """Every question of the flight was asked again, of another checkpoint. It saw what was recorded at each moment,
so this says how its plans differ there and not where it would have taken the robot."""


def write_replay_page(
    output: Path, comparisons: Sequence[Comparison], *, other: str, method: Mapping[str, str]
) -> None:
    """Write the page, whole or not at all; `method` is said at its end."""
    write_whole(
        output,
        Template((PAGE / "replay.html").read_text(encoding="utf-8")).substitute(
            title=escape(f"Replay · {other}"),
            headline=escape(f"What {other} would have done"),
            lead=LEAD,
            robots="".join(robot_section(comparison) for comparison in comparisons),
            method="".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in method.items()),
            style="\n".join(
                (PAGE / name).read_text(encoding="utf-8") for name in ("style.css", "training.css", "replay.css")
            ),
        ),
    )


def robot_section(comparison: Comparison) -> str:
    """One embodiment: the table, the curves and the moments."""
    curves = "".join(curve(comparison, index) for index in range(len(comparison.names)))
    moments = "".join(moment(comparison, one) for one in comparison.most_different(NUM_MOMENTS))
    count = len(comparison.differences)
    return f"""<h2>{escape(comparison.embodiment)}</h2>
<p class="hint">{count} answers. The difference of two plans is taken row by row, in robot units.</p>
{table(comparison)}
<h2>Over the flight</h2>
<p class="hint">Mean difference of each answer, from the first to the last; every chart begins at 0.</p>
<div class="grid small">{curves}</div>
<h2>Where they differ most</h2>
<div class="lines"><span class="recorded"><i></i>recorded</span><span class="other"><i></i>the other</span></div>
{moments}"""


def comparison_table(comparison: Comparison) -> Table:
    """The same for a terminal."""
    drawn = Table("joint", "mean", "largest", title=f"Difference for {comparison.embodiment}")
    for name, unit, mean, largest in zip(
        comparison.names, comparison.units, comparison.mean, comparison.largest, strict=True
    ):
        drawn.add_row(name, f"{mean:.3g}{sign(unit)}", f"{largest:.3g}{sign(unit)}")
    return drawn


def table(comparison: Comparison) -> str:
    """Mean and largest difference of every joint."""
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))}</td>"
        f"<td class='number right'>{mean:.3g}{escape(sign(unit))}</td>"
        f"<td class='number right'>{largest:.3g}{escape(sign(unit))}</td></tr>"
        for name, unit, mean, largest in zip(
            comparison.names, comparison.units, comparison.mean, comparison.largest, strict=True
        )
    )
    return f"""<div class="scroll"><table><tr><th>joint</th><th class="right">mean difference</th>
<th class="right">largest difference</th></tr>{rows}</table></div>"""


def curve(comparison: Comparison, index: int) -> str:
    """The difference of one joint over the flight."""
    values = thinned(np.array([one.mean[index] for one in comparison.differences]))
    top = max(float(values.max()), float(np.finfo(np.float32).tiny))
    drawn = path(np.arange(len(values)), values, (0, max(1, len(values) - 1)), (0, 1.08 * top), "other")
    unit = sign(comparison.units[index])
    return figure(comparison.names[index], f"0 to {top:.3g}{unit}", drawn)


def thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most `MOST_POINTS` values, the largest of each group of neighbours."""
    groups = np.array_split(values, min(len(values), MOST_POINTS))
    return np.array([group.max() for group in groups])


def moment(comparison: Comparison, one: Difference) -> str:
    """One exchange: what was seen, and both plans."""
    eyes = "".join(
        f'<img alt="{escape(name)}" src="{data_url("image/jpeg", picture)}">' for name, picture in one.pictures.items()
    )
    plans = "".join(plan(comparison, one, index) for index in range(len(comparison.names)))
    words = f"<b>“{escape(one.instruction)}”</b> · answer {one.number}, session {escape(one.session[:8])}"
    return f"""<div class="card moment"><p class="words">{words}</p><div class="eyes">{eyes}</div>
<div class="grid small">{plans}</div></div>"""


def plan(comparison: Comparison, one: Difference, index: int) -> str:
    """Both plans of one joint."""
    lines = {"recorded": one.recorded[:, index], "other": one.other[:, index]}
    low, high = float(min(map(np.min, lines.values()))), float(max(map(np.max, lines.values())))
    room = max(0.08 * (high - low), 1e-6)
    steps, across = np.arange(len(one.other)), (0.0, float(max(1, len(one.other) - 1)))
    drawn = "".join(path(steps, values, across, (low - room, high + room), name) for name, values in lines.items())
    unit = sign(comparison.units[index])
    return figure(comparison.names[index], f"{low:.3g} to {high:.3g}{unit}", drawn)


def figure(name: str, span: str, paths: str) -> str:
    """A small chart with its name and its range."""
    caption = f"<b>{escape(name.replace('_', ' '))}</b><span class='number'>{escape(span)}</span>"
    return f"<figure><figcaption>{caption}</figcaption>{svg(paths)}</figure>"
