"""`molmoact2 predict`: one chunk of actions for pictures you have, or for a frame of a dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Ask a checkpoint for one chunk of actions.

    What it sees comes from picture files, a state and an instruction, or from a frame of a LeRobot dataset; then what
    was recorded is drawn beside what is planned. Prints the actions and, with --output, draws them.
    """

    policy: str
    """Checkpoint folder or hub id."""
    images: tuple[Path, ...] = ()
    """Pictures, in the order of the robot's cameras."""
    state: tuple[float, ...] = ()
    """Where the joints are, in robot units."""
    instruction: str | None = None
    """What to do; for a dataset, in place of the recorded instruction."""
    dataset: Path | None = None
    """Folder of a LeRobot v3.0 dataset, in place of pictures and state."""
    index: int = 0
    """Frame of the dataset."""
    embodiment: str | None = None
    """Tag of the robot; needed where the checkpoint knows several."""
    mode: Literal["continuous", "discrete"] = "continuous"
    """Integrate the flow, or let it speak the actions."""
    think: bool = False
    """Predict the depth map first."""
    seed: int = 0
    """Of the noise that the flow begins with."""
    output: Path | None = None
    """Picture to draw: PNG, PDF or SVG."""

    def __post_init__(self) -> None:
        pictured = bool(self.images or self.state)
        if pictured == (self.dataset is not None):
            raise ValueError("Give either --images, --state and --instruction, or --dataset and --index.")
        if pictured and not (self.images and self.state and self.instruction):
            raise ValueError("A prediction from pictures needs all of --images, --state and --instruction.")

    def run(self) -> None:
        """Print the actions and draw them."""
        from dataclasses import replace

        from rich.console import Console

        from molmoact2.evaluation.prediction import (
            action_space,
            action_table,
            dataset_sample,
            plot_prediction,
            read_observation,
        )
        from molmoact2.inference import load_policy

        policy = load_policy(self.policy)
        tag = policy.processor.tag(self.embodiment)
        if self.dataset is None:
            observation, recorded = read_observation(self.images, self.state, self.instruction or ""), None
        else:
            observation, recorded = dataset_sample(self.dataset, self.index, tag.action_horizon)
            observation = replace(observation, instruction=self.instruction or observation.instruction)
        chunk = policy.act(
            observation,
            tag.tag,
            mode=self.mode,
            think=self.think,
            seed=self.seed,
            num_action_steps=tag.action_horizon,
        )
        console = Console()
        space = action_space(tag)
        console.print(f"[bold]“{observation.instruction}”[/]  as {tag.tag}")
        console.print(action_table(chunk, space))
        stages = ", ".join(f"{stage} {1000 * seconds:.1f} ms" for stage, seconds in chunk.timing.items())
        console.print(f"The first {space.num_action_steps} of {len(chunk.actions)} are executed. {stages}")
        if self.output:
            plot_prediction(self.output, observation, chunk, space, recorded=recorded)
            console.print(f"Picture: {self.output}")
