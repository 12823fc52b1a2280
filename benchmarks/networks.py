"""The policies that are measured: random weights, everything else as in a real checkpoint."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.inference import MolmoAct2Policy
from molmoact2.model.config import ModelConfig
from molmoact2.testing import fake_observation, made_up_statistics, random_model, vary
from molmoact2.training.fresh import add_robot_tokens, make_processor, train_tokenizer
from molmoact2.training.nano import FIXED_PHRASES, INSTRUCTIONS, nano_config
from molmoact2.types import Observation

MEDIUM: dict[str, Any] = {
    "text_config": {"hidden_size": 1024, "num_hidden_layers": 14, "num_attention_heads": 16, "num_key_value_heads": 4,
                    "head_dim": 64, "intermediate_size": 3072, "max_position_embeddings": 2048},
    "vit_config": {"hidden_size": 640, "num_hidden_layers": 12, "num_attention_heads": 10, "num_key_value_heads": 10,
                   "head_dim": 64, "intermediate_size": 2560, "image_default_input_size": (364, 364),
                   "image_patch_size": 14, "image_num_pos": 26 * 26},
    "adapter_config": {"hidden_size": 640, "num_attention_heads": 10, "num_key_value_heads": 10, "head_dim": 64,
                       "intermediate_size": 3072, "text_hidden_size": 1024},
    "action_expert_config": {"hidden_size": 384, "num_layers": 14, "num_heads": 6, "mlp_ratio": 4.0,
                             "timestep_embed_dim": 256},
    "max_action_dim": 32,
    "flow_matching_num_steps": 10,
}  # fmt: skip
"""The proportions of the release at 300 M parameters: two cameras of 169 tokens in a prompt of about 440."""

CAMERA_SIZE = (480, 640)
"""(height, width) of what a camera gives, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One policy in two precisions, and what it is asked."""

    name: str
    float32: MolmoAct2Policy
    bfloat16: MolmoAct2Policy
    observation: Observation

    @property
    def policies(self) -> dict[str, MolmoAct2Policy]:
        """By the name of the compute dtype."""
        return {"float32": self.float32, "bfloat16": self.bfloat16}

    def __str__(self) -> str:
        parameters = sum(parameter.numel() for parameter in self.float32.model.parameters())
        tokens = len(self.float32.encode(self.observation).token_ids)
        return f"{self.name} ({parameters / 1e6:.0f} M parameters, {tokens} tokens)"


def nano() -> Measured:
    """The size that is trained on two cores."""
    return measured("nano", nano_config())


def medium() -> Measured:
    """The size that a small computer at the arm would run."""
    return measured("medium", vary(nano_config(), MEDIUM))


def measured(name: str, config: ModelConfig) -> Measured:
    """A random policy for the table-top arm."""
    tokenizer = train_tokenizer(INSTRUCTIONS, phrases=FIXED_PHRASES)
    complete = add_robot_tokens(tokenizer, config)
    processor = make_processor(complete, tokenizer, {SO101_TABLETOP.tag: made_up_statistics(SO101_TABLETOP)})
    model = random_model(complete, seed=0).requires_grad_(False)
    float32, bfloat16 = (
        MolmoAct2Policy(model=precise, processor=processor) for precise in (model, deepcopy(model).bfloat16())
    )
    cameras = {name: camera_image(*CAMERA_SIZE, seed=seed) for seed, name in enumerate(SO101_TABLETOP.cameras)}
    observation = replace(fake_observation(SO101_TABLETOP), images=cameras)
    return Measured(name=name, float32=float32, bfloat16=bfloat16, observation=observation)


def camera_image(height: int, width: int, *, seed: int) -> np.ndarray:
    """Noise of the size that a camera gives."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
