"""Schedule, groups and moving average, in closed form."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_run import small_heads, small_start

from molmoact2.training.config import OptimizerConfig
from molmoact2.training.optimizer import (
    MovingAverage,
    learning_rate,
    make_optimizer,
    set_learning_rate,
    tower_of,
    towers,
)
from molmoact2.training.trainable import PRESETS, added_rows, prepare


def test_the_learning_rate_warms_up_peaks_and_ends_at_its_fraction():
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=4, final_fraction=0.25)
    rates = [learning_rate(step, 20, config) for step in range(21)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[20] == pytest.approx(0.5)
    assert all(a >= b for a, b in pairwise(rates[4:]))
    assert rates[12] == pytest.approx(0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi / 2)))


@given(
    num_steps=st.integers(1, 50), warmup=st.integers(0, 60), final=st.floats(0, 1), peak=st.floats(1e-6, 1)
)  # fmt: skip
def test_the_learning_rate_is_positive_and_at_most_its_peak(num_steps: int, warmup: int, final: float, peak: float):
    config = OptimizerConfig(learning_rate=peak, warmup_steps=warmup, final_fraction=final)
    for step in range(num_steps):
        assert 0 < learning_rate(step, num_steps, config) <= peak * (1 + 1e-9)


def test_the_average_follows_a_constant_and_lends_itself():
    module = torch.nn.Linear(2, 2)
    average = MovingAverage(module, 0.9)
    torch.nn.init.constant_(module.weight, 3.0)
    for _ in range(200):
        average.update(module)
    torch.testing.assert_close(average.average["weight"], torch.full((2, 2), 3.0))
    torch.nn.init.constant_(module.weight, 5.0)
    with average.applied_to(module):
        assert (module.weight == average.average["weight"]).all()
    assert (module.weight == 5.0).all()


def test_the_average_is_the_one_of_a_loop_with_its_correction():
    """decay min(d, n / (n + 10)) at update n."""
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, 1.0)
    average, expected = MovingAverage(module, 0.5), 1.0
    for n in range(1, 30):
        torch.nn.init.constant_(module.weight, float(n))
        average.update(module)
        decay = min(0.5, n / (n + 10))
        expected = decay * expected + (1 - decay) * n
        assert float(average.average["weight"]) == pytest.approx(expected, rel=1e-6)


def test_without_averaging_the_last_weights_are_exported():
    module = torch.nn.Linear(3, 3)
    average = MovingAverage(module, 0.0)
    for _ in range(3):
        torch.nn.init.normal_(module.weight)
        average.update(module)
        assert torch.equal(average.average["weight"], module.weight)


def test_an_error_inside_gives_the_weights_back():
    module = torch.nn.Linear(2, 2)
    average = MovingAverage(module, 0.9)
    torch.nn.init.constant_(module.weight, 5.0)
    with pytest.raises(RuntimeError, match="inside"), average.applied_to(module):
        raise RuntimeError("inside")
    assert (module.weight == 5.0).all()


@pytest.mark.parametrize(
    ("name", "tower"),
    [
        ("vision.blocks.0.attention.out.weight", "vision"),
        ("connector.projector.gate.weight", "connector"),
        ("text.new_embedding", "connector"),
        ("text.embedding", "decoder"),
        ("text.blocks.0.mlp.down.weight", "decoder"),
        ("lm_head.weight", "decoder"),
        ("action_expert.blocks.0.mlp.up.weight", "expert"),
        ("depth_gate.0.weight", "expert"),
        ("pointer_query.weight", "decoder"),
    ],
)
def test_towers_are_those_of_the_release(name: str, tower: str):
    assert tower_of(name) == tower


def test_every_parameter_is_optimised_once_and_only_matrices_decay():
    start = small_start()
    model, heads = start.model, small_heads(start)
    factors = {"vision_factor": 0.5, "connector_factor": 0.25, "expert_factor": 4.0}
    optimizer = make_optimizer([model, heads], OptimizerConfig(learning_rate=1.0, **factors))
    inside = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(inside) == sorted(id(p) for module in (model, heads) for p in module.parameters())
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.get_parameter("vision.patch_embedding.weight"))] == (0.5, 0.02)
    assert rates[id(model.text.embedding)] == (1.0, 0.0)
    assert rates[id(model.text.new_embedding)] == (0.25, 0.0)
    assert rates[id(model.text.norm.weight)] == (1.0, 0.0)
    assert rates[id(model.lm_head.weight)] == (1.0, 0.02)
    assert rates[id(model.get_parameter("action_expert.velocity_out.weight"))] == (4.0, 0.02)
    assert rates[id(model.get_parameter("action_expert.velocity_out.bias"))] == (4.0, 0.0)
    assert rates[id(heads.pointer_key.weight)] == (1.0, 0.02)
    set_learning_rate(optimizer, 0.1)
    assert {group["tower"]: group["lr"] for group in optimizer.param_groups} == {
        "vision": 0.05, "connector": 0.025, "decoder": 0.1, "expert": 0.4,
    }  # fmt: skip
    assert set(towers(optimizer)) == {"vision", "connector", "decoder", "expert"}


def test_what_is_frozen_is_not_optimised_and_added_rows_do_not_decay():
    start = small_start()
    model = start.model
    rows = added_rows(start.processor.vocabulary, model.config.text_config.vocab_size)
    prepared = prepare(model, PRESETS["post-training"], added_rows=rows)
    optimizer = make_optimizer([model], OptimizerConfig(learning_rate=1.0), never_decayed=prepared.restricted)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(model.text.embedding)] == 0.0
    model = small_start().model
    prepare(model, PRESETS["expert"])
    optimizer = make_optimizer([model], OptimizerConfig(learning_rate=1.0))
    assert set(towers(optimizer)) == {"expert"}
