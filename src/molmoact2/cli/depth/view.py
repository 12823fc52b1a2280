"""`molmoact2 depth view DATASET --labels FOLDER`: the depth labels of an episode as a picture or a video."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class View:
    """Look at the depth labels of an episode.

    Draws the camera's images beside the depth of the frame's own codes and of the codes that a policy remembers by
    then, renewed cells outlined.
    """

    dataset: Positional[Path]
    """Folder of the LeRobot dataset that was labelled."""
    labels: Path
    """Folder of its labels, as `molmoact2 depth label` wrote it."""
    codec: Path | None = None
    """Folder of the codec of the labels, which turns codes into depth; by default the one that is kept with them. Where
    there is none, every code is a colour."""
    episode: int = 0
    """Episode to look at."""
    camera: str | None = None
    """Camera; by default the first that has labels."""
    true_depth: str | None = None
    """Source of the true depth, to draw and to measure errors: "simulator" or "feature:NAME". Needs the codec."""
    output: Path | None = None
    """What to write: a contact sheet (.png) or a video (.mp4); by default depth.png, or nothing with --rerun."""
    rerun: str | None = None
    """Record the episode for the Rerun viewer: a .rrd file, or "viewer" to open one."""

    def run(self) -> None:
        """Draw the episode."""
        from rich.console import Console

        from molmoact2.data import LeRobotDataset
        from molmoact2.data.depth_labels import DepthLabels
        from molmoact2.data.depth_run import CODEC_FOLDER
        from molmoact2.data.errors import require
        from molmoact2.depth.codec import load_codec
        from molmoact2.evaluation.depth_truth import open_truth
        from molmoact2.evaluation.label_view import LabelledEpisode
        from molmoact2.evaluation.showing import show

        output = self.output or (None if self.rerun else Path("depth.png"))
        dataset = LeRobotDataset(self.dataset)
        labels = DepthLabels.open(self.labels, dataset)
        camera = self.camera or labels.cameras[0]
        kept = next(iter(sorted(self.labels.rglob(CODEC_FOLDER))), None)
        folder = self.codec or kept
        codec = load_codec(folder) if folder else None
        require(bool(codec or not self.true_depth), "Errors of the labels need their codec: add --codec.")
        truth = open_truth(self.true_depth, dataset, self.episode, camera, codec) if self.true_depth and codec else None
        episode = LabelledEpisode(
            dataset=dataset, labels=labels, camera=camera, episode=self.episode, codec=codec, truth=truth
        )
        show(episode, output=output, rerun=self.rerun)
        for written in filter(None, (output, self.rerun)):
            Console().print(f"Written: {written}", soft_wrap=True)
