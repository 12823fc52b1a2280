"""A new MolmoAct2 from nothing: a small tokenizer of its own, a config, and the files a checkpoint consists of."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from molmoact2.embodiments import Embodiment
from molmoact2.model.config import ModelConfig, config_as_json
from molmoact2.model.initialize import initialize
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing.processor import Processor
from molmoact2.tokens.vocabulary import ids_by_field

CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
IMAGE_TOKENS = (
    "<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<|image|>", "<im_low>", "<frame_start>",
    "<frame_end>", "<|video|>", "<|points|>", "<|token_index|>", "<|vit_index|>", "<|vit_loc|>",
)  # fmt: skip
"""In the order of the releases (training A.2); they have embeddings but no logits."""
NORM_MODE = "min_max"
"""A demonstration reaches its extremes on purpose; cutting off the outer percent would cut off the far plates."""


def train_tokenizer(corpus: Iterable[str], *, phrases: Sequence[str] = (), num_merges: int = 256) -> Tokenizer:
    """A byte-level BPE learned from `corpus`, with the chat tokens.

    `phrases` become one token each wherever they occur: the fixed words around an instruction need not be spelled.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + num_merges, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens(list(CHAT_TOKENS))
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    return tokenizer


def add_robot_tokens(tokenizer: Tokenizer, config: ModelConfig) -> ModelConfig:
    """Add the robot and image tokens that `config` counts; return it with vocabulary size and ids filled in."""
    families = [["<setup_start>", "<setup_end>"], ["<control_start>", "<control_end>"]]
    for name, count in (
        ("state", config.num_state_tokens),
        ("action", config.num_action_tokens),
        ("depth", config.num_depth_tokens),
    ):
        output = [f"<{name}_output>"] if name != "state" else []
        numbered = [f"<{name}_{i}>" for i in range(count)]
        families.append([*output, f"<{name}_start>", f"<{name}_end>", *numbered] if count else [])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for family in families for token in family])
    vocab_size = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(list(IMAGE_TOKENS))
    text = replace(config.text_config, vocab_size=vocab_size, additional_vocab_size=len(IMAGE_TOKENS))
    return replace(config, text_config=text, **ids_by_field(tokenizer))


def tag_entry(
    robot: Embodiment, *, state_stats: Mapping[str, ArrayLike], action_stats: Mapping[str, ArrayLike]
) -> dict[str, Any]:
    """What `norm_stats.json` says about a robot; the statistics are quantity ("q01", …) -> value per dimension."""

    def described(stats: Mapping[str, ArrayLike], names: tuple[str, ...]) -> dict[str, Any]:
        mask = [robot.normalize_gripper or "gripper" not in name for name in names]
        return {
            **{name: np.asarray(values, np.float64).tolist() for name, values in stats.items()},
            "names": list(names),
            "mask": mask,
        }

    return {
        "action_key": "action",
        "state_keys": ["observation.state"],
        "camera_keys": [f"observation.images.{camera}" for camera in robot.cameras],
        "normalize_gripper": robot.normalize_gripper,
        "action_dim": 32,
        "action_horizon": robot.action_horizon,
        "n_action_steps": robot.n_action_steps,
        "setup_type": robot.setup,
        "control_mode": robot.control_mode,
        "action_stats": described(action_stats, robot.action_names),
        "state_stats": described(state_stats, robot.state_names),
    }


def make_processor(
    config: ModelConfig,
    tokenizer: Tokenizer,
    tags: Mapping[str, Mapping[str, Any]],
    *,
    pooling: tuple[int, int] = (2, 2),
) -> Processor:
    """The processor of a new checkpoint: one resized view per image, of the size the vision tower was made for."""
    height, width = config.vit_config.image_default_input_size
    geometry = {
        "size": {"height": height, "width": width},
        "patch_size": config.vit_config.image_patch_size,
        "pooling_size": list(pooling),
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "do_convert_rgb": True,
    }
    image = {**geometry, "crop_mode": "resize", "max_crops": 1, "overlap_margins": [0, 0],
             "image_processor_type": "MolmoAct2ImageProcessor", "processor_class": "MolmoAct2Processor"}  # fmt: skip
    layout = {"image_use_col_tokens": False, "use_single_crop_col_tokens": False, "use_single_crop_start_token": True,
              "use_frame_special_tokens": True, "video_use_col_tokens": False,
              "processor_class": "MolmoAct2Processor"}  # fmt: skip
    ends = {f"{name}_token_id": vars(config)[f"{name}_token_id"] for name in ("bos", "eos", "pad")}
    special = {"bos_token": "<|im_end|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    stats = {"format": "molmoact2_norm_stats.v1", "norm_mode": NORM_MODE, "metadata_by_tag": dict(tags)}
    documents = {
        "config.json": config_as_json(config),
        "preprocessor_config.json": image,
        "processor_config.json": layout,
        "video_preprocessor_config.json": {**geometry, "num_frames": 8, "max_fps": 2,
                                           "processor_class": "MolmoAct2Processor"},
        "generation_config.json": ends,
        "special_tokens_map.json": special,
        "tokenizer_config.json": {**special, "tokenizer_class": "PreTrainedTokenizerFast",
                                  "model_max_length": config.text_config.max_position_embeddings},
        config.norm_stats_filename: stats,
    }  # fmt: skip
    files = {name: json.dumps(document, indent=1).encode() for name, document in documents.items()}
    return Processor.from_files({**files, "tokenizer.json": tokenizer.to_str().encode()})


def make_model(config: ModelConfig, seed: int) -> MolmoAct2:
    """A float32 network with fresh weights, the same for the same seed."""
    model = MolmoAct2(config)
    initialize(model, torch.Generator().manual_seed(seed))
    return model
