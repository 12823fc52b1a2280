"""Whole small runs for `test_ranks.py`: one process does all of them, and two ranks that torchrun starts do them again.

In processes of their own, because the tests' check of every tensor's shape takes most of the time of so small a run.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from small_run import Words, small_config, small_data, small_stage, small_start, small_trainer

from molmoact2.training.config import TrainConfig
from molmoact2.training.examples import QuestionExample
from molmoact2.training.parallel import ALONE, World, join_world
from molmoact2.training.trainable import TrainableConfig
from molmoact2.training.trainer import Trainer

LORA = TrainableConfig(
    vision="lora", connector="lora", decoder="lora", embeddings="freeze", head="lora", lora_rank=4, lora_dropout=0.0
)


def config(**changes: Any) -> TrainConfig:
    """Two stages of two steps; `changes` are fields of both stages, `trainable` is one of the run."""
    trainable = changes.pop("trainable", TrainableConfig())
    whole = small_config(trainable=trainable)
    return replace(whole, stages=tuple(replace(stage, **changes) for stage in whole.stages))


CONFIGS: dict[str, TrainConfig] = {
    "plain": config(),
    "one by one": config(rows_per_pass=1),
    "packed": config(tokens_per_row=200, rows_per_pass=1),
    "insulated": config(insulate=True, rows_per_pass=2),
    "adapted": config(trainable=LORA),
    "recomputed": replace(config(tokens_per_row=300), checkpoint_activations=True),
    "nothing to say": small_config(
        stages=(small_stage(examples_per_step={"robot": 6}, flow_samples=0, rows_per_pass=1),)
    ),
}
"""Name of a run -> its settings. "nothing to say" has no pointing heads, and every third example is cut off, so that
nothing is to be learned from it."""


def run(name: str, folder: Path, world: World = ALONE) -> Trainer:
    """A whole run and its export."""
    trainer = small_trainer(folder / name, CONFIGS[name], world=world, points=name != "nothing to say")
    trainer.run()
    trainer.export(folder / name / "checkpoint")
    return trainer


def half(folder: Path, world: World = ALONE) -> None:
    """The first half of a run, in a folder of its own."""
    small_trainer(folder / "half", CONFIGS["packed"], world=world).run(until=3)


def other_half(folder: Path, world: World = ALONE) -> None:
    """What is left of a run that another number of ranks has begun."""
    trainer = small_trainer(folder / "other half", CONFIGS["packed"], world=world)
    trainer.resume()
    trainer.run()
    trainer.export(folder / "other half" / "checkpoint")


class Guilty(Words):
    """Words with an example that has no finite loss, as the last of the first rank."""

    def example(self, number: int) -> QuestionExample:
        example = super().example(number)
        return replace(example, weight=float("nan")) if number == 2 else example


def blame(folder: Path, world: World = ALONE) -> str:
    """What a rank says about a step in which one example has no finite loss."""
    data = small_data()
    stage = small_stage(examples_per_step={"words": 3}, num_steps=1)
    trainer = Trainer(
        small_start(), replace(data, streams={**data.streams, "words": Guilty()}), small_config(stages=(stage,)),
        folder / "blame", world=world,
    )  # fmt: skip
    try:
        trainer.run()
    except FloatingPointError as error:
        return str(error)
    return "nothing"


def main(folder: Path) -> None:
    """Everything, one after the other; what each rank has to say goes to `said-<rank>.json`."""
    torch.set_num_threads(1)
    with join_world("cpu", timeout_s=60) as world:
        for name in CONFIGS:
            run(name, folder, world)
        half(folder, world)
        other_half(folder, world)
        (folder / f"said-{world.rank}.json").write_text(json.dumps({"blame": blame(folder, world)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
