"""For the tests of code around a policy: tiny random checkpoints and made-up observations.

    policy = load_policy(tiny_checkpoint("tiny"))
    chunk = policy.act(fake_observation(seed=0))

Only the weights are invented. Files, prompt, tokens, units and errors are those of a real checkpoint, and all of it is
made in this process, in well under a second.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from molmoact2.embodiments import SO101_TABLETOP, Embodiment
from molmoact2.model.config import ModelConfig, config_as_json, read_config
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.model.weights import save_model
from molmoact2.processing.norm_stats import FORMAT
from molmoact2.processing.settings import BILINEAR, IMAGE_FILE, LAYOUT_FILE, VIDEO_FILE
from molmoact2.registry import unknown
from molmoact2.tokens.prompt import QUESTIONS, robot_question
from molmoact2.tokens.vocabulary import END_OF_TURN, IMAGE_PLACEHOLDER, PADDING
from molmoact2.types import Observation

NUM_TOKENS = {"state": 256, "action": 64, "depth": 32}
"""Numbered robot tokens of each family."""
IMAGE_TOKENS = {
    "<im_start>": "image_start_token_id",
    "<im_end>": "image_end_token_id",
    "<im_patch>": "image_patch_id",
    "<im_col>": "image_col_id",
    "<low_res_im_start>": "low_res_image_start_token_id",
    IMAGE_PLACEHOLDER: None,
    "<im_low>": "image_low_res_id",
    "<frame_start>": "frame_start_token_id",
    "<frame_end>": "frame_end_token_id",
}
"""Token -> its field in `config.json`."""
NETWORK = {
    "text_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "hidden_act": "silu",
        "qkv_bias": False,
        "use_qk_norm": True,
        "layer_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 2048,
    },
    "vit_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
        "image_default_input_size": [56, 56],
        "image_patch_size": 14,
        "image_num_pos": 16,
    },
    "adapter_config": {
        "vit_layers": [-1, -3],
        "pooling_attention_mask": True,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "intermediate_size": 64,
        "text_hidden_size": 32,
        "hidden_act": "silu",
    },
    "action_expert_config": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "mlp_ratio": 4.0,
        "ffn_multiple_of": 16,
        "timestep_embed_dim": 32,
        "context_layer_norm": True,
        "qk_norm": True,
        "qk_norm_eps": 1e-6,
        "rope": True,
        "causal_attn": False,
    },
    "action_mode": "both",
    "max_action_dim": 32,
    "max_action_horizon": 30,
    "num_depth_codes": 16,
    "add_setup_tokens": True,
    "add_control_tokens": True,
}
"""The smallest network that has every part, as in `config.json`."""
VIEW = {
    "size": {"height": 56, "width": 56},
    "patch_size": 14,
    "pooling_size": [2, 2],
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": BILINEAR,
}
"""How images and frames are resized and cut: sixteen patches, four image tokens."""


def tiny_checkpoint(
    directory: str | Path, *, embodiments: Sequence[Embodiment] = (SO101_TABLETOP,), seed: int = 0, **variations: Any
) -> Path:
    """Write a small random checkpoint in the released format into a new folder, and return the folder.

    `variations` are fields of its `config.json`; those of a nested config are given as a dictionary:

        tiny_checkpoint("thinks", enable_depth_reasoning=True, text_config={"norm_after": True})
        tiny_checkpoint("cannot-act", action_expert_config=None)
    """
    directory = Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise ValueError(f"{directory} is not empty, and nothing is overwritten. Give a new folder.")
    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer, variations)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    for name, document in small_files(config, embodiments).items():
        (directory / name).write_text(json.dumps(document, indent=1))
    save_model(random_model(config, seed), directory)
    return directory


def fake_observation(embodiment: Embodiment = SO101_TABLETOP, *, seed: int = 0) -> Observation:
    """Noise in every camera and a state within reach, the same for the same seed."""
    random = np.random.default_rng(seed)
    low, high = limits_of(embodiment).T
    return Observation(
        images={
            name: random.integers(0, 256, (48, 64, 3), dtype=np.uint8) for name in embodiment.cameras or ("front",)
        },
        state=random.uniform(low, high)[: len(embodiment.state_names)].astype(np.float32),
        instruction="pick up the red cube",
    )


def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE that knows the words of a prompt, with every token that a robot policy needs."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = robot_question(task="", setup="", control_mode="", state="", style="robot_action")
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=384, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([words, *QUESTIONS.values(), "user assistant Image"], trainer)
    tokenizer.add_special_tokens([PADDING, "<|im_start|>", END_OF_TURN])
    tokenizer.add_tokens(["<setup_start>", "<setup_end>", "<control_start>", "<control_end>"])
    for family, count in NUM_TOKENS.items():
        tokenizer.add_tokens([f"<{family}_{edge}>" for edge in ("output", "start", "end")])
        tokenizer.add_tokens([f"<{family}_{number}>" for number in range(count)])
    tokenizer.add_special_tokens(list(IMAGE_TOKENS))
    return tokenizer


def tiny_config(tokenizer: Tokenizer, variations: Mapping[str, Any]) -> ModelConfig:
    """`NETWORK` with the ids of the tokenizer, changed by `variations`."""
    known = [field.name for field in fields(ModelConfig)]
    document = {**NETWORK, **token_ids(tokenizer)}
    document["add_action_expert"] = variations.get("action_expert_config", NETWORK) is not None
    document["text_config"] = {
        **NETWORK["text_config"],
        "vocab_size": tokenizer.token_to_id("<im_start>"),
        "additional_vocab_size": len(IMAGE_TOKENS),
    }
    for name, value in variations.items():
        if name not in known:
            raise unknown("config field", name, known)
        document[name] = {**document[name], **value} if isinstance(value, Mapping) else value
    return read_config(document)


def token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids that `config.json` repeats, and the number of robot tokens in each family."""
    ids = {field: tokenizer.token_to_id(token) for token, field in IMAGE_TOKENS.items() if field}
    ids |= {name: tokenizer.token_to_id(END_OF_TURN) for name in ("bos_token_id", "eos_token_id")}
    ids["pad_token_id"] = tokenizer.token_to_id(PADDING)
    for family, count in NUM_TOKENS.items():
        ids |= {f"{family}_{edge}_token_id": tokenizer.token_to_id(f"<{family}_{edge}>") for edge in ("start", "end")}
        ids[f"{family}_token_start_id"] = tokenizer.token_to_id(f"<{family}_0>")
        ids[f"num_{family}_tokens"] = count
    ids |= {f"{family}_output_token_id": tokenizer.token_to_id(f"<{family}_output>") for family in ("action", "depth")}
    return ids


def small_files(config: ModelConfig, embodiments: Sequence[Embodiment]) -> dict[str, dict[str, Any]]:
    """Name -> content of every file beside the weights and the tokenizer."""
    end, padding = END_OF_TURN, PADDING
    return {
        "config.json": config_as_json(config),
        config.norm_stats_filename: {
            "format": FORMAT,
            "norm_mode": "q01_q99",
            "metadata_by_tag": {embodiment.tag: norm_stats(embodiment) for embodiment in embodiments},
        },
        IMAGE_FILE: {"crop_mode": "resize", "max_crops": 4, "overlap_margins": [1, 1], **VIEW},
        LAYOUT_FILE: {
            "image_use_col_tokens": True,
            "use_single_crop_col_tokens": False,
            "use_single_crop_start_token": True,
            "video_use_col_tokens": False,
        },
        VIDEO_FILE: VIEW,
        "generation_config.json": {
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
        },
        "special_tokens_map.json": {"bos_token": end, "eos_token": end, "pad_token": padding},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "pad_token": padding},
    }


def norm_stats(embodiment: Embodiment) -> dict[str, Any]:
    """What a checkpoint says about a robot whose data fill its limits evenly."""
    low, high = limits_of(embodiment).T
    mean, std = (low + high) / 2, (high - low) / 12**0.5
    quantiles = {f"q{percent:02d}": low + (high - low) * percent / 100 for percent in (1, 10, 50, 90, 99)}
    values = {"min": low, "max": high, "mean": mean, "std": std, **quantiles}

    def stats(names: tuple[str, ...]) -> dict[str, Any]:
        lists = {name: np.resize(value, len(names)).tolist() for name, value in values.items()}
        scaled = [embodiment.normalize_gripper or "gripper" not in name for name in names]
        return {**lists, "names": list(names), "mask": scaled, "count": [1000]}

    return {
        "action_key": "action",
        "state_keys": ["observation.state"],
        "camera_keys": [f"observation.images.{name}" for name in embodiment.cameras],
        "normalize_gripper": embodiment.normalize_gripper,
        "action_dim": 32,
        "action_horizon": embodiment.action_horizon,
        "n_action_steps": embodiment.n_action_steps,
        "setup_type": embodiment.setup,
        "control_mode": embodiment.control_mode,
        "action_stats": stats(embodiment.action_names),
        "state_stats": stats(embodiment.state_names),
    }


def limits_of(embodiment: Embodiment) -> np.ndarray:
    """[d, 2] lowest and highest value of each state or action dimension, ±1 where they are not known."""
    width = max(len(embodiment.state_names), len(embodiment.action_names))
    return np.array(embodiment.action_limits or [(-1.0, 1.0)] * width)


def random_model(config: ModelConfig, seed: int) -> MolmoAct2:
    """A network in which every part changes the actions: matrices keep the size of what they read, norms are near 1."""
    model, generator = MolmoAct2(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
            parameter.add_(float(name.endswith("norm.weight")))
    return model
