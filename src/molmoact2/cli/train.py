"""`molmoact2 train RECIPE`: demonstrations, scenes, training and export by one command; stopped runs continue."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from molmoact2.data.reader import LeRobotDataset
    from molmoact2.training.recipes import NanoRecipe
    from molmoact2.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a policy from a named recipe.

    "nano-so101" records the scripted expert, renders scenes to point at, teaches a new small MolmoAct2 to reason about
    scenes and then to act, and writes an ordinary checkpoint. Everything is kept in the output folder; the same
    command continues a run that was stopped, as if it had never stopped.
    """

    recipe: Annotated[str, tyro.conf.Positional]
    """Name of the recipe: nano-so101."""
    output: Path | None = None
    """Folder of the run; runs/RECIPE by default."""
    quick: bool = False
    """The small version: pick-up only, 26 minutes on two cores with --compile."""
    seed: int = 0
    """Of the weights and of what each step draws."""
    workers: int = 2
    """Processes that record and render."""
    compile: bool = False
    """Compile the network: a minute or more at the start, then 1.6 times as fast. Needs a C++ compiler."""
    episodes: int = 0
    """Episodes per task to measure every snapshot with when training is done, for the learning curve; 0 for none."""
    until: int | None = None
    """Stop after this many steps; the same command without it goes on."""

    def run(self) -> None:
        """Do what of the run is not done yet."""
        from rich.console import Console

        from molmoact2.training.curves import draw_curves
        from molmoact2.training.recipes import find_recipe

        name = f"{self.recipe}-quick" if self.quick else self.recipe
        recipe, output = find_recipe(name), self.output or Path("runs") / name
        console = Console()
        trainer = self._trainer(recipe, output, self._demonstrations(recipe, output))
        trainer.resume()
        trainer.run(self.until)
        if trainer.step < trainer.config.num_steps:
            console.print(f"Stopped after step {trainer.step}. The same command without --until goes on.")
            return
        trainer.export(output / "checkpoint")
        if self.episodes:
            self._measure_snapshots(recipe, output)
        console.print(f"Curves:     {draw_curves(output)}")
        console.print(f"Checkpoint: {output / 'checkpoint'}")
        console.print(f"Measure it: molmoact2 evaluate --policy {output / 'checkpoint'} --env so101 --episodes 100")

    def _measure_snapshots(self, recipe: "NanoRecipe", output: Path) -> None:
        """Success of the policy as it was along the way, in `success.json`."""
        from molmoact2.evaluation.measure import measure
        from molmoact2.evaluation.policies import PolicyChoice
        from molmoact2.training.curves import SUCCESS_FILE
        from molmoact2.training.trainer import SNAPSHOTS

        success = {}
        for snapshot in sorted((output / SNAPSHOTS).iterdir()):
            records = measure(
                PolicyChoice(name=str(snapshot), environment="so101", num_threads=1),
                output / "measured" / snapshot.name,
                tasks=recipe.tasks,
                num_episodes=self.episodes,
                num_workers=self.workers,
            )
            of_task = {task: [bool(r["success"]) for r in records if r["task"] == task] for task in recipe.tasks}
            step = int(snapshot.name.removeprefix("step-"))
            success[step] = {task: [sum(won), len(won)] for task, won in of_task.items()}
        (output / SUCCESS_FILE).write_text(json.dumps(success, indent=1), encoding="utf-8")

    def _demonstrations(self, recipe: "NanoRecipe", output: Path) -> "LeRobotDataset":
        from molmoact2.data.reader import LeRobotDataset
        from molmoact2.evaluation.progress import follow
        from molmoact2.evaluation.recording import record_dataset
        from molmoact2.evaluation.setup import make_recording
        from molmoact2.evaluation.summary import summarise
        from molmoact2.training.nano import IMAGE_SIZE

        recording, protocol = make_recording(
            "so101",
            image_size=IMAGE_SIZE[0],
            tasks=recipe.tasks,
            num_episodes=recipe.num_episodes,
            perturbed_fraction=recipe.perturbed_fraction,
            first_seed=0,
        )
        follow(
            record_dataset(recording, output / "data", protocol, num_workers=self.workers),
            title="Recording the expert",
            total=recipe.num_episodes * len(recipe.tasks),
            count=lambda records: sum(record["success"] for record in records),
            describe=lambda records: summarise(records).sentence,
        )
        return LeRobotDataset(output / "data")

    def _trainer(self, recipe: "NanoRecipe", output: Path, dataset: "LeRobotDataset") -> "Trainer":
        from dataclasses import replace

        from molmoact2.data.augmentation import Photometric
        from molmoact2.data.frame_cache import decode_frames
        from molmoact2.embodiments import SO101_TABLETOP
        from molmoact2.envs.labels import THINGS
        from molmoact2.reasoning.scenes import render_scenes
        from molmoact2.training.encode import BatchEncoder
        from molmoact2.training.examples import SceneSource, episode_source
        from molmoact2.training.nano import IMAGE_SIZE, new_nano
        from molmoact2.training.recipes import HELD_OUT_SEED, SCENE_SEED
        from molmoact2.training.trainer import MEASURED_SCENES, TrainData, Trainer

        robot = SO101_TABLETOP

        def scenes(name: str, count: int, seed: int) -> SceneSource:
            pool = render_scenes(
                output / name, num_scenes=count, seed=seed, image_size=IMAGE_SIZE, num_workers=self.workers
            )
            return SceneSource(pool, horizon=robot.action_horizon, action_dim=len(robot.action_names))

        frames = decode_frames(dataset, output / "cache")
        model, processor = new_nano(
            dataset.stats["observation.state"], dataset.stats["action"], seed=self.seed, robot=robot
        )
        data = TrainData(
            scenes=scenes("scenes.npz", recipe.num_scenes, SCENE_SEED),
            held_out=scenes("held-out.npz", MEASURED_SCENES, HELD_OUT_SEED),
            episodes=episode_source(
                dataset, {camera: frames[camera] for camera in robot.cameras}, THINGS, robot.action_horizon
            ),
        )
        encoder = BatchEncoder(
            processor=processor,
            tag=robot.tag,
            max_action_dim=model.config.max_action_dim,
            augment=Photometric(),
        )
        config = replace(recipe.train, seed=self.seed, compile=self.compile)
        return Trainer(model, encoder, data, config, output)
