"""The picture that `molmoact2 depth fit` leaves: maps beside what came back, use of the codes, and the losses."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float32

from molmoact2.data.files import written_atomically
from molmoact2.depth.codec import DepthCodec
from molmoact2.depth.fit import LOGGED
from molmoact2.depth.scale import resized
from molmoact2.evaluation.depth_fit import CodecQuality, Depth, reconstructed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SMOOTHED_STEPS = 25
"""Most steps over which the drawn losses are averaged."""
MOST_ERROR = 98
"""Per cent of the drawn errors that the colour bar covers; the rest gets its end."""


class Example(NamedTuple):
    """Whole maps of a few frames, to look at."""

    depth: Depth
    """True, resized as the codec sees it, in the unit of the source."""
    decoded: Depth
    errors: Depth
    """Absolute; 0 where the truth is outside a fixed scale."""
    limits: tuple[float, float]
    """Lowest and highest depth that is drawn."""


def make_example(codec: DepthCodec, depth: Depth, frames: list[int]) -> Example:
    """Encode and decode an episode, and keep some frames."""
    limits = codec.config.scale.limits(depth)
    decoded = reconstructed(codec, depth, codec.encode(depth))[frames]
    true = resized(depth[frames], codec.config.image_size)
    low, high = limits[frames, :1, None], limits[frames, 1:, None]
    errors = np.where((true >= low) & (true <= high), np.abs(decoded - true), 0)
    return Example(true, decoded, errors, (float(low.min()), float(high.max())))


def draw_fit(
    path: Path, codec: DepthCodec, example: Example, quality: CodecQuality, log: Float32[np.ndarray, "steps logged"]
) -> None:
    """Write the picture as PNG."""
    from matplotlib.figure import Figure

    count = len(example.depth)
    figure = Figure(figsize=(2.3 * count + 1.2, 10.2), layout="constrained")
    maps, curves = figure.subfigures(2, 1, squeeze=False, height_ratios=(6.9, 3.3))[:, 0]
    _draw_maps(maps, codec, example)
    left, right = curves.subplots(1, 2)
    _draw_usage(left, quality)
    _draw_losses(right, log)
    with written_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_maps(figure: "SubFigure", codec: DepthCodec, example: Example) -> None:
    """Three rows: true, decoded, error; a column per frame."""
    unit, factor = {"m": ("mm", 1000), "inverse": ("relative inverse depth", 1)}[codec.config.unit]
    low, high = (factor * limit for limit in example.limits)
    most = max(float(np.percentile(example.errors, MOST_ERROR)) * factor, 1e-6)
    colours = {"low": "inferno_r", "high": "inferno"}[codec.config.near_is]
    rows = (
        ("true", example.depth, {"vmin": low, "vmax": high, "cmap": colours}),
        ("from codes", example.decoded, {"vmin": low, "vmax": high, "cmap": colours}),
        ("error", example.errors, {"vmin": 0, "vmax": most, "cmap": "viridis"}),
    )
    panels = figure.subplots(len(rows), len(example.depth), squeeze=False)
    for line, (name, values, style) in zip(panels, rows, strict=True):
        drawn = [panel.imshow(value * factor, **style) for panel, value in zip(line, values, strict=True)]
        for panel in line:
            panel.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=11)
        extend = {"error": "max"}.get(name, "neither")
        figure.colorbar(drawn[0], ax=line, label=unit, extend=extend, fraction=0.02, pad=0.01)


def _draw_usage(panel: "Axes", quality: CodecQuality) -> None:
    usage = quality.usage
    shares = np.sort(usage.counts)[::-1] / usage.counts.sum()
    panel.bar(np.arange(len(shares)), 100 * shares, width=1.0, color="C0")
    panel.set(xlabel="codes, the most frequent first", ylabel="% of cells", xlim=(-0.5, len(shares) - 0.5))
    panel.set_title(f"{usage.num_used} of {len(shares)} codes used, perplexity {usage.perplexity:.0f}", fontsize=11)
    panel.grid(axis="y", alpha=0.3)


def _draw_losses(panel: "Axes", log: Float32[np.ndarray, "steps logged"]) -> None:
    window = int(np.clip(len(log) // 10, 1, SMOOTHED_STEPS))
    smooth = np.stack([np.convolve(column, np.ones(window) / window, "valid") for column in log.T])
    names = {"map_error": "map", "code_error": "features to vectors"}
    for name, words in names.items():
        panel.plot(np.arange(smooth.shape[1]) + window, smooth[LOGGED.index(name)], label=words)
    panel.set(xlabel="step", yscale="log", ylabel="loss, maps from -1 to 1")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=9)
