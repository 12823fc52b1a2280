"""`molmoact2 finetune DATASET`: a checkpoint learns your robot from your demonstrations."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from rich.console import Console

    from molmoact2.training.recipes import Recipe
    from molmoact2.training.robots import RobotData
    from molmoact2.training.start import Start

SMALL = 100_000_000
"""Parameters below which a network learns as nano does: in full, fast, from small pictures."""
FEW_DEMONSTRATIONS = 200
"""Below, adapters do better than full fine-tuning (advice of the release, paper section 4)."""


@dataclass(frozen=True, kw_only=True)
class Finetune:
    """Fine-tune a checkpoint on a LeRobot dataset.

    Reads LeRobot v2.1 and v3.0, computes the statistics, holds some episodes out, trains, and writes a complete
    checkpoint and a report on what it learned and what it looks at. The same command continues a run that was stopped.
    Look at your data first: molmoact2 data check DATASET.
    """

    dataset: Annotated[str, tyro.conf.Positional]
    """Folder or hub id of the dataset."""
    checkpoint: str = "nano-so101"
    """Checkpoint folder or hub id to start from; "nano-so101" is the bundled one, for a first try on any laptop."""
    embodiment: str | None = None
    """Tag of the robot, the path of a card that describes it, or "new:NAME" to take it from the dataset; needed where
    the dataset does not say it."""
    cameras: tuple[str, ...] = ()
    """Cameras of the dataset in the order in which the policy is to see them; the robot's own by default."""
    output: Path | None = None
    """Folder of the run; runs/finetune-DATASET by default."""
    steps: int = 2_000
    """Steps of training."""
    batch: int = 32
    """Examples per step, over all processes."""
    learns: Literal["full", "fine-tuning", "lora", "expert"] | None = None
    """What learns: everything, everything but the token embeddings, adapters and the expert, or the expert alone. By
    default everything in a small network, adapters with fewer than 200 demonstrations, else "fine-tuning"."""
    flow_samples: int = 8
    """Noise and time samples per action chunk (K of the paper)."""
    insulate: bool = False
    """Keep the expert's gradient out of the decoder."""
    learning_rate: float | None = None
    """Peak of the decoder; 1e-5 as in the paper by default, 3e-4 for a small network."""
    statistics: Literal["kept", "new"] = "kept"
    """For a robot that the checkpoint knows: keep its statistics, so that actions go on meaning the same, or take those
    of the dataset. A robot that it does not know always gets those of the dataset."""
    held_out: float = 0.05
    """Share of the episodes that nothing is learned from, for the report."""
    depth_labels: Path | None = None
    """Depth maps of the dataset, from `molmoact2 depth label`: in half of the examples the policy then learns to say
    them before it acts; one that could not think learns to."""
    cache: bool = True
    """Keep decoded images on the disk, at the network's size: faster, if there is room."""
    seed: int = 0
    """Of what each step draws and of which episodes are held out."""
    device: str = "cpu"
    """Where to train: "cpu" or "cuda"."""
    compile: bool = False
    """Compile the network: a minute or more at the start, then faster. Needs a C++ compiler."""
    until: int | None = None
    """Stop after this many steps; the same command without it goes on."""
    report: bool = True
    """Write the report when training is done."""

    def run(self) -> None:
        """Train what is not trained yet, export, report."""
        from rich.console import Console

        from molmoact2.cli.preparation import prepare_given
        from molmoact2.data.mixture import Group, Mixture
        from molmoact2.inference import load_policy
        from molmoact2.training.parallel import join_world
        from molmoact2.training.start import Start
        from molmoact2.training.trainer import Trainer

        output = self.output or Path("runs") / f"finetune-{Path(self.dataset).name}"
        group = Group(tag=self.embodiment or "", rate=1.0, datasets=(self.dataset,), cameras=self.cameras)
        with join_world(self.device) as world:
            console, start = Console(quiet=not world.is_main), Start.of(load_policy(self.checkpoint))
            recipe = self.recipe(start, num_demonstrations=count_episodes(self.dataset), console=console)
            prepared, robots = prepare_given(
                recipe,
                Mixture(name=self.dataset, groups=(group,)),
                start=start,
                questions=None,
                cache_dir=output / "cache" if self.cache else None,
                held_out_share=self.held_out,
                keep_statistics=self.statistics == "kept",
                depth_labels=self.depth_labels,
            )
            assert robots is not None
            trainer = Trainer(
                prepared.start.to(world.device),
                prepared.data,
                recipe.train,
                output,
                origin=self.checkpoint,
                world=world,
            )
            trainer.resume()
            trainer.run(self.until)
            is_done = trainer.step == recipe.train.num_steps
            if is_done:
                trainer.export(output / "checkpoint")
        if not is_done:
            console.print(f"Stopped after step {trainer.step}. The same command without --until goes on.")
            return
        console.print(f"Checkpoint: {output / 'checkpoint'}")
        if self.report and world.is_main:
            self._report(output, robots, console)

    def recipe(self, start: "Start", *, num_demonstrations: int, console: "Console") -> "Recipe":
        """How this network learns from so many demonstrations."""
        from molmoact2.training.config import OptimizerConfig, Think, TrainConfig
        from molmoact2.training.recipes import FINE_TUNE, FINE_TUNE_THINK, NANO_COLOURS, RELEASED, Recipe
        from molmoact2.training.trainable import PRESETS

        num_parameters = sum(parameter.numel() for parameter in start.model.parameters())
        is_small = num_parameters < SMALL
        usual = "full" if is_small else "lora" if num_demonstrations < FEW_DEMONSTRATIONS else "fine-tuning"
        learns = self.learns or usual
        console.print(
            f"{num_parameters / 1e6:,.0f} M parameters, {num_demonstrations} demonstrations: what learns is {learns!r}."
        )
        small = OptimizerConfig(learning_rate=3e-4, final_fraction=0.02)
        optimizer = small if is_small else RELEASED
        thinks = self.depth_labels is not None
        stage = replace(
            FINE_TUNE_THINK if thinks else FINE_TUNE,
            num_steps=self.steps,
            examples_per_step={"robot": self.batch},
            optimizer=replace(optimizer, learning_rate=self.learning_rate or optimizer.learning_rate),
            says_actions=start.action_tokenizer is not None and start.model.config.action_mode == "both",
            flow_samples=self.flow_samples,
            insulate=self.insulate,
            **({"augmentation": NANO_COLOURS, "residual_dropout": 0.0, "tokens_per_row": None, "rows_per_pass": None,
                "state_jitter_bins": 1.0} if is_small else {}),
        )  # fmt: skip
        train = TrainConfig(
            stages=(stage,), trainable=PRESETS[learns], seed=self.seed, compile=self.compile,
            checkpoint_activations=not is_small, num_held_out=64,
        )  # fmt: skip
        think = Think(gates_after_norm=is_small) if thinks else None
        return Recipe(train=train, action_mode=start.model.config.action_mode, think=think)

    def _report(self, output: Path, robots: "RobotData", console: "Console") -> None:
        from molmoact2.evaluation.examination import Options
        from molmoact2.evaluation.training_report import write_training_report
        from molmoact2.inference import load_policy

        source, page = robots.train.sources[0], output / "report.html"
        held_out = robots.held_out.sources[0].episodes if robots.held_out else source.episodes[-1:]
        write_training_report(
            load_policy(output / "checkpoint", device=self.device),
            source.dataset,
            output=page,
            held_out_episodes=held_out,
            train_episodes=source.episodes,
            run_folder=output,
            options=Options(embodiment=source.card.tag),
        )
        console.print(f"Report:     {page}")


def count_episodes(dataset: str) -> int:
    """Demonstrations in a dataset."""
    from molmoact2.data.datasets import open_dataset

    return len(open_dataset(dataset).episodes)
