"""The action expert: a flow-matching transformer as deep as the decoder (architecture section 6).

Block l looks at the decoder's layer l through its cached keys and values. What depends on the prompt alone
(`ExpertContext`) is computed once per chunk, what depends on the time alone (`Modulation`) once per time grid; a flow
step is then `velocity`, which every sample k of a chunk shares a prompt for.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from molmoact2.model.attention import LayerKeyValues, attend
from molmoact2.model.config import ExpertConfig
from molmoact2.model.layers import Linear, SwiGLU, rms_normalize, rotary_angles, rotate

NORM_EPS = 1e-6
ROPE_THETA = 10000.0
MAX_PERIOD = 10000.0


@dataclass(frozen=True, kw_only=True)
class ExpertContext:
    """The prompt as the expert's blocks see it."""

    layers: list[LayerKeyValues]
    """Per block: projected keys and values [b n s h]."""
    mask: Bool[Tensor, "b 1 1 s"]
    """True on prompt tokens that the expert may look at."""
    gates: Float[Tensor, "l b"] | None = None
    """How far each layer lets depth through; None without gates."""


@dataclass(frozen=True, kw_only=True)
class Modulation:
    """Shifts, scales and gates of every block at some times; broadcast over the action steps."""

    blocks: Float[Tensor, "l 9 *b 1 d"]
    """Shift, scale, gate of self-attention; of cross-attention; of the MLP."""
    final: Float[Tensor, "2 *b 1 d"]
    """Shift and scale before the last projection."""


@dataclass(frozen=True, kw_only=True)
class ActionSteps:
    """How the steps of a chunk see one another, in every block the same."""

    angles: tuple[Float[Tensor, "h r"], Float[Tensor, "h r"]] | None
    """Of their positions; None for an expert that does not rotate."""
    mask: Bool[Tensor, "#c 1 h h"] | None
    """True where a step (row) sees another (column), for each of c = b · k samples; None if all see all."""


class TimeEmbedding(nn.Module):
    """Sinusoids of the flow time, then two layers."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.num_frequencies = config.timestep_embed_dim // 2
        self.inner = Linear(config.timestep_embed_dim, config.hidden_size)
        self.outer = Linear(config.hidden_size, config.hidden_size)

    def forward(self, t: Float[Tensor, "*b"]) -> Float[Tensor, "*b d"]:
        """Embed times in [0, 1], which are not scaled; computed in float32."""
        steps = torch.arange(self.num_frequencies, device=t.device, dtype=torch.float32)
        angles = t.float()[..., None] * torch.exp(-math.log(MAX_PERIOD) * steps / (self.num_frequencies - 1))
        return self.outer(nn.functional.silu(self.inner(torch.cat((angles.sin(), angles.cos()), dim=-1))))


class ActionSelfAttention(nn.Module):
    """Attention among the steps of one chunk."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.out = Linear(config.hidden_size, config.hidden_size)
        self.config = config

    def forward(self, x: Float[Tensor, "b k h d"], steps: ActionSteps) -> Float[Tensor, "b k h d"]:
        """Each of the k samples attends to itself only."""
        config, num_samples = self.config, x.shape[1]
        heads = rearrange(self.qkv(x), "b k h (t n e) -> t (b k) n h e", t=3, n=config.num_heads)
        query_key, value = heads[:2], heads[2]
        if config.qk_norm:
            query_key = rms_normalize(query_key, config.qk_norm_eps)
        if steps.angles is not None:
            query_key = rotate(query_key, steps.angles)
        mixed = attend(query_key[0], query_key[1], value, steps.mask)
        return self.out(rearrange(mixed, "(b k) n h e -> b k h (n e)", k=num_samples))


class PromptCrossAttention(nn.Module):
    """Attention from the action steps to the prompt."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.out = Linear(config.hidden_size, config.hidden_size)
        self.config = config

    def forward(
        self, x: Float[Tensor, "b k h d"], context: LayerKeyValues, mask: Bool[Tensor, "b 1 1 s"]
    ) -> Float[Tensor, "b k h d"]:
        """All steps of all samples of a chunk look at one copy of its prompt."""
        query = rearrange(self.query(x), "b k h (n e) -> b n (k h) e", n=self.config.num_heads)
        if self.config.qk_norm:
            query = rms_normalize(query, self.config.qk_norm_eps)
        mixed = attend(query, *context, mask)
        return self.out(rearrange(mixed, "b n (k h) e -> b k h (n e)", k=x.shape[1]))


class ExpertBlock(nn.Module):
    """Self-attention, cross-attention and MLP, each modulated by the time."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.self_attention = ActionSelfAttention(config)
        self.cross_attention = PromptCrossAttention(config)
        self.mlp = SwiGLU(config.hidden_size, config.mlp_size, config.hidden_size, bias=True)
        self.modulation = Linear(config.hidden_size, 9 * config.hidden_size)

    def forward(
        self,
        x: Float[Tensor, "b k h d"],
        modulation: Float[Tensor, "9 #b #k 1 d"],
        steps: ActionSteps,
        context: LayerKeyValues,
        context_mask: Bool[Tensor, "b 1 1 s"],
    ) -> Float[Tensor, "b k h d"]:
        """Apply the block."""
        shift, scale, gate, cross_shift, cross_scale, cross_gate, mlp_shift, mlp_scale, mlp_gate = modulation
        x = x + gate * self.self_attention(modulate(x, shift, scale), steps)
        x = x + cross_gate * self.cross_attention(modulate(x, cross_shift, cross_scale), context, context_mask)
        return x + mlp_gate * self.mlp(modulate(x, mlp_shift, mlp_scale))


class ActionExpert(nn.Module):
    """Noise and time to velocity, given the prompt's keys and values."""

    def __init__(self, config: ExpertConfig, *, action_dim: int, context_width: int) -> None:
        """`context_width`: what the context projections read of a token, see `ModelConfig.context_width`."""
        super().__init__()
        self.config = config
        self.time_embedding = TimeEmbedding(config)
        self.action_embedding = Linear(action_dim, config.hidden_size)
        self.context_key = Linear(context_width, config.hidden_size, bias=False)
        self.context_value = Linear(context_width, config.hidden_size, bias=False)
        self.blocks = nn.ModuleList(ExpertBlock(config) for _ in range(config.num_layers))
        self.final_modulation = Linear(config.hidden_size, 2 * config.hidden_size)
        self.velocity_out = Linear(config.hidden_size, action_dim)

    def context(
        self,
        layers: list[LayerKeyValues],
        visible: Bool[Tensor, "b s"],
        factors: list[Float[Tensor, "b 1 s 1"]] | None = None,
    ) -> ExpertContext:
        """Project the decoder's keys and values [b m s h] of every layer; `visible` marks the tokens to look at.

        `factors` scale what each layer sees of a token, behind the norms, which would undo a scale before them.
        """
        norm_keys = self.config.qk_norm
        distinct = layers[:1] if self.config.conditioning == "last_hidden" else layers
        projected = [
            (self._project(key, self.context_key, norm_keys), self._project(value, self.context_value))
            for key, value in distinct
        ]
        seen = scaled(projected * (len(layers) // len(distinct)), factors)
        return ExpertContext(layers=seen, mask=visible[:, None, None, :])

    def _project(
        self, tokens: Float[Tensor, "b m s h"], projection: Linear, norm_heads: bool = False
    ) -> Float[Tensor, "b n s e"]:
        config = self.config
        match config.conditioning:
            case "head_kv":  # the rows of the projection that make head n read head n
                weight = rearrange(projection.weight.to(tokens.dtype), "(n e) h -> n h e", n=config.num_heads)
                x = self._norm_context(tokens @ weight)
            case _:
                x = self._norm_context(projection(rearrange(tokens, "b m s h -> b s (m h)")))
                x = rearrange(x, "b s (n e) -> b n s e", n=config.num_heads)
        return rms_normalize(x, config.qk_norm_eps) if norm_heads else x

    def _norm_context(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return rms_normalize(x, NORM_EPS) if self.config.context_layer_norm else x

    def modulation(self, t: Float[Tensor, "*b"], dtype: torch.dtype) -> Modulation:
        """Everything that the times `t` decide, in the compute dtype."""
        condition = nn.functional.silu(self.time_embedding(t)).to(dtype)[..., None, :]
        per_block = [
            torch.stack(block.get_submodule("modulation")(condition).chunk(9, dim=-1)) for block in self.blocks
        ]
        blocks = torch.stack(per_block)
        return Modulation(blocks=blocks, final=torch.stack(self.final_modulation(condition).chunk(2, dim=-1)))

    def velocity(
        self,
        x_t: Float[Tensor, "b k h a"],
        modulation: Modulation,
        context: ExpertContext,
        valid_steps: Bool[Tensor, "b h"] | None = None,
    ) -> Float[Tensor, "b k h a"]:
        """Velocity at `x_t`, k samples per prompt. Steps that are not valid are unseen, and zero in the result."""
        x = self.action_embedding(x_t.to(modulation.blocks.dtype))
        steps = self._steps(x, valid_steps)
        for block, block_modulation, layer in zip(self.blocks, modulation.blocks, context.layers, strict=True):
            x = block(x, block_modulation, steps, layer, context.mask)
        velocity = self.velocity_out(modulate(x, *modulation.final))
        return velocity if valid_steps is None else velocity * valid_steps[:, None, :, None]

    def _steps(self, x: Float[Tensor, "b k h d"], valid: Bool[Tensor, "b h"] | None) -> ActionSteps:
        config, positions = self.config, torch.arange(x.shape[2], device=x.device)
        angles = rotary_angles(positions, config.head_dim, ROPE_THETA) if config.rope else None
        mask = None
        if config.causal_attn:
            mask = (positions <= positions[:, None])[None, None]
        if valid is not None:
            # Padding sees itself, so that its softmax is finite.
            seen = (valid[:, None, None, :] | (positions == positions[:, None])).repeat_interleave(x.shape[1], dim=0)
            mask = seen if mask is None else seen & mask
        return ActionSteps(angles=angles, mask=mask)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise, then scale and shift: `norm(x) · (1 + scale) + shift`."""
    return rms_normalize(x, NORM_EPS) * (1 + scale) + shift


def scaled(layers: list[LayerKeyValues], factors: list[Float[Tensor, "b 1 s 1"]] | None) -> list[LayerKeyValues]:
    """Keys and values of every layer times its factors; as they are without factors."""
    if factors is None:
        return layers
    return [((k * f).to(k.dtype), (v * f).to(v.dtype)) for (k, v), f in zip(layers, factors, strict=True)]
