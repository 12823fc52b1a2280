"""The network once more, written down from architecture.md: float64, one prompt and one head at a time.

It shares no code with the package: it reads the fields of a `config.json` and the tensors of a `model.safetensors` by
their released names. What it lacks in speed it has in plainness; the tests hold every configuration against it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "relu": lambda x: x.clamp(min=0),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "gelu_pytorch_tanh": lambda x: x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
}
silu = ACTIVATIONS["silu"]

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values [s, heads, width] of every layer."""


class PlainNetwork:
    """A checkpoint's config and tensors, and what they compute."""

    def __init__(self, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self.config = config
        self.tensors = {name: tensor.double() for name, tensor in tensors.items()}

    def linear(self, name: str, x: Tensor) -> Tensor:
        bias = self.tensors.get(f"{name}.bias")
        y = x @ self.tensors[f"{name}.weight"].T
        return y if bias is None else y + bias

    # Images (architecture 3)

    def image_features(self, crops: Tensor, grid: tuple[int, int], windows: Sequence[Sequence[int]]) -> Tensor:
        patches = torch.cat([self.vision(crop, grid) for crop in crops.double()])
        return torch.stack([self.image_token(patches, window) for window in windows])

    def vision(self, crop: Tensor, grid: tuple[int, int]) -> Tensor:
        config, tower = self.config["vit_config"], "model.vision_backbone.image_vit"
        eps, features = config["layer_norm_eps"], {}
        x = self.linear(f"{tower}.patch_embedding", crop) + self.positions(f"{tower}.positional_embedding", grid)
        wanted = [layer % config["num_hidden_layers"] for layer in self.config["adapter_config"]["vit_layers"]]
        for layer in range(max(wanted) + 1):
            block = f"{tower}.transformer.resblocks.{layer}"
            x = x + self.attend(f"{block}.attention", self.layer_norm(f"{block}.attention_norm", x, eps), config)
            inner = self.linear(f"{block}.feed_forward.w1", self.layer_norm(f"{block}.ffn_norm", x, eps))
            x = x + self.linear(f"{block}.feed_forward.w2", ACTIVATIONS[config["hidden_act"]](inner))
            features[layer] = x
        return torch.cat([features[layer] for layer in wanted], dim=1)

    def positions(self, name: str, grid: tuple[int, int]) -> Tensor:
        table = self.tensors[name]
        side = math.isqrt(len(table))
        if grid == (side, side):
            return table
        image = table.T.reshape(1, -1, side, side)
        resized = torch.nn.functional.interpolate(image, size=grid, mode="bicubic", antialias=True)
        return resized.reshape(table.shape[1], -1).T

    def attend(self, name: str, x: Tensor, config: Mapping[str, Any], queries: Tensor | None = None) -> Tensor:
        """Attention with four projections, all tokens visible; `queries` are the tokens themselves unless given."""
        width = config["head_dim"]
        query = self.linear(f"{name}.wq", x if queries is None else queries)
        key, value = self.linear(f"{name}.wk", x), self.linear(f"{name}.wv", x)
        seen = torch.ones(len(query), len(key), dtype=torch.bool)
        return self.linear(f"{name}.wo", attention(*(split(part, width) for part in (query, key, value)), seen))

    def image_token(self, patches: Tensor, window: Sequence[int]) -> Tensor:
        config, pooling = self.config["adapter_config"], "model.vision_backbone.image_pooling_2d"
        found = [patches[index] for index in window if index >= 0]
        if not config["pooling_attention_mask"]:
            found += [torch.zeros_like(patches[0])] * (len(window) - len(found))
        tokens = torch.stack(found)
        pooled = self.attend(pooling, tokens, config, queries=tokens.mean(dim=0, keepdim=True))[0]
        projector = "model.vision_backbone.image_projector"
        gate = ACTIVATIONS[config["hidden_act"]](self.linear(f"{projector}.w1", pooled))
        return self.linear(f"{projector}.w2", gate * self.linear(f"{projector}.w3", pooled))

    # Text (architecture 4)

    def read(self, token_ids: Sequence[int], is_image: Sequence[bool], image_features: Tensor) -> tuple[Tensor, Layers]:
        """Hidden states after the final norm, and what the expert reads of every layer: keys and values, usually."""
        config = self.config["text_config"]
        table = torch.cat([self.tensors[f"model.transformer.wte.{name}"] for name in ("embedding", "new_embedding")])
        x, features, layers = table[list(token_ids)], iter(image_features), []
        for position, token_id in enumerate(token_ids):
            if token_id == self.config["image_patch_id"]:
                x[position] += next(features)
        count = len(token_ids)
        images = torch.tensor(is_image)
        seen = torch.ones(count, count).tril().bool() | (images[:, None] & images)
        for layer in range(config["num_hidden_layers"]):
            block = f"model.transformer.blocks.{layer}"
            x, keys, values = self.text_block(block, x, seen)
            layers.append((keys, values))
        hidden = self.rms_norm("model.transformer.ln_f", x)
        if self.config["action_expert_config"]["conditioning"] == "last_hidden":
            layers = [(hidden[:, None], hidden[:, None])] * len(layers)
        return hidden, layers

    def text_block(self, block: str, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config["text_config"]
        norms_output = config["norm_after"]
        inner = x if norms_output else self.rms_norm(f"{block}.attn_norm", x)
        query, key, value = self.text_heads(f"{block}.self_attn", inner)
        mixed = self.linear(f"{block}.self_attn.attn_out", attention(query, key, value, seen))
        x = x + (self.rms_norm(f"{block}.attn_norm", mixed) if norms_output else mixed)
        inner = x if norms_output else self.rms_norm(f"{block}.ff_norm", x)
        projected, size = self.linear(f"{block}.mlp.ff_proj", inner), config["intermediate_size"]
        up, gate = projected[:, :size], projected[:, size:]
        mixed = self.linear(f"{block}.mlp.ff_out", ACTIVATIONS[config["hidden_act"]](gate) * up)
        return x + (self.rms_norm(f"{block}.ff_norm", mixed) if norms_output else mixed), key, value

    def text_heads(self, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config["text_config"]
        width, theta = config["head_dim"], config["rope_theta"]
        widths = [config[f"num_{heads}_heads"] * width for heads in ("attention", "key_value", "key_value")]
        query, key, value = self.linear(f"{name}.att_proj", x).split(widths, dim=1)
        if config["use_qk_norm"] and config["qk_norm_type"] == "olmo":
            query, key = self.rms_norm(f"{name}.q_norm", query), self.rms_norm(f"{name}.k_norm", key)
        query, key, value = split(query, width), split(key, width), split(value, width)
        if config["use_qk_norm"] and config["qk_norm_type"] == "qwen3":
            query, key = self.rms_norm(f"{name}.q_norm", query), self.rms_norm(f"{name}.k_norm", key)
        return rotated(query, theta), rotated(key, theta), value

    def rms_norm(self, name: str, x: Tensor) -> Tensor:
        return rms(x, self.config["text_config"]["layer_norm_eps"]) * self.tensors[f"{name}.weight"]

    def layer_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(dim=-1, keepdim=True) + eps)
        return scaled * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def logits(self, hidden: Tensor) -> Tensor:
        return self.linear("lm_head", hidden)

    # The action expert (architecture 6 and 7)

    def visible(self, token_ids: Sequence[int]) -> list[bool]:
        if self.config["action_mode"] != "both":
            return [True] * len(token_ids)
        is_speaking, visible = False, []
        for token_id in token_ids:
            is_speaking = is_speaking or token_id == self.config["action_start_token_id"]
            visible.append(not is_speaking and token_id != self.config["eos_token_id"])
            is_speaking = is_speaking and token_id != self.config["action_end_token_id"]
        return visible

    def is_depth(self, token_id: int) -> bool:
        code = token_id - self.config["depth_token_start_id"]
        marks = [self.config[f"depth_{mark}_token_id"] for mark in ("output", "start", "end")]
        return 0 <= code < self.config["num_depth_tokens"] or token_id in marks

    def depth_gates(self, layers: Layers, token_ids: Sequence[int]) -> list[float]:
        """One factor per layer for what the depth tokens say; 1 without a gate."""
        if not self.config["action_expert_depth_gate"]:
            return [1.0] * len(layers)
        gate, others = "model.action_expert_depth_gate", [not self.is_depth(token_id) for token_id in token_ids]
        means = [values[torch.tensor(others)].mean(dim=0).flatten() for _, values in layers]
        if self.config["action_expert_depth_gate_per_layer"]:
            return [float(torch.sigmoid(self.linear(f"{gate}.{i}", mean))) for i, mean in enumerate(means)]
        return [float(torch.sigmoid(self.linear(gate, means[-1])))] * len(layers)

    def expert_context(self, layers: Layers, token_ids: Sequence[int]) -> Layers:
        """Keys and values of the tokens that the expert sees, in its own width."""
        config, context = self.config["action_expert_config"], []
        visible = torch.tensor(self.visible(token_ids))
        is_depth = torch.tensor([self.is_depth(token_id) for token_id in token_ids])
        for (key, value), gate in zip(layers, self.depth_gates(layers, token_ids), strict=True):
            factor = torch.where(is_depth, gate, 1.0)[:, None]
            keys, values = (
                self.projected(f"model.action_expert.context_{letter}_proj", (tokens * factor[:, None])[visible])
                for letter, tokens in (("k", key), ("v", value))
            )
            context.append((rms(keys, config["qk_norm_eps"]) if config["qk_norm"] else keys, values))
        return context

    def projected(self, name: str, tokens: Tensor) -> Tensor:
        """Heads [s, m, d] of the decoder as heads [s, n, e] of the expert."""
        config = self.config["action_expert_config"]
        width, norm = config["hidden_size"] // config["num_heads"], config["context_layer_norm"]
        if config["conditioning"] != "head_kv":
            together = self.linear(name, tokens.flatten(1))
            return split(rms(together, 1e-6) if norm else together, width)
        weight = self.tensors[f"{name}.weight"]
        heads = [tokens[:, n] @ weight[n * width : (n + 1) * width].T for n in range(tokens.shape[1])]
        return torch.stack([rms(head, 1e-6) if norm else head for head in heads], dim=1)

    def velocity(self, x_t: Tensor, t: float, context: Layers, valid_steps: Sequence[bool] | None = None) -> Tensor:
        config, expert = self.config["action_expert_config"], "model.action_expert"
        horizon = len(x_t)
        valid = [True] * horizon if valid_steps is None else list(valid_steps)
        seen = torch.tensor([[(valid[j] and not (config["causal_attn"] and j > i)) or i == j for j in range(horizon)]
                             for i in range(horizon)])  # fmt: skip
        half = config["timestep_embed_dim"] // 2
        arguments = [t * math.exp(-math.log(10_000) * i / (half - 1)) for i in range(half)]
        waves = torch.tensor([*map(math.sin, arguments), *map(math.cos, arguments)], dtype=torch.float64)
        time = silu(self.linear(f"{expert}.time_embed.3", silu(self.linear(f"{expert}.time_embed.1", waves))))
        x = self.linear(f"{expert}.action_embed", x_t.double())
        for layer, (keys, values) in enumerate(context):
            x = self.expert_block(f"{expert}.blocks.{layer}", x, time, seen, keys, values)
        shift, scale = self.linear(f"{expert}.final_layer.modulation.linear", time).chunk(2)
        velocity = self.linear(f"{expert}.final_layer.linear", rms(x, 1e-6) * (1 + scale) + shift)
        return velocity * torch.tensor(valid)[:, None]

    def expert_block(self, block: str, x: Tensor, time: Tensor, seen: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        config = self.config["action_expert_config"]
        width = config["hidden_size"] // config["num_heads"]
        parts = self.linear(f"{block}.modulation.linear", time).chunk(9)

        def modulated(number: int) -> Tensor:
            return rms(x, 1e-6) * (1 + parts[3 * number + 1]) + parts[3 * number]

        def normed(heads: Tensor) -> Tensor:
            return rms(heads, config["qk_norm_eps"]) if config["qk_norm"] else heads

        projected = self.linear(f"{block}.self_attn.qkv", modulated(0)).chunk(3, dim=1)
        query, key, value = (split(part, width) for part in projected)
        query, key = normed(query), normed(key)
        if config["rope"]:
            query, key = rotated(query, 10_000), rotated(key, 10_000)
        x = x + parts[2] * self.linear(f"{block}.self_attn.out_proj", attention(query, key, value, seen))
        query = normed(split(self.linear(f"{block}.cross_attn.q_proj", modulated(1)), width))
        everything = torch.ones(len(x), len(keys), dtype=torch.bool)
        mixed = attention(query, keys, values, everything)
        x = x + parts[5] * self.linear(f"{block}.cross_attn.out_proj", mixed)
        inner = modulated(2)
        gate, up = silu(self.linear(f"{block}.mlp.gate_proj", inner)), self.linear(f"{block}.mlp.up_proj", inner)
        return x + parts[8] * self.linear(f"{block}.mlp.down_proj", gate * up)

    def actions(self, noise: Tensor, context: Layers, *, num_steps: int, action_dim: int) -> Tensor:
        """Euler's method from noise to actions; padded dimensions stay zero if the config masks them."""
        real = torch.ones(noise.shape[1], dtype=torch.float64)
        if self.config["mask_action_dim_padding"]:
            real[action_dim:] = 0
        x_t = noise.double() * real
        for step in range(num_steps):
            x_t = x_t + real * self.velocity(x_t, step / num_steps, context) / num_steps
        return x_t


def split(x: Tensor, width: int) -> Tensor:
    """Heads [s, n, width] of a projection."""
    return x.reshape(len(x), -1, width)


def rms(x: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x**2).mean(dim=-1, keepdim=True) + eps)


def rotated(heads: Tensor, theta: float) -> Tensor:
    """Rotate component i of every head against component i + half by position / theta^(2i / width)."""
    half, result = heads.shape[-1] // 2, heads.clone()
    for i in range(half):
        angles = torch.arange(len(heads), dtype=torch.float64)[:, None] / theta ** (2 * i / heads.shape[-1])
        one, other = heads[..., i], heads[..., i + half]
        result[..., i] = one * angles.cos() - other * angles.sin()
        result[..., i + half] = other * angles.cos() + one * angles.sin()
    return result


def attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Heads [q, n, d] look at heads [s, m, d] where `seen` [q, s] allows; heads side by side [q, n · d]."""
    num_heads, width = query.shape[1:]
    group, mixed = num_heads // key.shape[1], []
    for head in range(num_heads):
        keys, values = key[:, head // group], value[:, head // group]
        odds = torch.exp(query[:, head] @ keys.T / math.sqrt(width)) * seen
        mixed.append(odds @ values / odds.sum(dim=1, keepdim=True))
    return torch.cat(mixed, dim=1)
