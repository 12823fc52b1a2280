"""`molmoact2 data convert SOURCE OUTPUT`: datasets in other formats become LeRobot v3.0."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional


@dataclass(frozen=True)
class Convert:
    """Turn LeRobot v2.1 or RLDS data into LeRobot v3.0.

    LeRobot v2.1 is converted without loss: the rows stay as they are, and video is joined or copied, never encoded
    again. The pictures of RLDS data sets (Open X-Embodiment, BridgeData) are encoded as H.264, which changes them a
    little.

    The new dataset appears when it is complete. A conversion that was interrupted leaves nothing there and begins anew.
    """

    source: Positional[str]
    """Folder of the data, or the id of a LeRobot v2.1 dataset on the Hugging Face hub."""
    output: Positional[Path]
    """Folder of the new dataset; it must not exist yet."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    only_with_video: bool = False
    """Leave out the episodes whose video is missing, and number the others anew; otherwise they are refused."""
    mapping: Path | None = None
    """TOML file that says which features of RLDS data are state, action, cameras and instruction, and the rate.
    BridgeData's are known."""
    splits: tuple[str, ...] = ()
    """Splits of RLDS data, one after the other; all of them by default."""

    def run(self) -> None:
        """Convert, and say what was."""
        from rich.console import Console

        from molmoact2.data.convert import convert_dataset

        conversion = convert_dataset(
            self.source,
            self.output,
            revision=self.revision,
            only_with_video=self.only_with_video,
            mapping=self.mapping,
            splits=self.splits,
        )
        console = Console()
        episodes, frames = f"{conversion.num_episodes:,} episodes", f"{conversion.num_frames:,} frames"
        console.print(f"Converted from {conversion.source}: {episodes}, {frames}. Pictures: {conversion.pictures}.")
        for camera, count in conversion.black_episodes.items():
            console.print(f"Camera {camera} is black in {count} of {conversion.num_episodes} episodes.")
        for _ in conversion.left_out[:1]:
            console.print(f"Left out, because their video is missing: {len(conversion.left_out):,} episodes.")
        console.print(f"Dataset: {self.output}")
