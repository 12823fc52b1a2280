"""A new network starts as the table in the docstring of `initialize` says."""

import math
from collections.abc import Callable

import pytest
import torch

from molmoact2.model.action_expert import ActionSteps
from molmoact2.model.initialize import EMBEDDING_STD, initialize, ordinal_embedding, sincos_positions
from molmoact2.model.molmoact2 import MolmoAct2
from small_networks import small_config

GATED = {"action_expert_depth_gate": True, "action_expert_depth_gate_init_bias": -3.0}
STATES = {"state_token_start_id": 60, "num_state_tokens": 32}
BIASED = {"text_config": {"qkv_bias": True, "num_hidden_layers": 2}}


def fresh(seed: int = 0) -> MolmoAct2:
    model = MolmoAct2(small_config(**GATED, **STATES, **BIASED))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    initialize(model, torch.Generator().manual_seed(seed))
    return model


def named(model: MolmoAct2, belongs: Callable[[str, torch.Tensor], bool]) -> dict[str, torch.Tensor]:
    found = {name: parameter.detach() for name, parameter in model.named_parameters() if belongs(name, parameter)}
    assert found
    return found


def is_special(name: str) -> bool:
    return "modulation" in name or "velocity_out" in name or "depth_gate" in name or "embedding" in name.split(".")[-1]


def test_every_parameter_is_filled():
    for name, parameter in fresh().named_parameters():
        assert parameter.isfinite().all(), name


def test_same_seed_same_weights():
    one, again, other = (dict(fresh(seed).named_parameters()) for seed in (0, 0, 1))
    for name, parameter in one.items():
        assert torch.equal(parameter, again[name]), name
        is_drawn = parameter.dim() == 2 and not ("modulation" in name or "velocity_out" in name or "gate." in name[:11])
        if is_drawn and name != "vision.positional_embedding":
            assert not torch.equal(parameter, other[name]), name


def test_matrices_keep_the_size_of_what_they_read():
    """Their spread is 1 / sqrt(inputs), and 1 / sqrt(2 · layers) of that where they write to the residual stream."""
    for name, matrix in named(fresh(), lambda name, p: p.dim() == 2 and not is_special(name)).items():
        writes = name.endswith(("attention.out.weight", "mlp.down.weight"))
        expected = (matrix.shape[1] * (4 if writes else 1)) ** -0.5
        tolerance = 5 / math.sqrt(2 * matrix.numel())  # five standard errors of a standard deviation
        assert float(matrix.std()) == pytest.approx(expected, rel=tolerance), name


def test_biases_are_zero_and_norms_are_one():
    for name, bias in named(fresh(), lambda name, _: name.endswith("bias") and "depth_gate" not in name).items():
        assert not bias.any(), name
    for name, weight in named(fresh(), lambda name, _: name.endswith("norm.weight")).items():
        assert (weight == 1).all(), name


def test_embeddings_have_their_spread():
    text = fresh().text
    words = text.embedding[:60].detach()
    assert float(words.std()) == pytest.approx(EMBEDDING_STD, rel=0.1)
    assert float(text.new_embedding.detach().std()) == pytest.approx(EMBEDDING_STD, rel=0.2)


def test_neighbouring_states_are_alike():
    states = fresh().text.embedding[60:92].detach()
    bins = torch.arange(32.0) / 32
    torch.testing.assert_close(states, EMBEDDING_STD * ordinal_embedding(bins, 32))
    near, far = (torch.cosine_similarity(states[:-k], states[k:]).mean() for k in (1, 16))
    assert near > far


@pytest.mark.parametrize("part", ["vision.blocks", "text.blocks"])
def test_layers_differ_from_one_another(part: str):
    """Drawn one after the other, not all from the same state of the generator."""
    first, second = (
        named(fresh(), lambda name, p, layer=layer: name.startswith(f"{part}.{layer}.") and p.dim() == 2)
        for layer in (0, 1)
    )
    for one, other in zip(first.values(), second.values(), strict=True):
        assert not torch.equal(one, other)


def test_the_expert_starts_as_the_identity():
    expert = fresh().action_expert
    assert expert is not None
    modulation = expert.modulation(torch.tensor([0.2, 0.8]), torch.float32)
    assert not modulation.blocks.any()
    assert not modulation.final.any()
    x = torch.randn(1, 1, 6, 32)
    context = expert.context([(torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8))] * 2, torch.ones(1, 3).bool())
    steps = ActionSteps(angles=None, mask=None)
    for block, layer in zip(expert.blocks, context.layers, strict=True):
        assert torch.equal(block(x, modulation.blocks[0, :, :1, None], steps, layer, context.mask), x)
    x_t = torch.randn(1, 2, 6, 5)
    assert not expert.velocity(x_t, expert.modulation(torch.rand(1, 2), torch.float32), context).any()


def test_depth_gates_start_closed():
    gates = fresh().depth_gate
    assert gates is not None
    for gate in gates:
        assert not gate.weight.any()
        assert gate.bias.tolist() == [-3.0]


def test_positions_tell_rows_from_columns():
    vision = fresh().vision
    torch.testing.assert_close(vision.positional_embedding.detach(), 0.5 * sincos_positions(4, 32))
    grid = sincos_positions(4, 32).reshape(4, 4, 32)
    assert torch.equal(grid[2, :, :16], grid[2, :1, :16].expand(4, -1))
    assert torch.equal(grid[:, 3, 16:], grid[:1, 3, 16:].expand(4, -1))
    assert len(sincos_positions(4, 32).unique(dim=0)) == 16
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        sincos_positions(2, 6)
