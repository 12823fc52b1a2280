"""One chunk of a policy, to be looked at: as a table, and as a picture beside what the policy saw.

`read_observation` takes the observation from image files, `dataset_sample` from a recorded dataset, together with what
was recorded to happen next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError
from rich import box
from rich.table import Table

from molmoact2.data import LeRobotDataset, action_chunks
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.evaluation.depth_view import DepthView
from molmoact2.evaluation.film import named_images
from molmoact2.types import ActionChunk, Observation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from molmoact2.processing import TagStats

PLANNED, RECORDED, QUIET = "#c2410c", "#1c1d20", "#65676e"
PANELS_PER_ROW = 3
THOUGHT_HEIGHT = 3.1
"""Inches of the row of pictures of a thought."""
ROW_RATIO, GATES_RATIO = 4.6, 0.6
"""Width of the row and of the gates in it, in heights of a picture."""


@dataclass(frozen=True, kw_only=True)
class ActionSpace:
    """What the numbers of an action mean."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    """One per dimension; "" where unknown."""
    control_hz: float | None
    """Actions per second, where known."""
    num_action_steps: int
    """Rows of a chunk that are executed before the policy looks again."""


def action_space(tag: "TagStats") -> ActionSpace:
    """Names from the checkpoint; units and rate from the table of embodiments, for tags that it has."""
    known = EMBODIMENTS.get(tag.tag)
    numbered = tuple(f"action {index}" for index in range(tag.action.width))
    return ActionSpace(
        names=tag.action.names or (known.action_names if known else numbered),
        units=known.action_units if known else ("",) * tag.action.width,
        control_hz=known.control_hz if known else None,
        num_action_steps=tag.n_action_steps,
    )


def read_observation(images: Sequence[Path], state: Sequence[float], instruction: str) -> Observation:
    """Read an observation whose images are in the order of the robot's cameras; ValueError for a file that is none."""
    return Observation(
        images=[read_image(path) for path in images],
        state=np.array(state, dtype=np.float32),
        instruction=instruction,
    )


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the picture in a file as [height, width, 3] RGB; ValueError when it holds none."""
    try:
        with PillowImage.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (FileNotFoundError, IsADirectoryError, UnidentifiedImageError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}). Give PNG or JPEG files.") from None


def dataset_sample(directory: Path, index: int, horizon: int) -> tuple[Observation, NDArray[np.float32]]:
    """Return frame `index` of a dataset and the actions [at most horizon, action_dim] that were recorded from it on."""
    dataset = LeRobotDataset(directory)
    frame = dataset.frame(index)
    chunks, is_pad = action_chunks(dataset.actions, [index], dataset.episode_ends[[index]], horizon)
    observation = Observation(images=frame.images, state=frame.state, instruction=frame.task)
    return observation, chunks[0][~is_pad[0]].astype(np.float32)


def action_table(chunk: ActionChunk, space: ActionSpace) -> Table:
    """The rows of a chunk by time; those that would not be executed any more are dim."""
    table = Table(box=box.SIMPLE_HEAD, title="Actions", title_justify="left", title_style="bold")
    table.add_column("step" if space.control_hz is None else "time", justify="right")
    for name, unit in zip(space.names, space.units, strict=True):
        table.add_column(f"{name.replace('_', ' ')}\n[dim]{unit}[/]", justify="right", min_width=8)
    for step, row in enumerate(chunk.actions):
        moment = str(step) if space.control_hz is None else f"{step / space.control_hz:.2f} s"
        style = "" if step < space.num_action_steps else "dim"
        table.add_row(moment, *(f"{value:.2f}" for value in row), style=style)
    return table


def plot_prediction(
    path: Path,
    observation: Observation,
    chunk: ActionChunk,
    space: ActionSpace,
    *,
    recorded: NDArray[np.float32] | None = None,
    thought: DepthView | None = None,
) -> None:
    """Draw the camera images beside every action dimension over time, and what was recorded and thought, where given.

    `recorded` is [steps, action_dim]. The suffix of `path` decides the format.
    """
    from matplotlib.figure import Figure

    images = named_images(observation)
    num_rows = -(-len(space.names) // PANELS_PER_ROW)
    heights = [0.6 + max(1.7 * num_rows, 2.4 * len(images)), *[THOUGHT_HEIGHT] * (thought is not None)]
    figure = Figure(figsize=(11.5, sum(heights)), layout="constrained", facecolor="white")
    above, *below = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    pictures, panels = above.subfigures(1, 2, squeeze=False, width_ratios=(1, 3.4))[0]
    figure.suptitle(f"“{observation.instruction}”", fontsize=14, fontweight="bold")
    for axes, (name, image) in zip(pictures.subplots(len(images), 1, squeeze=False).flat, images.items(), strict=True):
        axes.imshow(image)
        axes.set_title(name, fontsize=9, color=QUIET, loc="left")
        axes.set_axis_off()
    grid = panels.subplots(num_rows, PANELS_PER_ROW, squeeze=False, sharex=True)
    for index, axes in enumerate(grid.flat[: len(space.names)]):
        draw_dimension(axes, index, chunk, space, recorded)
    for axes in grid.flat[len(space.names) :]:
        axes.set_axis_off()
    panels.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside lower right", frameon=False, ncols=2)
    panels.supxlabel("steps" if space.control_hz is None else "seconds", fontsize=9, color=QUIET)
    for part, view in zip(below, filter(None, [thought]), strict=True):
        draw_thought(part, view)
    figure.savefig(path, dpi=130)


def draw_thought(part: "SubFigure", thought: DepthView) -> None:
    """Draw the pictures of a thought in a row, with the gates of the layers at its end, and its facts below."""
    ratios = [picture.shape[1] / picture.shape[0] for picture in thought.pictures.values()]
    gates = [] if thought.gates is None else [thought.gates]
    widths = [*ratios, *[GATES_RATIO] * len(gates)]
    rest = max(0.01, ROW_RATIO - sum(widths))
    *row, blank = part.subplots(1, len(widths) + 1, squeeze=False, width_ratios=[*widths, rest])[0]
    blank.set_axis_off()
    for axes, (title, picture) in zip(row, thought.pictures.items(), strict=False):
        axes.imshow(picture)
        axes.set_title(title, fontsize=9, color=QUIET, loc="left")
        axes.set_axis_off()
    for axes, values in zip(row[len(ratios) :], gates, strict=True):
        axes.bar(np.arange(len(values)), values, color=PLANNED, width=0.7)
        axes.set(ylim=(0, 1), xticks=[], yticks=[0, 1])
        axes.set_title("gates, by layer", fontsize=9, color=QUIET, loc="left")
        axes.tick_params(labelsize=8, colors=QUIET)
        axes.spines[["top", "right"]].set_visible(False)
    part.supxlabel(" · ".join(thought.facts), x=0.01, ha="left", fontsize=9, color=QUIET)


def draw_dimension(
    axes: "Axes", index: int, chunk: ActionChunk, space: ActionSpace, recorded: NDArray[np.float32] | None
) -> None:
    """Draw one action dimension: the plan, strong where it would be executed, and what was recorded."""
    values, period = chunk.actions[:, index], 1.0 if space.control_hz is None else 1 / space.control_hz
    times = np.arange(len(values)) * period
    executed = slice(0, space.num_action_steps)
    if recorded is not None:
        axes.plot(np.arange(len(recorded)) * period, recorded[:, index], color=RECORDED, lw=1.2, label="recorded")
    axes.plot(times, values, color=PLANNED, lw=1.5, alpha=0.4)
    axes.plot(times[executed], values[executed], color=PLANNED, lw=2.4, label="planned; strong where executed")
    axes.set_title(f"{space.names[index]} [{space.units[index]}]".removesuffix(" []"), fontsize=9, loc="left")
    axes.tick_params(labelsize=8, colors=QUIET)
    axes.spines[["top", "right"]].set_visible(False)
