"""`molmoact2 depth fit DATASET`: a codec that turns depth maps into codes, for depth reasoning."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from rich.table import Table

    from molmoact2.evaluation.depth_fit_run import FittedCodec


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Fit a depth codec (a VQ-VAE) to the depth of a dataset, and measure it on held-out episodes.

    Writes a folder with the codec, its numbers (fit.json) and a picture to judge it by (report.png). A fit that was
    stopped goes on with the same command.

    Our recordings:  molmoact2 depth fit my_data --source simulator --output my_codec
    A depth camera:  molmoact2 depth fit my_data --source feature:observation.depth --output my_codec
    """

    dataset: Positional[Path]
    """Folder of a LeRobot dataset."""
    source: str
    """simulator: a recording of ours is simulated again. feature:NAME: a depth column or 16-bit depth pictures of the
    dataset. anything or anything:MODEL: Depth-Anything-V2 looks at the images."""
    output: Path
    """Folder to write; it must not exist yet."""
    camera: str | None = None
    """Camera whose depth is learnt; by default the first of the robot."""
    size: Literal["nano", "reference"] = "nano"
    """nano has 0.6 million parameters, the reference 7.7 million. Both make 100 codes of 128 from a map."""
    scale: Literal["fixed", "episode", "frame"] = "fixed"
    """What the ends of the scale are: fixed depths, the least and greatest of each episode, or of each frame. The
    published codec uses frame, which makes the codes of still cells flicker most."""
    low: float | None = None
    """Lower end of a fixed scale, in metres or relative inverse depth; what is beyond an end counts as the end. By
    default the 0.1st percentile of the depth."""
    high: float | None = None
    """Upper end of a fixed scale; by default the 95th percentile."""
    steps: int = 2000
    """Steps of fitting."""
    batch_size: int = 16
    """Maps per step."""
    learning_rate: float = 2e-3
    """Of Adam, at its highest."""
    hold_out: int = 10
    """Keep every so-many-th episode for measuring."""
    measure: int = 60
    """Most held-out episodes to measure on."""
    device: str = "cpu"
    """Where a depth estimator computes. The codec is fitted on the CPU."""
    seed: int = 0
    """Decides the first weights and which maps each step sees."""

    def run(self) -> None:
        """Fit, measure, write and print."""
        from rich.console import Console

        from molmoact2.cli.depth.label import first_camera
        from molmoact2.data.errors import require
        from molmoact2.data.reader import LeRobotDataset
        from molmoact2.depth.codec_config import SIZES, CodecConfig
        from molmoact2.depth.fit import FitSettings
        from molmoact2.evaluation.depth_fit_data import DepthEpisodes, choose_scale
        from molmoact2.evaluation.depth_fit_run import REPORT_FILE, fit_to_dataset
        from molmoact2.evaluation.depth_sources import choose_source

        require(not self.output.exists(), f"{self.output} exists already. Choose a new folder.")
        require(self.measure > 0, f"--measure must be at least 1, got {self.measure}.")
        settings = FitSettings(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
        )
        dataset = LeRobotDataset(self.dataset)
        camera = self.camera or first_camera(dataset)
        source = choose_source(self.source, dataset, (camera,), self.device).open(dataset)
        episodes = DepthEpisodes(dataset=dataset, source=source, camera=camera, hold_out=self.hold_out)
        scale = choose_scale(self.scale, self.low, self.high, episodes)
        channels, code_dim = SIZES[self.size]
        config = CodecConfig(channels=channels, code_dim=code_dim, scale=scale, unit=source.unit)
        fitted = fit_to_dataset(config, episodes, self.output, settings=settings, measured=self.measure)
        console = Console()
        console.print(quality_table(fitted))
        console.print(f"Codec: {self.output}\nPicture: {self.output / REPORT_FILE}", soft_wrap=True)


def quality_table(fitted: "FittedCodec") -> "Table":
    """The numbers of a fit."""
    from rich.table import Table

    config, quality, usage = fitted.codec.config, fitted.quality, fitted.quality.usage
    said = {"m": "{:.1f} mm", "inverse": "{:.3g}"}[config.unit].format
    factor = {"m": 1000, "inverse": 1}[config.unit]
    limits = "" if config.scale.low is None else f" from {config.scale.low:g} to {config.scale.high:g}"
    rows = {
        "scale": f"{config.scale.kind}{limits}",
        "codes used": f"{usage.num_used} of {len(usage.counts)}, perplexity {usage.perplexity:.0f}",
        "error, mean": said(factor * quality.errors.mean),
        "error, median": said(factor * quality.errors.median),
        "error where something moves, mean": said(factor * quality.moving_errors.mean),
        "error where something moves, median": said(factor * quality.moving_errors.median),
        "codes that change, of all": f"{quality.changes.value:.1%}",
        "codes that change, image unchanged": f"{quality.unchanged_flicker.value:.1%}",
        "codes that change, depth still": f"{quality.still_flicker.value:.1%}",
    }
    table = Table(title=f"{quality.num_frames:,} held-out frames", title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table
