"""`molmoact2 predict`: one chunk of actions for pictures you have, or for a frame of a dataset."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from molmoact2.data import LeRobotDataset
    from molmoact2.evaluation.depth_view import DepthView
    from molmoact2.inference import MolmoAct2Policy
    from molmoact2.processing import TagStats
    from molmoact2.types import ActionChunk, Observation


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Ask a checkpoint for one chunk of actions.

    What it sees comes from picture files, a state and an instruction, or from a frame of a LeRobot dataset; then what
    was recorded is drawn beside what is planned. Prints the actions and, with --output, draws them; with --think the
    depth map that it thought of is drawn as well.

    A whole episode, and how what it thinks goes on from frame to frame:
        molmoact2 predict --policy checkpoint --dataset my_data --episode 3 --think --output thoughts.mp4
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
    episode: int | None = None
    """Episode of the dataset to walk through in one session, in place of one frame. Needs --think."""
    every: int = 1
    """Frames of the episode from one look to the next."""
    embodiment: str | None = None
    """Tag of the robot; needed where the checkpoint knows several."""
    mode: Literal["continuous", "discrete"] = "continuous"
    """Integrate the flow, or let it speak the actions."""
    think: bool = False
    """Predict the depth map first."""
    true_depth: str | None = None
    """Source of the dataset's true depth, to draw it and the error: "simulator" or "feature:NAME"."""
    seed: int = 0
    """Of the noise that the flow begins with."""
    output: Path | None = None
    """Picture to draw: PNG, PDF or SVG; of an episode a contact sheet (.png) or a video (.mp4)."""
    rerun: str | None = None
    """Record the episode for the Rerun viewer: a .rrd file, or "viewer" to open one."""

    def __post_init__(self) -> None:
        pictured = bool(self.images or self.state)
        if pictured == (self.dataset is not None):
            raise ValueError("Give either --images, --state and --instruction, or --dataset and --index.")
        if pictured and not (self.images and self.state and self.instruction):
            raise ValueError("A prediction from pictures needs all of --images, --state and --instruction.")
        thinks_of_data = self.think and self.dataset is not None
        for flag, is_given, can_be in (
            ("--episode and --true-depth need --dataset and --think", self.shows_data, thinks_of_data),
            ("--rerun and --every are for an episode: add --episode", self.rerun or self.every > 1, self.walks),
        ):
            if is_given and not can_be:
                raise ValueError(f"{flag}.")

    @property
    def walks(self) -> bool:
        """Whether a whole episode is looked at."""
        return self.episode is not None

    @property
    def shows_data(self) -> bool:
        """Whether something is asked for that only a dataset has."""
        return self.walks or self.true_depth is not None

    def run(self) -> None:
        """Print the actions and draw them; or walk through an episode."""
        from molmoact2.data import LeRobotDataset
        from molmoact2.inference import load_policy

        policy = load_policy(self.policy)
        tag = policy.processor.tag(self.embodiment)
        if self.dataset is None or self.episode is None:
            self.look_once(policy, tag)
        else:
            self.walk(policy, tag, LeRobotDataset(self.dataset), self.episode)

    def look_once(self, policy: "MolmoAct2Policy", tag: "TagStats") -> None:
        """Ask for one chunk, print it and draw it."""
        from dataclasses import replace

        from rich.console import Console

        from molmoact2.evaluation.prediction import (
            action_space,
            action_table,
            dataset_sample,
            plot_prediction,
            read_observation,
        )

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
            thought = self.view(policy, tag, observation, chunk)
            plot_prediction(self.output, observation, chunk, space, recorded=recorded, thought=thought)
            console.print(f"Picture: {self.output}")

    def view(
        self, policy: "MolmoAct2Policy", tag: "TagStats", observation: "Observation", chunk: "ActionChunk"
    ) -> "DepthView | None":
        """What was thought of a frame, as pictures; None when it was not asked to think."""
        from molmoact2.data import LeRobotDataset
        from molmoact2.evaluation.walk import truth_for, view_observation

        if chunk.depth is None:
            return None
        if self.dataset is None or self.true_depth is None:
            return view_observation(observation, chunk.depth, tag)
        dataset = LeRobotDataset(self.dataset)
        episode, frame = (int(dataset.column(name)[self.index]) for name in ("episode_index", "frame_index"))
        truth = truth_for(policy, tag, dataset, episode, self.true_depth).of(frame, chunk.depth.codes)
        return view_observation(observation, chunk.depth, tag, truth=truth)

    def walk(self, policy: "MolmoAct2Policy", tag: "TagStats", dataset: "LeRobotDataset", episode: int) -> None:
        """Look at an episode frame after frame, and show it."""
        from rich.console import Console

        from molmoact2.evaluation.showing import show
        from molmoact2.evaluation.walk import Walk, truth_for

        words = self.true_depth
        walk = Walk(
            policy=policy,
            tag=tag,
            dataset=dataset,
            episode=episode,
            every=self.every,
            instruction=self.instruction,
            options={
                "mode": self.mode,
                "num_action_steps": tag.action_horizon,
                "session": policy.new_session(self.seed),
            },
            truth=None if words is None else truth_for(policy, tag, dataset, episode, words),
        )
        show(walk, output=self.output, rerun=self.rerun)
        for written in filter(None, (self.output, self.rerun)):
            Console().print(f"Written: {written}", soft_wrap=True)
