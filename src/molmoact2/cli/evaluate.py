"""`molmoact2 evaluate`: success of a policy on unseen episodes, with intervals, films and a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure how often a policy succeeds.

    Every policy meets the same unseen scenes. Each finished episode is noted on disk, and a run that was interrupted
    goes on where it was. Prints success per task with 95 % intervals and writes an HTML report with films.
    """

    policy: str
    """Checkpoint folder or hub id; or "expert", the scripted teacher, or "hold", a robot that holds still."""
    env: str = "so101"
    """Environment."""
    episodes: int = 50
    """Episodes per task."""
    tasks: tuple[str, ...] = ()
    """Tasks of the environment; all of them by default."""
    output: Path | None = None
    """Folder of the run; by default one under runs/ named after the environment and the policy."""
    workers: int = 1
    """Processes that run episodes side by side."""
    films: int = 2
    """Episodes per task that the report shows."""
    action_steps: int | None = None
    """Actions that are executed before the policy looks again; the checkpoint's own number by default."""
    flow_steps: int | None = None
    """Steps of the flow sampler; the checkpoint's own number by default."""
    mode: Literal["continuous", "discrete"] = "continuous"
    """Whether a checkpoint integrates the flow or says its actions."""
    guided: bool = False
    """In discrete mode, say only tokens that still fit into the chunk, so that every spoken action is whole; otherwise
    an episode in which the checkpoint miscounts has failed."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which a checkpoint computes."""
    report: bool = True
    """Write the HTML report."""

    def run(self) -> None:
        """Run the episodes that are missing, print the table and write the report."""
        from rich.console import Console

        from molmoact2.evaluation.measure import measure
        from molmoact2.evaluation.policies import PolicyChoice
        from molmoact2.evaluation.report import write_report
        from molmoact2.evaluation.summary import task_table
        from molmoact2.evaluation.workers import num_threads_per_worker

        choice = PolicyChoice(
            name=self.policy,
            environment=self.env,
            num_action_steps=self.action_steps,
            num_flow_steps=self.flow_steps,
            mode=self.mode,
            guided=self.guided,
            dtype=self.dtype,
            num_threads=num_threads_per_worker(self.workers) if self.workers > 1 else None,
        )
        output = self.output or Path("runs") / f"evaluate-{self.env}-{choice.label.replace('/', '-')}"
        records = measure(
            choice,
            output,
            tasks=self.tasks,
            num_episodes=self.episodes,
            num_workers=self.workers,
            num_films=self.films,
        )
        console = Console()
        console.print(task_table(records))
        console.print(f"Episodes: {output / 'episodes.jsonl'}")
        if self.report:
            console.print(f"Report:   {write_report(output)}")
