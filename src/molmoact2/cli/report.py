"""`molmoact2 report CHECKPOINT`: what came out of a training, as a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Report:
    """Say how well a checkpoint predicts held-out episodes, and what it looks at.

    Compares its plans with what was recorded, joint by joint, and with two baselines that see nothing; then asks again
    with cameras blanked, with other words and without the state. Writes an HTML page and a JSON file beside it. Nothing
    is executed: `molmoact2 evaluate` measures success.
    """

    checkpoint: Positional[str]
    """Checkpoint folder or hub id; or "nano-so101", the bundled policy."""
    dataset: Path
    """Folder of the LeRobot v3.0 dataset that has the held-out episodes."""
    episodes: tuple[str, ...] = ()
    """Held-out episodes: numbers such as 7, or ranges such as 90:100, which has 90 but not 100; those that the training
    really left out. By default the last tenth of the dataset, or all of it with --train-dataset."""
    train_dataset: Path | None = None
    """Dataset of the training, where it is another one; by default the episodes of --dataset that are not held out."""
    embodiment: str | None = None
    """Tag of the robot; needed where the checkpoint knows several."""
    run_folder: Path | None = None
    """Folder of the training run, whose loss curves are drawn."""
    frames: int = 200
    """Held-out frames that are looked at."""
    mode: Literal["continuous", "discrete"] = "continuous"
    """Integrate the flow, or let it speak the actions, one frame at a time."""
    seed: int = 0
    """Of the choice of frames and of the noise."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision in which the checkpoint computes."""
    output: Path = Path("report.html")
    """Page to write; the numbers are written beside it as JSON."""

    def run(self) -> None:
        """Write the report and print what it found."""
        from rich.console import Console

        from molmoact2.data import LeRobotDataset
        from molmoact2.evaluation.examination import Options
        from molmoact2.evaluation.training_report import write_training_report
        from molmoact2.inference import load_policy

        dataset = LeRobotDataset(self.dataset)
        training = LeRobotDataset(self.train_dataset) if self.train_dataset else dataset
        held_out, train = choose_episodes(
            self.episodes, len(dataset.episodes), len(training.episodes), is_apart=self.train_dataset is not None
        )
        findings = write_training_report(
            load_policy(self.checkpoint, dtype=self.dtype),
            dataset,
            output=self.output,
            held_out_episodes=held_out,
            train_episodes=train,
            train_dataset=training,
            run_folder=self.run_folder,
            seed=self.seed,
            options=Options(embodiment=self.embodiment, mode=self.mode, num_frames=self.frames),
        )
        console = Console()
        for finding in findings:
            console.print(f"[bold]{finding.subject}[/]: {finding.answer}. {finding.sentence}", highlight=False)
        console.print(f"Report: {self.output}")


def choose_episodes(
    words: tuple[str, ...], num_episodes: int, num_train_episodes: int, *, is_apart: bool
) -> tuple[list[int], list[int]]:
    """The held-out episodes and those of the training, which are in a dataset of their own where `is_apart`.

    ValueError for words that are no episodes, and where one of the two sides has none.
    """
    last_tenth = [f"{num_episodes - max(1, num_episodes // 10)}:{num_episodes}"]
    held_out = parse_episodes(words or ([f"0:{num_episodes}"] if is_apart else last_tenth))
    train = [index for index in range(num_train_episodes) if is_apart or index not in set(held_out)]
    if not (held_out and train):
        raise ValueError(
            f"A report needs episodes that were trained on and others that were not, got {len(train)} and "
            f"{len(held_out)}. Name fewer with --episodes, or give the data of the training with --train-dataset."
        )
    return held_out, train


def parse_episodes(words: tuple[str, ...] | list[str]) -> list[int]:
    """Numbers such as "7" and ranges such as "90:100" as episodes; ValueError for anything else."""
    parts = [word.split(":") for word in words]
    wrong = [word for word, part in zip(words, parts, strict=True) if len(part) > 2 or not all(map(str.isdigit, part))]
    if wrong:
        raise ValueError(f"Episodes are numbers such as 7 or ranges such as 90:100, got {', '.join(wrong)}.")
    spans = [range(int(part[0]), int(part[-1]) + (len(part) == 1)) for part in parts]
    return [index for span in spans for index in span]
