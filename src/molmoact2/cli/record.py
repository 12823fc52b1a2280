"""`molmoact2 record`: demonstrations of the scripted expert as a LeRobot dataset."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Record:
    """Record the scripted expert in simulation as a LeRobot dataset.

    Writes LeRobot v3.0 with exact labels of where things are. Episodes that the expert fails are counted and replaced
    by further ones. An interrupted recording is a valid dataset of what was finished; the same command continues it.
    """

    output: Path
    """Folder of the dataset."""
    env: str = "so101"
    """Environment."""
    episodes: int = 100
    """Recorded episodes per task."""
    tasks: tuple[str, ...] = ()
    """Tasks of the environment; all of them by default."""
    perturb: float = 0.5
    """Fraction of the episodes in which the arm is pushed off course, so that they show how to recover."""
    image_size: int = 128
    """Height and width of the camera images, in pixels; even."""
    seed: int = 0
    """Seed of the first scene; evaluation uses those from 1000000 on."""
    workers: int = 2
    """Processes that simulate."""

    def run(self) -> None:
        """Record what is missing and say what was recorded."""
        from rich.console import Console

        from molmoact2.evaluation.progress import follow
        from molmoact2.evaluation.recording import record_dataset
        from molmoact2.evaluation.setup import make_recording
        from molmoact2.evaluation.summary import summarise, task_table

        recording, protocol = make_recording(
            self.env,
            image_size=self.image_size,
            tasks=self.tasks,
            num_episodes=self.episodes,
            perturbed_fraction=self.perturb,
            first_seed=self.seed,
        )
        attempts = follow(
            record_dataset(recording, self.output, protocol, num_workers=self.workers),
            title="Recording",
            total=self.episodes * len(recording.tasks),
            count=lambda attempts: summarise(attempts).num_successes,
            describe=lambda attempts: f"the expert solved {summarise(attempts).rate:.1%}",
        )
        console = Console()
        console.print(task_table(attempts))
        console.print(f"Not written, because the expert failed: {summarise(attempts).num_failures} episodes")
        console.print(f"Dataset: {self.output}")
