"""Named runs: a recipe is a value that says everything a run depends on."""

from dataclasses import dataclass

from molmoact2.registry import unknown
from molmoact2.training.config import OptimizerConfig, StageConfig, TrainConfig

SCENE_SEED, HELD_OUT_SEED = 10_000_000, 20_000_000
"""First seeds of the scenes to learn from and to measure on; recordings begin at 0, evaluations at 1,000,000."""


@dataclass(frozen=True, kw_only=True)
class NanoRecipe:
    """Demonstrations and scenes of the simulated SO-101, and how the nano policy learns from them."""

    tasks: tuple[str, ...]
    num_episodes: int
    """Demonstrations per task."""
    perturbed_fraction: float
    """How many of them are disturbed, so that they show how to recover."""
    num_scenes: int
    """Rendered scenes to point at."""
    train: TrainConfig


def nano_stages(*, reason_steps: int, act_steps: int) -> TrainConfig:
    """The paper's order in small: reason about the scene, then act, pointing all the while."""
    reason = StageConfig(
        name="reason",
        num_steps=reason_steps,
        scenes_per_step=32,
        frames_per_step=0,
        optimizer=OptimizerConfig(learning_rate=8e-4, final_fraction=0.3),
    )
    act = StageConfig(
        name="act",
        num_steps=act_steps,
        scenes_per_step=8,
        frames_per_step=32,
        optimizer=OptimizerConfig(learning_rate=1e-3, final_fraction=0.02),
        pointing_weight=0.5,
        flow_samples=4,
    )
    return TrainConfig(stages=(reason, act))


RECIPES = {
    "nano-so101": NanoRecipe(
        tasks=("pick", "plate", "push"),
        num_episodes=900,
        perturbed_fraction=0.7,
        num_scenes=24_000,
        train=nano_stages(reason_steps=3_000, act_steps=8_000),
    ),
    "nano-so101-quick": NanoRecipe(
        tasks=("pick",),
        num_episodes=700,
        perturbed_fraction=0.7,
        num_scenes=12_000,
        train=nano_stages(reason_steps=1_500, act_steps=2_000),
    ),
}


def find_recipe(name: str) -> NanoRecipe:
    """The recipe of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
