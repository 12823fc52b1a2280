"""`molmoact2 evaluate`: success of a policy on unseen episodes, with intervals, films and a report."""

from collections.abc import Mapping
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
    variation: tuple[str, ...] = ()
    """How far scenes are from those of the recordings, as NAME=MAGNITUDE from 0 to 1, one or several: spatial (things
    start outside the recorded region), lighting, distractors (further objects), camera (the front one is displaced)."""
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
    think: bool = False
    """A checkpoint that was trained to think predicts the depth map before it acts."""
    think_ahead: bool = False
    """With --think, act on the depth map of the look before, and renew it for the next one."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which a checkpoint computes."""
    report: bool = True
    """Write the HTML report."""

    def run(self) -> None:
        """Run the episodes that are missing, print the table and write the report."""
        from rich.console import Console

        from molmoact2.envs.variations import Variations
        from molmoact2.evaluation.measure import measure
        from molmoact2.evaluation.policies import PolicyChoice
        from molmoact2.evaluation.report import write_report
        from molmoact2.evaluation.summary import task_table
        from molmoact2.evaluation.thoughts import thought_sentences
        from molmoact2.evaluation.workers import num_threads_per_worker

        choice = PolicyChoice(
            name=self.policy,
            environment=self.env,
            num_action_steps=self.action_steps,
            num_flow_steps=self.flow_steps,
            mode=self.mode,
            guided=self.guided,
            think=self.think,
            think_ahead=self.think_ahead,
            dtype=self.dtype,
            num_threads=num_threads_per_worker(self.workers) if self.workers > 1 else None,
        )
        variations = Variations.parse(self.variation)
        output = self.output or Path("runs") / self.run_name(choice.label, variations.active)
        records = measure(
            choice,
            output,
            tasks=self.tasks,
            num_episodes=self.episodes,
            num_workers=self.workers,
            num_films=self.films,
            variations=variations,
        )
        console = Console()
        console.print(task_table(records))
        for sentence in thought_sentences(records):
            console.print(sentence)
        console.print(f"Episodes: {output / 'episodes.jsonl'}")
        if self.report:
            console.print(f"Report:   {write_report(output)}")

    def run_name(self, label: str, magnitudes: Mapping[str, float]) -> str:
        """Folder of the run of a policy: its name, how it is asked, and how scenes are varied."""
        asked = [name.replace("_", "-") for name in ("think", "think_ahead") if vars(self)[name]]
        varied = [f"{name}-{magnitude:g}" for name, magnitude in magnitudes.items()]
        return "-".join(["evaluate", self.env, label.replace("/", "-"), *asked, *varied])
