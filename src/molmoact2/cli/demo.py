"""`molmoact2 demo`: the bundled policy moves the simulated arm, and a report shows what it saw, planned and did."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Watch the bundled policy work, and get a report.

    A few scenes of every task that it was not trained on. Prints each episode as it ends, then the path of an HTML
    report with films, the camera images beside the plans, and the time each stage took.
    """

    policy: str = "nano-so101"
    """Checkpoint folder or hub id, "expert" or "hold"; a bundled policy by default."""
    episodes: int = 3
    """Episodes per task, all of them filmed."""
    output: Path | None = None
    """Folder of the run; by default a new one under runs/ that is named after the time."""
    workers: int = 2
    """Processes that run episodes side by side."""

    def run(self) -> None:
        """Run the episodes and write the report."""
        from datetime import datetime

        from rich.console import Console

        from molmoact2.evaluation.measure import measure
        from molmoact2.evaluation.policies import PolicyChoice
        from molmoact2.evaluation.report import write_report
        from molmoact2.evaluation.summary import episode_line, task_table
        from molmoact2.evaluation.workers import num_threads_per_worker

        choice = PolicyChoice(
            name=self.policy,
            environment="so101",
            num_threads=num_threads_per_worker(self.workers),
        )
        output = self.output or Path("runs") / f"demo-{datetime.now():%Y-%m-%d-%H%M%S}"
        records = measure(
            choice,
            output,
            tasks=(),
            num_episodes=self.episodes,
            num_workers=self.workers,
            num_films=self.episodes,
            announce=episode_line,
        )
        console = Console()
        console.print(task_table(records))
        console.print(f"Report: {write_report(output).resolve().as_uri()}", soft_wrap=True)
