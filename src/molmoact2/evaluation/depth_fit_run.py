"""Fitting a depth codec to a dataset from end to end: read depth, fit, measure on held-out episodes, write all of it.

What a stopped run has learnt lies beside the output, in a hidden folder; the same command goes on from there.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float32
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from molmoact2.data.convert import appearing
from molmoact2.data.errors import require
from molmoact2.data.files import write_json
from molmoact2.depth.codec import DepthCodec, fingerprint, save_codec
from molmoact2.depth.codec_config import CodecConfig
from molmoact2.depth.fit import FitSettings, fit_codec, store_levels
from molmoact2.evaluation.depth_fit import CodecQuality, measure_codec
from molmoact2.evaluation.depth_fit_data import DepthEpisodes, spread
from molmoact2.evaluation.depth_fit_report import draw_fit, make_example

REPORT_FILE, NUMBERS_FILE = "report.png", "fit.json"
EXAMPLE_FRAMES = 5
CHECKPOINT_EVERY = 100
"""Steps."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FittedCodec:
    """A codec and what is known of it."""

    codec: DepthCodec
    quality: CodecQuality
    log: Float32[np.ndarray, "steps logged"]


def fit_to_dataset(
    config: CodecConfig, episodes: DepthEpisodes, output: Path, *, settings: FitSettings, measured: int
) -> FittedCodec:
    """Fit a codec to the episodes that are not held out, and measure it on at most `measured` of those that are.

    `output` becomes a folder with the codec, the numbers (`fit.json`) and a picture (`report.png`); ValueError when it
    exists.
    """
    require(not output.exists(), f"{output} exists already. Choose a new folder.")
    work = output.absolute().with_name(f".{output.absolute().name}.fitting")
    work.mkdir(parents=True, exist_ok=True)
    held_out = spread(episodes.held_out, measured)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        depth = (episodes.depth(index) for index in _followed(progress, "Depth of episodes", episodes.fitted))
        stored = store_levels(depth, config.scale, work / "levels")
        fitting = progress.add_task("Steps of fitting", total=settings.steps)
        codec, log = fit_codec(
            config,
            stored.levels,
            settings=settings,
            checkpoint=work / "checkpoint.safetensors",
            checkpoint_every=CHECKPOINT_EVERY,
            on_step=lambda step, _line: progress.update(fitting, completed=step),
        )
        quality = measure_codec(codec, episodes.to_measure(_followed(progress, "Episodes measured", held_out)))
    fitted = FittedCodec(codec=codec, quality=quality, log=log)
    _write(fitted, episodes, output, settings)
    shutil.rmtree(work)
    return fitted


def _followed(progress: Progress, words: str, items: Iterable[T]) -> Iterator[T]:
    items = list(items)
    return iter(progress.track(items, description=words))


def _write(fitted: FittedCodec, episodes: DepthEpisodes, output: Path, settings: FitSettings) -> None:
    shown = episodes.depth(episodes.held_out[len(episodes.held_out) // 2])
    frames = np.unique(np.linspace(0, len(shown) - 1, EXAMPLE_FRAMES).round().astype(int)).tolist()
    numbers = {
        "dataset": episodes.dataset.root.resolve().name,
        "camera": episodes.camera,
        "source": episodes.source.name,
        "episodes_fitted": len(episodes.fitted),
        "fingerprint": fingerprint(fitted.codec),
        "settings": asdict(settings),
        "held_out": {name: _as_json(value) for name, value in fitted.quality.as_json().items()},
    }
    with appearing(output) as folder:
        save_codec(fitted.codec, folder)
        write_json(folder / NUMBERS_FILE, numbers)
        example = make_example(fitted.codec, shown, frames)
        draw_fit(folder / REPORT_FILE, fitted.codec, example, fitted.quality, fitted.log)


def _as_json(value: float) -> float | None:
    """JSON has no NaN."""
    return value if np.isfinite(value) else None
