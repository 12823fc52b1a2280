"""The whole network: vision, connector, decoder, action expert, depth gate, and how they meet."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from molmoact2.model import flow
from molmoact2.model.action_expert import ActionExpert, ExpertContext, Modulation, scaled
from molmoact2.model.attention import KeyValueCache, LayerKeyValues, prompt_mask
from molmoact2.model.config import ConfigError, ModelConfig
from molmoact2.model.connector import Connector
from molmoact2.model.guidance import Guidance
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.layers import Linear
from molmoact2.model.text import Remember, TextDecoder
from molmoact2.model.vision import VisionTransformer

HIDDEN_FROM_EXPERT = ("eos_token_id", "action_start_token_id", "action_end_token_id")
"""What marks the tokens that the expert of a `both` checkpoint does not see."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """A batch of prompts after the decoder: what the heads and the action expert read."""

    hidden: Float[Tensor, "b s d"]
    """Hidden states after the final norm."""
    layers: list[LayerKeyValues]
    """What the expert reads: keys and values [b n s d] of every layer; the hidden states in the place of both, as one
    head, for an expert that is conditioned on those."""


class MolmoAct2(nn.Module):
    """A MolmoAct2 network of any size; parts that its config does not have are None."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        text, expert = config.text_config, config.action_expert_config
        unknown = [name for name in HIDDEN_FROM_EXPERT if vars(config)[name] is None]
        if unknown and expert is not None and config.action_mode == "both":
            raise ConfigError(f"config.json lacks {', '.join(unknown)}, which the expert must not see in mode 'both'.")
        context_width = text.num_key_value_heads * text.head_dim
        layers = config.vit_layer_indices
        self.vision = VisionTransformer(config.vit_config, layers)
        self.connector = Connector(config.adapter_config, config.vit_config.hidden_size * len(layers))
        self.text = TextDecoder(text)
        self.lm_head = Linear(text.hidden_size, text.vocab_size, bias=False)
        if text.tie_word_embeddings:
            self.lm_head.weight = self.text.embedding
        self.action_expert = None if expert is None else ActionExpert(
            expert, action_dim=config.max_action_dim, context_width=config.context_width)  # fmt: skip
        self.depth_gate = None
        if config.action_expert_depth_gate:
            num_gates = text.num_hidden_layers if config.action_expert_depth_gate_per_layer else 1
            self.depth_gate = nn.ModuleList(Linear(context_width, 1) for _ in range(num_gates))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, and the compute dtype unless a caller asks for another."""
        return self.text.embedding.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.text.embedding.device

    def image_features(
        self, inputs: ModelInputs, grid: tuple[int, int], dtype: torch.dtype | None = None
    ) -> Float[Tensor, "i d"]:
        """One feature per `<im_patch>` token; `grid` = (rows, columns) of patches in a crop."""
        return self.connector(self.vision(inputs.crops, grid, dtype or self.dtype), inputs.pooling)

    def embed(self, inputs: ModelInputs, image_features: Float[Tensor, "i d"]) -> Float[Tensor, "b s d"]:
        """Token embeddings, with the image features added to the `<im_patch>` tokens in order.

        That there are as many features as tokens is the processor's promise; it is not read back from the device.
        """
        x = self.text.embed(inputs.token_ids).to(image_features.dtype)
        if image_features.shape[0] == 0:
            return x + image_features.sum()  # nothing; the ranks of a sharded run all go through the vision tower
        is_patch = (inputs.token_ids == self.config.image_patch_id) & inputs.valid
        index = (is_patch.flatten().cumsum(0) - 1).clamp(0, image_features.shape[0] - 1)
        features = image_features[index].view_as(x)
        return x + features * is_patch[..., None]

    def read(
        self,
        inputs: ModelInputs,
        image_features: Float[Tensor, "i d"],
        cache: KeyValueCache | None = None,
        drop_rate: Float[Tensor, "b s"] | None = None,
    ) -> Encoding:
        """Run the decoder over whole prompts; keys and values also go to `cache` if one is given.

        `drop_rate` is for training: the share of each token's residual updates that is dropped.
        """
        mask = prompt_mask(inputs.image_mask, inputs.valid, inputs.segment)
        remember = Remember(cache, None if cache is None else cache.reserve(inputs.valid))
        hidden = self.text(self.embed(inputs, image_features), inputs.positions, mask, remember, drop_rate)
        expert = self.config.action_expert_config
        reads_hidden = expert is not None and expert.conditioning == "last_hidden"
        layers = [(hidden[:, None], hidden[:, None])] * len(remember.layers) if reads_hidden else remember.layers
        return Encoding(hidden=hidden, layers=layers)

    def extend(
        self, token_ids: Int[Tensor, "b s"], cache: KeyValueCache, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "b s d"]:
        """Run the decoder over more text tokens after what is in `cache`; return their hidden states."""
        positions = cache.valid.sum(dim=1, keepdim=True) + torch.arange(token_ids.shape[1], device=token_ids.device)
        slots = cache.reserve(torch.ones_like(token_ids, dtype=torch.bool))
        mask = cache.extension_mask(token_ids.shape[1])
        x = self.text.embed(token_ids).to(dtype or self.dtype)
        return self.text(x, positions, mask, Remember(cache, slots))

    def logits(self, hidden: Float[Tensor, "*b d"], token_ids: slice | None = None) -> Float[Tensor, "*b v"]:
        """Scores of the first embedding table's tokens, or of a range of them, in float32."""
        if token_ids is None:
            return self.lm_head(hidden).float()
        return F.linear(hidden, self.lm_head.weight[token_ids].to(hidden.dtype)).float()

    def visible_to_expert(self, token_ids: Int[Tensor, "b s"], valid: Bool[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """Which prompt tokens the expert may look at (architecture section 6).

        In `both` checkpoints end-of-sequence tokens (hence BOS) and `<action_start>…<action_end>` are hidden.
        """
        config = self.config
        if config.action_mode != "both":
            return valid
        started = (token_ids == config.action_start_token_id).cumsum(1)
        ended = (token_ids == config.action_end_token_id).cumsum(1)
        is_end = token_ids == config.action_end_token_id
        in_span = (started > ended) | (is_end & (started > 0))
        return valid & (token_ids != config.eos_token_id) & ~in_span

    def expert_context(
        self, layers: list[LayerKeyValues], token_ids: Int[Tensor, "b s"], valid: Bool[Tensor, "b s"]
    ) -> ExpertContext:
        """The prompt's keys and values, gated where they speak of depth, as the expert sees them."""
        if self.action_expert is None:
            raise ValueError("This checkpoint has no action expert.")
        visible = self.visible_to_expert(token_ids, valid)
        if self.depth_gate is None:
            return self.action_expert.context(layers, visible)
        is_depth = self.is_depth_token(token_ids)
        gates = torch.stack(self.depth_gates(layers, valid & ~is_depth))
        factors = [torch.where(is_depth[:, None, :, None], gate[:, None, None], 1.0) for gate in gates]
        if self.config.action_expert_depth_gate_after_norm:
            context = self.action_expert.context(layers, visible, factors)
        else:
            context = self.action_expert.context(scaled(layers, factors), visible)
        return replace(context, gates=gates[..., 0])

    def depth_gates(self, layers: list[LayerKeyValues], pooled: Bool[Tensor, "b s"]) -> list[Float[Tensor, "b 1"]]:
        """How far each layer lets depth through, in [0, 1]: a sigmoid of the mean value over the `pooled` tokens."""
        if self.depth_gate is None:
            raise ValueError("This checkpoint has no depth gate.")
        sources = [v for _, v in layers] if len(self.depth_gate) > 1 else [layers[-1][1]]
        weight = pooled[:, None, :, None].float()
        count = weight.sum(dim=2).clamp(min=1)
        gates = []
        for gate, value in zip(self.depth_gate, sources, strict=True):
            mean = (value.float() * weight).sum(dim=2) / count  # [b, n, d]
            gates.append(torch.sigmoid(gate(rearrange(mean, "b n d -> b (n d)"))))
        return gates if len(gates) > 1 else gates * len(layers)

    def is_depth_token(self, token_ids: Int[Tensor, "b s"]) -> Bool[Tensor, "b s"]:
        """True on depth trigger, delimiters and codes."""
        config = self.config
        first = config.depth_token_start_id
        if first is None:
            return torch.zeros_like(token_ids, dtype=torch.bool)
        is_code = (token_ids >= first) & (token_ids < first + config.num_depth_tokens)
        others = (config.depth_output_token_id, config.depth_start_token_id, config.depth_end_token_id)
        return is_code | torch.stack([token_ids == other for other in others]).any(dim=0)

    def modulation(self, t: Float[Tensor, "*b"], dtype: torch.dtype | None = None) -> Modulation:
        """What the flow times `t` decide; for a grid of times it can be kept as long as the weights stay."""
        if self.action_expert is None:
            raise ValueError("This checkpoint has no action expert.")
        return self.action_expert.modulation(t, dtype or self.dtype)

    def sample_actions(
        self,
        noise: Float[Tensor, "b h a"],
        context: ExpertContext,
        modulation: Modulation,
        *,
        action_dim: int,
        guidance: Guidance | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Integrate the flow from `noise`; `modulation` is that of the time grid, one entry per step.

        Dimensions from `action_dim` on are padding: they are zero throughout if the config masks them. `guidance`
        pulls towards actions that are decided already; one that needs a gradient cannot be had in inference mode.
        """
        expert = self.action_expert
        assert expert is not None
        is_real = torch.ones(noise.shape[-1], device=noise.device)
        if self.config.mask_action_dim_padding:
            is_real[action_dim:] = 0.0

        def velocity(x_t: Tensor, step: int) -> Tensor:
            at_step = Modulation(
                blocks=modulation.blocks[:, :, step, None, None], final=modulation.final[:, step, None, None]
            )
            return expert.velocity(x_t[:, None], at_step, context)[:, 0] * is_real

        num_steps = modulation.final.shape[1]
        pulled = velocity if guidance is None else guidance.steer(velocity, num_steps)
        return flow.integrate(pulled, noise * is_real, num_steps)
