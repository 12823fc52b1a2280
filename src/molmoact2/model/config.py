"""The typed form of a checkpoint's `config.json`: every number that changes what the network computes.

Releases differ from the class defaults of other code, so numbers have no defaults here: what a checkpoint does not say
is an error. Only features that older or smaller checkpoints do not have at all (robot tokens, the action expert, depth)
default to absent.
"""

import math
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, TypeVar

ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu")
ROBOT_TOKEN_FAMILIES = ("state", "action", "depth")

Config = TypeVar("Config")


class ConfigError(ValueError):
    """A configuration that cannot be a MolmoAct2 network."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The decoder (architecture section 4)."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    additional_vocab_size: int
    """Rows of the second embedding table, which holds the image tokens and has no logits."""
    hidden_act: str
    qkv_bias: bool
    use_qk_norm: bool
    layer_norm_eps: float
    rope_theta: float
    max_position_embeddings: int
    norm_after: bool = False
    """Normalise what a sublayer gives instead of what it gets."""
    qk_norm_type: Literal["qwen3", "olmo"] = "qwen3"
    """qwen3: each head by itself; olmo: all heads of the projection together."""
    rope_scaling: dict | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        _positive(
            self,
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "intermediate_size",
            "vocab_size",
            "max_position_embeddings",
            "rope_theta",
            "layer_norm_eps",
        )
        _grouped_heads(self)
        _activation(self)
        if self.head_dim % 2:
            raise ConfigError(f"text_config.head_dim must be even to be rotated, got {self.head_dim}.")
        if self.rope_scaling is not None:
            raise ConfigError(
                f"text_config.rope_scaling must be null, got {self.rope_scaling!r}: "
                "no released checkpoint scales its rotary positions."
            )


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The vision transformer (architecture section 3)."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    hidden_act: str
    layer_norm_eps: float
    image_default_input_size: tuple[int, ...]
    """[height, width] in pixels that the position table was made for."""
    image_patch_size: int
    image_num_pos: int
    """Rows of the position table: a square grid."""

    def __post_init__(self) -> None:
        _positive(
            self,
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "layer_norm_eps",
            "image_patch_size",
            "image_num_pos",
        )
        _grouped_heads(self)
        _activation(self)
        if math.isqrt(self.image_num_pos) ** 2 != self.image_num_pos:
            raise ConfigError(f"vit_config.image_num_pos must be a square number, got {self.image_num_pos}.")
        if len(self.image_default_input_size) != 2:
            raise ConfigError(
                "vit_config.image_default_input_size must be [height, width], "
                f"got {list(self.image_default_input_size)}."
            )


@dataclass(frozen=True, kw_only=True)
class ConnectorConfig:
    """The connector from patches to image tokens (architecture section 3)."""

    vit_layers: tuple[int, ...]
    """Layers whose features are read, in this order on the channel axis; negative ones count from the end."""
    pooling_attention_mask: bool
    """Whether patches that a window lacks are left out of its mean and of its attention."""
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    text_hidden_size: int
    hidden_act: str

    def __post_init__(self) -> None:
        _positive(
            self,
            "hidden_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "intermediate_size",
            "text_hidden_size",
        )
        _grouped_heads(self)
        _activation(self)
        if not self.vit_layers:
            raise ConfigError("adapter_config.vit_layers must name at least one layer, got none.")


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The action expert (architecture section 6)."""

    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_ratio: float
    ffn_multiple_of: int
    timestep_embed_dim: int
    context_layer_norm: bool
    """Whether the projected keys and values of the prompt are normalised."""
    qk_norm: bool
    qk_norm_eps: float
    rope: bool
    causal_attn: bool
    conditioning: Literal["layer_kv", "head_kv", "last_hidden"] = "layer_kv"
    """What block l reads of the decoder: keys and values of layer l, projected from all heads together; the same, each
    head by itself; or the last hidden state, the same in every block. Every release has the first (paper section 4)."""

    def __post_init__(self) -> None:
        _positive(self, "hidden_size", "num_layers", "num_heads", "mlp_ratio", "ffn_multiple_of", "timestep_embed_dim")
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"action_expert_config.hidden_size must be a multiple of num_heads ({self.num_heads}), "
                f"got {self.hidden_size}."
            )
        if self.timestep_embed_dim % 2 or self.timestep_embed_dim < 4:
            raise ConfigError(
                f"action_expert_config.timestep_embed_dim must be even and at least 4, got {self.timestep_embed_dim}."
            )

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def mlp_size(self) -> int:
        """Inner width of the MLP: the ratio, rounded up to the multiple."""
        multiple = self.ffn_multiple_of
        return math.ceil(int(self.hidden_size * self.mlp_ratio) / multiple) * multiple


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A whole checkpoint (architecture section 2)."""

    text_config: TextConfig
    vit_config: VisionConfig
    adapter_config: ConnectorConfig
    image_patch_id: int
    """The token that an image feature is added to."""
    action_expert_config: ExpertConfig | None = None
    add_action_expert: bool = False
    action_mode: Literal["continuous", "discrete", "both"] = "continuous"
    max_action_dim: int = 0
    max_action_horizon: int = 0
    n_obs_steps: Literal[1] = 1
    """Moments that an observation spans; every release has one."""
    state_format: Literal["discrete"] = "discrete"
    """How the network reads the robot's state: as tokens of the prompt."""
    mask_action_dim_padding: bool = True
    flow_matching_num_steps: int = 10
    flow_matching_noise_scale: float = 1.0
    """Standard deviation of the noise that an action is sampled from; it is always 1 in training, and 1 in every
    release. Less makes a small network steadier; at 0 it could not tell the steps of a chunk apart."""
    flow_matching_cutoff: float = 1.0
    flow_matching_time_offset: float = 0.001
    flow_matching_time_scale: float = 0.999
    flow_matching_beta_alpha: float = 1.0
    flow_matching_beta_beta: float = 1.5
    enable_depth_reasoning: bool = False
    num_depth_codes: int = 0
    num_depth_tokens: int = 0
    action_expert_depth_gate: bool = False
    action_expert_depth_gate_per_layer: bool = False
    action_expert_depth_gate_init_bias: float = -4.0
    action_expert_depth_gate_after_norm: bool = False
    """Gate what the expert sees behind the norms of its context, and not before them as the releases do: with
    `context_layer_norm` those undo nearly all of it. Ours; docs/think.md compares the two."""
    num_state_tokens: int = 0
    num_action_tokens: int = 0
    add_setup_tokens: bool = False
    add_control_tokens: bool = False
    norm_stats_filename: str = "norm_stats.json"
    image_start_token_id: int | None = None
    image_end_token_id: int | None = None
    image_col_id: int | None = None
    low_res_image_start_token_id: int | None = None
    image_low_res_id: int | None = None
    frame_start_token_id: int | None = None
    frame_end_token_id: int | None = None
    state_start_token_id: int | None = None
    state_end_token_id: int | None = None
    state_token_start_id: int | None = None
    action_output_token_id: int | None = None
    action_start_token_id: int | None = None
    action_end_token_id: int | None = None
    action_token_start_id: int | None = None
    depth_output_token_id: int | None = None
    depth_start_token_id: int | None = None
    depth_end_token_id: int | None = None
    depth_token_start_id: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        text, vision, connector, expert = (
            self.text_config,
            self.vit_config,
            self.adapter_config,
            self.action_expert_config,
        )
        if connector.text_hidden_size != text.hidden_size:
            raise ConfigError(
                f"adapter_config.text_hidden_size ({connector.text_hidden_size}) must equal "
                f"text_config.hidden_size ({text.hidden_size})."
            )
        for layer in connector.vit_layers:
            if not -vision.num_hidden_layers <= layer < vision.num_hidden_layers:
                raise ConfigError(
                    f"adapter_config.vit_layers names layer {layer}, but vit_config.num_hidden_layers "
                    f"is {vision.num_hidden_layers}."
                )
        if self.add_action_expert != (expert is not None):
            raise ConfigError(
                f"add_action_expert is {self.add_action_expert}, but action_expert_config is "
                f"{'missing' if expert is None else 'given'}."
            )
        if expert is not None:
            _positive(
                self, "max_action_dim", "max_action_horizon", "flow_matching_num_steps", "flow_matching_noise_scale"
            )
            if expert.num_layers != text.num_hidden_layers:
                raise ConfigError(
                    f"action_expert_config.num_layers ({expert.num_layers}) must equal "
                    f"text_config.num_hidden_layers ({text.num_hidden_layers}): block l reads layer l."
                )
            if expert.conditioning == "head_kv" and expert.num_heads != text.num_key_value_heads:
                raise ConfigError(
                    f"With conditioning 'head_kv', action_expert_config.num_heads ({expert.num_heads}) must equal "
                    f"text_config.num_key_value_heads ({text.num_key_value_heads}): head n reads head n."
                )
            if expert.conditioning == "last_hidden" and (self.enable_depth_reasoning or self.action_expert_depth_gate):
                raise ConfigError(
                    "With conditioning 'last_hidden' the expert does not see depth codes: set enable_depth_reasoning "
                    "and action_expert_depth_gate to false."
                )
        for family in ROBOT_TOKEN_FAMILIES:
            if vars(self)[f"num_{family}_tokens"] < 0:
                raise ConfigError(f"num_{family}_tokens must not be negative.")
        if self.enable_depth_reasoning:
            _positive(self, "num_depth_codes", "num_depth_tokens")
            if math.isqrt(self.num_depth_codes) ** 2 != self.num_depth_codes:
                raise ConfigError(
                    f"num_depth_codes must be a square number, the cells of a square grid, got {self.num_depth_codes}."
                )

    @property
    def context_width(self) -> int:
        """Width of what the expert's context projections read of a token."""
        text, expert = self.text_config, self.action_expert_config
        widths = {"head_kv": text.head_dim, "last_hidden": text.hidden_size}
        all_heads = text.num_key_value_heads * text.head_dim
        return all_heads if expert is None else widths.get(expert.conditioning, all_heads)

    @property
    def vit_layer_indices(self) -> tuple[int, ...]:
        """The layers of `adapter_config.vit_layers` counted from 0, in the same order."""
        return tuple(layer % self.vit_config.num_hidden_layers for layer in self.adapter_config.vit_layers)


def read_config(data: Mapping[str, Any]) -> ModelConfig:
    """Check and type the content of a `config.json`; fields that change nothing are passed over.

    Raises:
        ConfigError: a field is missing, of the wrong type, or contradicts another.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"config.json must hold an object, got {type(data).__name__}.")
    return _read(ModelConfig, data, "")


def config_as_json(config: ModelConfig) -> dict[str, Any]:
    """The fields of a config as `config.json` holds them; `read_config` reads them back."""
    return {"model_type": "molmoact2", "architectures": ["MolmoAct2ForConditionalGeneration"], **_as_json(config)}


def _as_json(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _as_json(vars(value)[field.name]) for field in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def _read(cls: type[Config], data: Mapping[str, Any], path: str) -> Config:
    hints, values = typing.get_type_hints(cls), {}
    for field in fields(cls):  # type: ignore[arg-type]  # every config is a dataclass
        if field.name in data:
            values[field.name] = _typed(hints[field.name], data[field.name], f"{path}{field.name}")
        elif field.default is MISSING:
            raise ConfigError(f"config.json lacks {path}{field.name}.")
    return cls(**values)


def _typed(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint) and isinstance(value, Mapping):
        return _read(typing.cast(type, hint), value, f"{path}.")
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _typed(arguments[0], value, path)
    if origin is Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_typed(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if hint is not float and type(value) is hint:
        return value
    wanted = f"one of {list(arguments)}" if origin is Literal else _describe(hint)
    raise ConfigError(f"config.json: {path} must be {wanted}, got {value!r} ({type(value).__name__}).")


def _describe(hint: Any) -> str:
    if is_dataclass(hint):
        return "an object"
    names = {int: "an integer", float: "a finite number", bool: "true or false", str: "a string", dict: "an object"}
    return names.get(hint, "a list")


def _positive(config: Any, *names: str) -> None:
    for name in names:
        if vars(config)[name] <= 0:
            raise ConfigError(f"{type(config).__name__}.{name} must be positive, got {vars(config)[name]}.")


def _grouped_heads(config: Any) -> None:
    if config.num_attention_heads % config.num_key_value_heads:
        raise ConfigError(
            f"{type(config).__name__}.num_attention_heads ({config.num_attention_heads}) must be a "
            f"multiple of num_key_value_heads ({config.num_key_value_heads})."
        )


def _activation(config: Any) -> None:
    if config.hidden_act not in ACTIVATIONS:
        raise ConfigError(
            f"{type(config).__name__}.hidden_act must be one of {list(ACTIVATIONS)}, got {config.hidden_act!r}."
        )
