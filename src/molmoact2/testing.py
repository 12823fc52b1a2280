"""For the tests of code around a policy: tiny random checkpoints and made-up observations.

    policy = load_policy(tiny_checkpoint("tiny"))
    chunk = policy.act(fake_observation(seed=0))

Only the weights are invented. Files, prompt, tokens, units and errors are those of a real checkpoint, and all of it is
made in this process, in well under a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from molmoact2.embodiments import SO101_TABLETOP, Embodiment
from molmoact2.inference import MolmoAct2Policy, save_policy
from molmoact2.model.config import ConnectorConfig, ExpertConfig, ModelConfig, TextConfig, VisionConfig
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing import TagStats
from molmoact2.processing.observation import PREFIX
from molmoact2.tokens.prompt import QUESTIONS, robot_question
from molmoact2.training.fresh import NORM_MODE, add_robot_tokens, make_processor, tag_entry, train_tokenizer
from molmoact2.types import Observation

FILLED_IN_LATER = 1
"""Stands for the numbers that are known once there is a tokenizer."""

TINY = ModelConfig(
    text_config=TextConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        vocab_size=FILLED_IN_LATER,
        additional_vocab_size=FILLED_IN_LATER,
        hidden_act="silu",
        qkv_bias=False,
        use_qk_norm=True,
        layer_norm_eps=1e-6,
        rope_theta=1e6,
        max_position_embeddings=2048,
    ),
    vit_config=VisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        image_default_input_size=(56, 56),
        image_patch_size=14,
        image_num_pos=16,
    ),
    adapter_config=ConnectorConfig(
        vit_layers=(-1, -3),
        pooling_attention_mask=True,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=8,
        intermediate_size=64,
        text_hidden_size=32,
        hidden_act="silu",
    ),
    action_expert_config=ExpertConfig(
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        mlp_ratio=4.0,
        ffn_multiple_of=16,
        timestep_embed_dim=32,
        context_layer_norm=True,
        qk_norm=True,
        qk_norm_eps=1e-6,
        rope=True,
        causal_attn=False,
    ),
    image_patch_id=FILLED_IN_LATER,
    add_action_expert=True,
    action_mode="both",
    max_action_dim=32,
    max_action_horizon=30,
    num_depth_codes=16,
    num_depth_tokens=32,
    num_state_tokens=256,
    num_action_tokens=64,
    add_setup_tokens=True,
    add_control_tokens=True,
)
"""The smallest network that has every part but a depth gate: four image tokens per camera, two layers."""

Config = TypeVar("Config", ModelConfig, TextConfig, VisionConfig, ConnectorConfig, ExpertConfig)


def tiny_checkpoint(
    directory: str | Path, *, embodiments: Sequence[Embodiment] = (SO101_TABLETOP,), seed: int = 0, **variations: Any
) -> Path:
    """Write a small random checkpoint in the released format into a folder of its own, and return the folder.

    `variations` are fields of `TINY`; those of a nested config are given as a dictionary:

        tiny_checkpoint("thinks", enable_depth_reasoning=True, text_config={"norm_after": True})
        tiny_checkpoint("discrete", add_action_expert=False, action_expert_config=None)
    """
    words = robot_question(task="", setup="", control_mode="", state="", style="robot_action")
    tokenizer = train_tokenizer([words, *QUESTIONS.values()], num_merges=128)
    config = add_robot_tokens(tokenizer, vary(TINY, variations))
    processor = make_processor(config, tokenizer, {robot.tag: made_up_statistics(robot) for robot in embodiments})
    save_policy(MolmoAct2Policy(model=random_model(config, seed), processor=processor), directory)
    return Path(directory)


def fake_observation(robot: Embodiment | TagStats = SO101_TABLETOP, *, seed: int = 0) -> Observation:
    """Noise in every camera and a state within reach, the same for the same seed.

    `robot` is an embodiment, or what a checkpoint says about one: `policy.processor.tag("franka_droid")`.
    """
    random = np.random.default_rng(seed)
    known = robot if isinstance(robot, TagStats) else TagStats.read(robot.tag, made_up_statistics(robot), NORM_MODE)
    cameras = [key.removeprefix(PREFIX) for key in known.camera_keys]
    return Observation(
        images={name: random.integers(0, 256, (48, 64, 3), np.uint8) for name in cameras or ["front"]},
        state=known.state_scaling.restore(random.uniform(-1, 1, known.state.width)),
        instruction="pick up the red cube",
    )


def vary(config: Config, variations: Mapping[str, Any]) -> Config:
    """The config with some fields replaced; a dictionary replaces fields of a nested config."""
    nested = {name: vary(vars(config)[name], value) for name, value in variations.items() if isinstance(value, Mapping)}
    return replace(config, **{**variations, **nested})


def made_up_statistics(embodiment: Embodiment) -> dict[str, Any]:
    """The `norm_stats.json` entry of a robot whose data fill its limits evenly."""

    def evenly(low: np.ndarray, high: np.ndarray) -> dict[str, list[float]]:
        quantiles = {f"q{percent:02d}": low + (high - low) * percent / 100 for percent in (1, 10, 50, 90, 99)}
        moments = {"min": low, "max": high, "mean": (low + high) / 2, "std": (high - low) / 12**0.5}
        return {name: values.tolist() for name, values in {**moments, **quantiles}.items()}

    return tag_entry(
        embodiment,
        state_stats=evenly(*limits_of(embodiment, embodiment.state_names)),
        action_stats=evenly(*limits_of(embodiment, embodiment.action_names)),
    )


def limits_of(embodiment: Embodiment, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value of the named dimensions, -1 and 1 where the embodiment does not say."""
    low, high = np.array(embodiment.action_limits or [(-1.0, 1.0)] * len(names)).T
    return low, high


def random_model(config: ModelConfig, seed: int) -> MolmoAct2:
    """A network in which every part changes the actions: matrices keep the size of what they read, norms are near 1."""
    model, generator = MolmoAct2(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
            parameter.add_(float(name.endswith("norm.weight")))
    return model
