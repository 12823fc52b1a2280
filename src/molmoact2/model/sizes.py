"""Sizes of the released networks, for planning: a checkpoint's own `config.json` is what counts once it is there."""

from molmoact2.model.config import ConnectorConfig, ExpertConfig, ModelConfig, TextConfig, VisionConfig


def released_config() -> ModelConfig:
    """The released MolmoAct2: 5.44 B parameters.

    As reported by public ports and confirmed by the number of stored values, which is 5,442,196,208 without those that
    no network uses (architecture.md section 1, paper section 4). Token ids are left out: they come from a checkpoint.
    """
    text = TextConfig(
        hidden_size=2560,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=9728,
        vocab_size=154_624,
        additional_vocab_size=128,
        hidden_act="silu",
        qkv_bias=False,
        use_qk_norm=True,
        layer_norm_eps=1e-6,
        rope_theta=5e6,
        max_position_embeddings=16_384,
    )
    vision = VisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        num_key_value_heads=16,
        head_dim=72,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=1e-6,
        image_default_input_size=(378, 378),
        image_patch_size=14,
        image_num_pos=729,
    )
    connector = ConnectorConfig(
        vit_layers=(-3, -9),
        pooling_attention_mask=True,
        hidden_size=1152,
        num_attention_heads=16,
        num_key_value_heads=16,
        head_dim=72,
        intermediate_size=9728,
        text_hidden_size=2560,
        hidden_act="silu",
    )
    expert = ExpertConfig(
        hidden_size=768,
        num_layers=36,
        num_heads=8,
        mlp_ratio=4.0,
        ffn_multiple_of=256,
        timestep_embed_dim=256,
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
        image_patch_id=154_626,
        add_action_expert=True,
        max_action_dim=32,
        max_action_horizon=30,
        num_state_tokens=256,
        num_action_tokens=2048,
        add_setup_tokens=True,
        add_control_tokens=True,
    )
