"""Settings that cannot be are refused when they are made; numbers of examples follow from the step alone."""

import json
from collections import Counter
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import OPTIMIZER, small_config, small_stage

from molmoact2.data.augmentation import Augmentation
from molmoact2.training.config import OptimizerConfig, StageConfig, TrainConfig
from molmoact2.training.recipe_file import read_recipe
from molmoact2.training.recipes import RECIPES
from molmoact2.training.trainable import PRESETS

STREAMS = ("robot", "words", "scenes")
STAGES = st.lists(
    st.tuples(st.integers(1, 5), st.dictionaries(st.sampled_from(STREAMS), st.integers(1, 4), min_size=1)),
    min_size=1,
    max_size=4,
)
"""(steps, stream -> examples per step) of every stage."""


def config_of(stages: list[tuple[int, dict[str, int]]]) -> TrainConfig:
    made = [
        StageConfig(name=str(i), num_steps=steps, examples_per_step=examples, optimizer=OPTIMIZER)
        for i, (steps, examples) in enumerate(stages)
    ]
    return TrainConfig(stages=tuple(made))


@settings(max_examples=50)
@given(stages=STAGES)
def test_every_number_of_a_stream_is_used_once_in_order(stages: list[tuple[int, dict[str, int]]]):
    config = config_of(stages)
    used: dict[str, list[int]] = {}
    for step in range(config.num_steps):
        numbers, (stage, in_stage) = config.numbers_at(step), config.stage_at(step)
        assert Counter(stream for stream, _ in numbers) == stage.examples_per_step
        assert 0 <= in_stage < stage.num_steps
        for stream, number in numbers:
            used.setdefault(stream, []).append(number)
    totals: Counter[str] = Counter()
    for steps, examples in stages:
        totals.update({stream: steps * count for stream, count in examples.items()})
    assert used == {stream: list(range(total)) for stream, total in totals.items()}


@settings(max_examples=25)
@given(stages=STAGES)
def test_stages_follow_one_another(stages: list[tuple[int, dict[str, int]]]):
    config = config_of(stages)
    expected = [(str(i), step) for i, (steps, _) in enumerate(stages) for step in range(steps)]
    found = [config.stage_at(step) for step in range(config.num_steps)]
    assert [(stage.name, in_stage) for stage, in_stage in found] == expected
    with pytest.raises(ValueError, match=f"The run has {config.num_steps} steps"):
        config.stage_at(config.num_steps)


@pytest.mark.parametrize("config", [small_config(), *(recipe.train for recipe in RECIPES.values())])
def test_settings_are_written_as_json(config: TrainConfig):
    told = json.loads(json.dumps(asdict(config)))
    assert told["stages"][0]["augmentation"]["mode"] == config.stages[0].augmentation.mode
    assert told["stages"][-1]["optimizer"]["betas"] == list(config.stages[-1].optimizer.betas)
    assert told["trainable"]["embeddings"] == config.trainable.embeddings
    assert told == json.loads(json.dumps(asdict(replace(config))))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"trainable": PRESETS["lora"]},
        {"stages": (small_stage(),)},
        {"stages": (small_stage(augmentation=Augmentation(hue=0.01)), small_stage())},
    ],
)
def test_other_settings_are_written_otherwise(change: dict[str, Any]):
    assert json.dumps(asdict(replace(small_config(), **change))) != json.dumps(asdict(small_config()))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"flow_samples": -1}, "flow_samples"),
        ({"state_jitter_bins": -0.5}, "state_jitter_bins"),
        ({"examples_per_step": {}}, "at least one example per step"),
        ({"examples_per_step": {"robot": 3, "words": 0}}, "at least one example per step"),
        ({"tokens_per_row": 0}, "tokens_per_row and rows_per_pass"),
        ({"rows_per_pass": 0}, "tokens_per_row and rows_per_pass"),
        ({"rows_per_pass": -2}, "tokens_per_row and rows_per_pass"),
        ({"residual_dropout": 1.0}, "residual_dropout"),
        ({"residual_dropout": -0.1}, "residual_dropout"),
    ],
)
def test_a_stage_that_cannot_be_is_refused_by_name(change: dict[str, Any], complaint: str):
    with pytest.raises(ValueError, match=f"Stage 'act'.*{complaint}"):
        small_stage(**change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"stages": ()}, "at least one stage"),
        ({"log_every": 0}, "'log_every': 0"),
        ({"checkpoint_every": -1}, "'checkpoint_every': -1"),
        ({"measure_every": 0}, "'measure_every': 0"),
        ({"snapshot_every": 0}, "'snapshot_every': 0"),
        ({"seed": -1}, "seed, num_workers and num_held_out"),
        ({"num_workers": -1}, "seed, num_workers and num_held_out"),
    ],
)
def test_a_run_that_cannot_be_is_refused(change: dict[str, Any], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        small_config(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.0}, {"vision_factor": -1.0}, {"connector_factor": 0.0}, {"expert_factor": 0.0},
        {"warmup_steps": -1}, {"final_fraction": 1.5}, {"betas": (0.9, 1.0)}, {"betas": (-0.1, 0.9)}, {"epsilon": 0.0},
        {"weight_decay": -0.1}, {"clip_norm": 0.0}, {"ema_decay": 1.0}, {"learning_rate": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_an_optimiser_that_cannot_be_is_refused(change: dict[str, Any]):
    with pytest.raises(ValueError, match="must be"):
        OptimizerConfig(**{"learning_rate": 1e-3, **change})


def test_recipes_are_found_by_name_or_suggested():
    assert read_recipe("nano-so101") is RECIPES["nano-so101"]
    with pytest.raises(ValueError, match="Did you mean 'nano-so101'"):
        read_recipe("nano-so100")
