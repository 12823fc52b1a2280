"""`molmoact2 train RECIPE`: one stage of training, from its data to a checkpoint; stopped runs continue."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from molmoact2.cli.preparation import Prepared
    from molmoact2.model.config import ModelConfig
    from molmoact2.training.config import TrainConfig
    from molmoact2.training.plan import Workload
    from molmoact2.training.recipes import Recipe

ANSWER_TOKENS = 40
"""Of a spoken action or answer, as a plan counts it."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a policy from a recipe.

    "nano-so101" needs nothing: it records the scripted expert, renders scenes to point at, teaches a new small
    network to reason about scenes and then to act, and writes an ordinary checkpoint. The stages of the paper are
    "er", "pretrain", "post-train" and "fine-tune"; they start from a checkpoint and learn from a mixture of datasets,
    and each has a small counterpart, such as "nano-pretrain". A recipe of your own is a TOML file. The same command
    continues a run that was stopped, as if it had never stopped; under torchrun it uses all processes.
    """

    recipe: Annotated[str, tyro.conf.Positional]
    """Name of the recipe, or a TOML file that says what differs from one."""
    output: Path | None = None
    """Folder of the run; runs/RECIPE by default."""
    start: str | None = None
    """Checkpoint folder or hub id to start from; nano recipes start from nothing without one."""
    mixture: str | None = None
    """Robot data: name of a mixture or a TOML file; the recipe's own by default."""
    questions: tuple[Path, ...] = ()
    """Question data for recipes that learn from words: JSON lines, folders of them, or one mixture (TOML)."""
    action_tokenizer: str | None = None
    """Folder or hub id of the action tokenizer, for recipes that say actions; the checkpoint's own by default."""
    depth_labels: Path | None = None
    """Depth maps of the data, from `molmoact2 depth label`, for recipes that teach to think; those of several datasets
    each in a folder of the dataset's name."""
    simulation: Path | None = None
    """Folder of the recordings and scenes of nano recipes, made when they are missing; that of the run by default."""
    cache: bool = True
    """Keep decoded images on the disk, at the network's size: faster, if there is room."""
    quick: bool = False
    """The small version of "nano-so101": pick-up only, 26 minutes on two cores with --compile."""
    seed: int = 0
    """Of the weights and of what each step draws."""
    device: str = "cpu"
    """Where to train: "cpu" or "cuda"."""
    workers: int = 2
    """Processes that record and render."""
    compile: bool = False
    """Compile the network: a minute or more at the start, then 1.6 times as fast. Needs a C++ compiler."""
    episodes: int = 0
    """Episodes per task to measure every snapshot with when training is done (nano), for the learning curve."""
    until: int | None = None
    """Stop after this many steps; the same command without it goes on."""
    plan: bool = False
    """Only say what the run would take: parameters, memory per GPU, time; nothing is allocated."""
    gpu: str = "H100-80"
    """Kind of GPU that --plan counts with."""
    gpus: int = 8
    """Number of GPUs that --plan counts with."""

    def run(self) -> None:
        """Do what of the run is not done yet, or say what it would take."""
        from molmoact2.training.recipe_file import read_recipe

        recipe = read_recipe(f"{self.recipe}-quick" if self.quick else self.recipe)
        train = replace(recipe.train, seed=self.seed, compile=self.compile or recipe.train.compile)
        recipe = replace(recipe, train=train)
        if self.plan:
            self._plan(recipe)
            return
        self._train(recipe)

    def _train(self, recipe: "Recipe") -> None:
        from rich.console import Console

        from molmoact2.cli.preparation import measure_snapshots
        from molmoact2.training.curves import draw_curves
        from molmoact2.training.parallel import join_world
        from molmoact2.training.trainer import Trainer

        output, simulation = self.output or Path("runs") / Path(self.recipe).stem, recipe.simulation
        with join_world(self.device) as world:
            console = Console(quiet=not world.is_main)
            prepared = self._prepare(recipe, output)
            trainer = Trainer(
                prepared.start.to(world.device), prepared.data, recipe.train, output, heads=prepared.heads,
                origin=self.start or "nothing", world=world,
            )  # fmt: skip
            trainer.resume()
            trainer.run(self.until)
            is_done = trainer.step == recipe.train.num_steps
            if is_done:
                trainer.export(output / "checkpoint")
        if not is_done or not world.is_main:
            console.print(f"Stopped after step {trainer.step}. The same command without --until goes on.")
            return
        if self.episodes and simulation is not None:
            measure_snapshots(output, tasks=simulation.tasks, num_episodes=self.episodes, num_workers=self.workers)
        console.print(f"Curves:     {draw_curves(output)}")
        console.print(f"Checkpoint: {output / 'checkpoint'}")

    def _prepare(self, recipe: "Recipe", output: Path) -> "Prepared":
        """What the run starts from and learns from."""
        from molmoact2.cli.preparation import prepare_given, prepare_nano
        from molmoact2.data.mixture import read_mixture
        from molmoact2.inference import load_policy
        from molmoact2.training.questions import open_question_files
        from molmoact2.training.start import Start

        if recipe.simulation is not None:
            return prepare_nano(
                recipe,
                self.simulation or output,
                start=self.start,
                mixture=self.mixture,
                depth_labels=self.depth_labels,
                cache_dir=output / "cache",
                num_workers=self.workers,
            )
        if self.start is None:
            raise ValueError(f"The recipe {self.recipe!r} needs a checkpoint to start from: --start FOLDER_OR_HUB_ID.")
        start = Start.of(load_policy(self.start, action_tokenizer=self.action_tokenizer))
        mixture = self.mixture or recipe.mixture
        prepared, _ = prepare_given(
            recipe,
            read_mixture(mixture) if mixture else None,
            start=start,
            questions=open_question_files(self.questions, seed=self.seed) if self.questions else None,
            cache_dir=output / "cache" if self.cache else None,
            depth_labels=self.depth_labels,
        )
        return prepared

    def _plan(self, recipe: "Recipe") -> None:
        """Print what the last stage of the recipe would take."""
        from molmoact2.cli.preparation import config_of
        from molmoact2.training.plan import Hardware, make_plan
        from molmoact2.training.plan_print import print_plan

        config = config_of(recipe, self.start)
        hardware = Hardware(gpu=self.gpu, gpus=self.gpus)
        print_plan(make_plan(config, recipe.train.trainable, hardware, workload_of(recipe.train, config)))


def workload_of(train: "TrainConfig", config: "ModelConfig") -> "Workload":
    """What the last stage of a run does, as a plan counts it: two cameras, a hundred tokens of text."""
    from molmoact2.training.plan import Workload

    stage = train.stages[-1]
    return Workload(
        examples_per_step=sum(stage.examples_per_step.values()),
        answer_tokens_per_example=ANSWER_TOKENS * (stage.says_actions or not stage.flow_samples),
        tokens_per_row=stage.tokens_per_row,
        rows_per_pass=stage.rows_per_pass or sum(stage.examples_per_step.values()),
        flow_samples=stage.flow_samples if config.add_action_expert else 0,
        residual_dropout=bool(stage.residual_dropout),
        insulate=stage.insulate,
        checkpoint_activations=train.checkpoint_activations,
        ema=bool(stage.optimizer.ema_decay),
    )
