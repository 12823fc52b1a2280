"""A config is typed and whole, or refused by the name of the field that is wrong."""

import json
import math
import typing
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.model.config import ConfigError, ExpertConfig, ModelConfig, config_as_json, read_config
from molmoact2.testing import TINY
from small_networks import SMALL, small_config

Path = tuple[str, ...]


def every_field(cls: type = ModelConfig, path: Path = ()) -> Iterator[tuple[Path, Any, bool]]:
    """(path, type, whether it may be left out) of every field, those of nested configs included."""
    hints = typing.get_type_hints(cls)
    for field in fields(cls):
        hint = hints[field.name]
        yield (*path, field.name), hint, field.default is not MISSING
        nested = next((t for t in (hint, *typing.get_args(hint)) if is_dataclass(t)), None)
        if nested:
            yield from every_field(nested, (*path, field.name))


FIELDS = {path: (hint, optional) for path, hint, optional in every_field()}
REQUIRED = [path for path, (_, optional) in FIELDS.items() if not optional]


def document() -> dict[str, Any]:
    """A fresh, complete `config.json`."""
    return json.loads(json.dumps(config_as_json(SMALL)))


def place(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """The object that holds the field."""
    for name in path[:-1]:
        config = config[name]
    return config


def accepts(hint: Any, value: Any) -> bool:
    """Whether a JSON value is of a field's type."""
    arguments = typing.get_args(hint)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if typing.get_origin(hint) is typing.Literal:
        return value in arguments
    if typing.get_origin(hint) is tuple:
        return type(value) is list and all(accepts(arguments[0], item) for item in value)
    if arguments:
        return any(value is None if option is type(None) else accepts(option, value) for option in arguments)
    return type(value) is hint


JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(-3, 3),
    st.just(float("nan")),
    st.just(float("inf")),
    st.text(max_size=3),
    st.lists(st.one_of(st.none(), st.booleans(), st.text(max_size=2)), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=1),
)


@given(path=st.sampled_from(sorted(FIELDS)), value=JSON)
@settings(max_examples=300)
def test_a_field_is_read_as_it_is_or_refused_by_name(path: Path, value: Any):
    """A value of the right type may still be out of range, or contradict another field."""
    config = document()
    place(config, path)[path[-1]] = value
    outcome = outcome_of(config)
    if isinstance(outcome, str):
        assert path[-1] in outcome
    else:
        assert accepts(FIELDS[path][0], value)
        assert place(config_as_json(outcome), path)[path[-1]] == value


def outcome_of(config: dict[str, Any]) -> ModelConfig | str:
    """What is read, or the refusal."""
    try:
        return read_config(config)
    except ConfigError as refusal:
        return str(refusal)


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_a_missing_field_is_named(path: Path):
    config = document()
    del place(config, path)[path[-1]]
    with pytest.raises(ConfigError, match=rf"lacks {'.'.join(path)}\.$"):
        read_config(config)


def test_what_every_network_needs_has_no_default():
    assert {path[0] for path in REQUIRED} >= {"text_config", "vit_config", "adapter_config", "image_patch_id"}
    assert ("text_config", "rope_theta") in REQUIRED
    expert = {("action_expert_config", field.name) for field in fields(ExpertConfig)}
    assert expert - set(REQUIRED) == {("action_expert_config", "conditioning")}, "a field of ours, absent in releases"


def test_fields_that_change_nothing_are_passed_over():
    config = document()
    config |= {"torchscript": "?", "dtype": 3}
    config["vit_config"]["attention_dropout"] = "none"
    assert read_config(config) == SMALL


@pytest.mark.parametrize("config", [SMALL, TINY, small_config(add_action_expert=False, action_expert_config=None)])
def test_written_and_read_back(config: ModelConfig):
    assert read_config(json.loads(json.dumps(config_as_json(config)))) == config


def test_whole_numbers_do_for_fractions():
    config = document()
    config["text_config"]["rope_theta"] = 5_000_000
    rope_theta = read_config(config).text_config.rope_theta
    assert (rope_theta, type(rope_theta)) == (5e6, float)


def test_scaled_rotary_positions_are_refused():
    config = document()
    config["text_config"]["rope_scaling"] = {"type": "yarn"}
    with pytest.raises(ConfigError, match=r"rope_scaling must be null, got .*yarn"):
        read_config(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_config": {"hidden_size": 0}}, r"hidden_size must be positive, got 0"),
        ({"text_config": {"num_attention_heads": 3}}, r"num_attention_heads \(3\) .*num_key_value_heads \(2\)"),
        ({"text_config": {"head_dim": 7}}, "head_dim must be even"),
        ({"text_config": {"hidden_act": "swish"}}, "hidden_act must be one of .*'silu'.*, got 'swish'"),
        ({"text_config": {"hidden_size": 48}}, r"text_hidden_size \(32\) must equal text_config.hidden_size \(48\)"),
        ({"text_config": {"num_hidden_layers": 3}}, r"num_layers \(2\) must equal text_config.num_hidden_layers \(3\)"),
        ({"vit_config": {"image_num_pos": 15}}, "image_num_pos must be a square number, got 15"),
        ({"vit_config": {"image_default_input_size": (8, 8, 3)}}, r"must be \[height, width\]"),
        ({"vit_config": {"num_key_value_heads": 3}}, "num_key_value_heads"),
        ({"vit_config": {"hidden_act": "tanh"}}, "VisionConfig.hidden_act"),
        ({"adapter_config": {"vit_layers": ()}}, "vit_layers must name at least one layer"),
        ({"adapter_config": {"vit_layers": (3,)}}, "vit_layers names layer 3, but vit_config.num_hidden_layers is 3"),
        ({"adapter_config": {"vit_layers": (-4,)}}, "vit_layers names layer -4"),
        ({"adapter_config": {"num_key_value_heads": 3}}, "ConnectorConfig.num_attention_heads"),
        ({"action_expert_config": {"num_heads": 5}}, "hidden_size must be a multiple of num_heads"),
        ({"action_expert_config": {"timestep_embed_dim": 5}}, "timestep_embed_dim must be even and at least 4, got 5"),
        ({"action_expert_config": {"timestep_embed_dim": 2}}, "timestep_embed_dim"),
        ({"action_expert_config": {"mlp_ratio": 0.0}}, "mlp_ratio must be positive"),
        ({"action_expert_config": None}, "add_action_expert is True, but action_expert_config is missing"),
        ({"add_action_expert": False}, "add_action_expert is False, but action_expert_config is given"),
        ({"max_action_dim": 0}, "max_action_dim must be positive"),
        ({"max_action_horizon": -1}, "max_action_horizon must be positive"),
        ({"flow_matching_num_steps": 0}, "flow_matching_num_steps must be positive"),
        ({"num_state_tokens": -1}, "num_state_tokens must not be negative"),
        ({"enable_depth_reasoning": True, "num_depth_codes": 5}, "num_depth_codes must be a square number.*got 5"),
        ({"enable_depth_reasoning": True, "num_depth_tokens": 0}, "num_depth_tokens must be positive"),
    ],
    ids=str,
)  # fmt: skip
def test_contradictions_are_named(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        small_config(**changes)


def test_layers_are_counted_from_either_end():
    assert small_config(adapter_config={"vit_layers": (-3, -1, 1)}).vit_layer_indices == (0, 2, 1)


@pytest.mark.parametrize(("ratio", "width"), [(1.5, 48), (1.6, 64), (2.0, 64)])
def test_the_experts_inner_width_is_rounded_up(ratio: float, width: int):
    expert = small_config(action_expert_config={"mlp_ratio": ratio, "ffn_multiple_of": 16}).action_expert_config
    assert expert is not None
    assert expert.mlp_size == width
