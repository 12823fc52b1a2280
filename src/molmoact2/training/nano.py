"""The nano MolmoAct2: every part of the released network, small enough to learn on two CPU cores."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from molmoact2.embodiments import SO101_TABLETOP
from molmoact2.model.config import ConnectorConfig, ExpertConfig, ModelConfig, TextConfig, VisionConfig
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing.processor import Processor
from molmoact2.training.fresh import add_robot_tokens, make_model, make_processor, train_tokenizer
from molmoact2.training.scene_questions import QUESTIONS

IMAGE_SIZE = (128, 128)
"""Pixels; 8 x 8 patches of 16, pooled 2 x 2 to 16 tokens per camera."""

COLOURS = ("red", "green", "blue")
INSTRUCTIONS = tuple(
    text.format(colour=colour)
    for colour in COLOURS
    for text in (
        "pick up the {colour} cube",
        "put the {colour} cube on the plate",
        "push the {colour} cube to the left",
        "push the {colour} cube to the right",
    )
)
FIXED_PHRASES = (
    "user\nThe task is to",
    ". The setup is ",
    ". The current state of the robot is ",
    ". The expected control mode is ",
    ". Given these, what action should the robot take to complete the task?",
    "assistant\n",
)
"""The words of the released prompt that never change (training B.1), one token each here."""


def nano_config() -> ModelConfig:
    """About 4 M parameters. Vocabulary and token ids are filled in when the tokenizer is made."""
    width, layers = 128, 4
    text = TextConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=3 * width,
        vocab_size=1,
        additional_vocab_size=0,
        hidden_act="silu",
        qkv_bias=False,
        use_qk_norm=True,
        layer_norm_eps=1e-6,
        rope_theta=10_000.0,
        max_position_embeddings=512,
    )
    vision = VisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        image_default_input_size=IMAGE_SIZE,
        image_patch_size=16,
        image_num_pos=64,
    )
    connector = ConnectorConfig(
        vit_layers=(-1, -3),
        pooling_attention_mask=True,
        hidden_size=width,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=3 * width,
        text_hidden_size=width,
        hidden_act="silu",
    )
    expert = ExpertConfig(
        hidden_size=width,
        num_layers=layers,
        num_heads=4,
        mlp_ratio=3.0,
        ffn_multiple_of=64,
        timestep_embed_dim=64,
        context_layer_norm=True,
        qk_norm=True,
        qk_norm_eps=1e-6,
        rope=True,
        causal_attn=False,
    )
    return ModelConfig(
        text_config=text,
        vit_config=vision,
        adapter_config=connector,
        action_expert_config=expert,
        image_patch_id=0,
        add_action_expert=True,
        action_mode="continuous",
        max_action_dim=8,
        max_action_horizon=SO101_TABLETOP.action_horizon,
        flow_matching_num_steps=8,
        flow_matching_noise_scale=0.5,
        num_state_tokens=256,
        num_action_tokens=256,
        add_setup_tokens=True,
        add_control_tokens=True,
    )


def pretraining_config() -> ModelConfig:
    """Nano before it has an action expert: it says its actions, of any robot of the releases (training.md F.8)."""
    return replace(
        nano_config(),
        add_action_expert=False,
        action_expert_config=None,
        action_mode="discrete",
        max_action_dim=32,
        max_action_horizon=30,
        num_action_tokens=512,
    )


def new_nano(
    tags: Mapping[str, Mapping[str, Any]], *, seed: int, config: ModelConfig | None = None
) -> tuple[MolmoAct2, Processor]:
    """An untrained nano policy for robots that `tags` describes, see `training.fresh.tag_entry`."""
    spoken = [entry[field] for entry in tags.values() for field in ("setup_type", "control_mode")]
    tokenizer = train_tokenizer((*INSTRUCTIONS, *QUESTIONS), phrases=(*FIXED_PHRASES, *dict.fromkeys(spoken)))
    config = add_robot_tokens(tokenizer, config or nano_config())
    return make_model(config, seed), make_processor(config, tokenizer, tags)
