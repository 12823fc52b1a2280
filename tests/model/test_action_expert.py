"""What the expert computes once is what it would compute every time; samples and prompts do not see one another.

float32 through two blocks: equal to 1e-5 of values near 1, 4e-5 after several flow steps.
"""

import pytest
import torch

from molmoact2.model import flow
from molmoact2.model.action_expert import ActionExpert, ExpertContext, Modulation
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.testing import random_model
from slow_twins import sample_actions, sample_actions_projecting_anew
from small_networks import GRID, prompts, single, small_config

HORIZON, WIDTH = 6, 5
FEW = {"rtol": 1e-5, "atol": 1e-5}
MANY = {"rtol": 4e-5, "atol": 4e-5}
VARIATIONS = [{}, {"causal_attn": True, "rope": False}, {"qk_norm": False, "context_layer_norm": False}]


def network(**expert: object) -> MolmoAct2:
    config = small_config(action_expert_config=expert, action_expert_depth_gate=True)
    return random_model(config, seed=0).requires_grad_(False)


def parts(**expert: object) -> tuple[ActionExpert, ExpertContext]:
    """An expert, and what it sees of two prompts of other lengths."""
    model = network(**expert)
    inputs = prompts(model.config)
    layers = model.read(inputs, model.image_features(inputs, GRID)).layers
    assert model.action_expert is not None
    return model.action_expert, model.expert_context(layers, inputs.token_ids, inputs.valid)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, HORIZON, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("expert", VARIATIONS, ids=str)
def test_projecting_the_prompt_once_is_projecting_it_at_every_step(expert: dict):
    model = network(**expert)
    inputs = prompts(model.config)
    layers = model.read(inputs, model.image_features(inputs, GRID)).layers
    once = sample_actions(model, inputs, layers, noise(2), num_steps=4)
    anew = sample_actions_projecting_anew(model, inputs, layers, noise(2), num_steps=4)
    torch.testing.assert_close(once, anew, **MANY)


def test_the_modulation_of_a_grid_is_that_of_its_times():
    expert, _ = parts()
    grid = flow.time_grid(4)
    together = expert.modulation(grid, torch.float32)
    for step, t in enumerate(grid):
        alone = expert.modulation(t, torch.float32)
        torch.testing.assert_close(together.blocks[:, :, step], alone.blocks, **FEW)
        torch.testing.assert_close(together.final[:, step], alone.final, **FEW)


@pytest.mark.parametrize("expert", VARIATIONS, ids=str)
@pytest.mark.parametrize("valid_steps", [None, [[True] * 6, [True] * 2 + [False] * 4]])
def test_samples_of_a_prompt_are_separate_calls(expert: dict, valid_steps: list | None):
    """Four samples, each with a time of its own, share one copy of their prompt."""
    network_, context = parts(**expert)
    t = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    valid = None if valid_steps is None else torch.tensor(valid_steps)
    together = network_.velocity(noise(2, 4), network_.modulation(t, torch.float32), context, valid)
    for k in range(4):
        modulation = network_.modulation(t[:, k : k + 1], torch.float32)
        alone = network_.velocity(noise(2, 4)[:, k : k + 1], modulation, context, valid)
        torch.testing.assert_close(together[:, k : k + 1], alone, **FEW)


def test_prompts_of_a_batch_act_as_if_alone():
    model = network()
    inputs = prompts(model.config)
    layers = model.read(inputs, model.image_features(inputs, GRID)).layers
    together = sample_actions(model, inputs, layers, noise(2), num_steps=3)
    for row in range(2):
        alone = single(inputs, row)
        layers = model.read(alone, model.image_features(alone, GRID)).layers
        actions = sample_actions(model, alone, layers, noise(2)[row : row + 1], num_steps=3)
        torch.testing.assert_close(together[row : row + 1], actions, **MANY)


def test_padded_steps_are_zero_and_move_nothing():
    expert, context = parts()
    modulation = expert.modulation(torch.tensor([[0.1], [0.9]]), torch.float32)
    valid = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    x_t = noise(2, 1)
    velocity = expert.velocity(x_t, modulation, context, valid)
    changed = torch.where(valid[:, None, :, None], x_t, 9.0)
    torch.testing.assert_close(expert.velocity(changed, modulation, context, valid), velocity, **FEW)
    assert not velocity[0, 0, 4:].any()
    short = expert.velocity(x_t[:1, :, :4], first(modulation), first_prompt(context))
    torch.testing.assert_close(velocity[:1, :, :4], short, **FEW)


def first(modulation: Modulation) -> Modulation:
    return Modulation(blocks=modulation.blocks[:, :, :1], final=modulation.final[:, :1])


def first_prompt(context: ExpertContext) -> ExpertContext:
    return ExpertContext(layers=[(k[:1], v[:1]) for k, v in context.layers], mask=context.mask[:1])


@pytest.mark.parametrize(("causal", "moves"), [(True, False), (False, True)])
def test_later_steps_move_earlier_ones_only_if_not_causal(causal: bool, moves: bool):
    expert, context = parts(causal_attn=causal)
    modulation = expert.modulation(torch.tensor([[0.1], [0.9]]), torch.float32)
    changed = noise(2, 1)
    changed[:, :, 4:] += 1
    before, after = (expert.velocity(x_t, modulation, context) for x_t in (noise(2, 1), changed))
    assert ((before - after)[:, :, :4].abs().max() > 1e-3) == moves


@pytest.mark.parametrize(("masks", "moves"), [(True, False), (False, True)])
def test_padded_dimensions_stay_zero_if_the_config_masks_them(masks: bool, moves: bool):
    model = random_model(small_config(mask_action_dim_padding=masks), seed=0).requires_grad_(False)
    inputs = prompts(model.config)
    layers = model.read(inputs, model.image_features(inputs, GRID)).layers
    context = model.expert_context(layers, inputs.token_ids, inputs.valid)
    grid = model.modulation(flow.time_grid(3))
    other = noise(2)
    other[..., 3:] = 7.0
    one, two = (model.sample_actions(x_0, context, grid, action_dim=3) for x_0 in (noise(2), other))
    assert bool(one[..., 3:].any()) == moves
    assert bool((one - two)[..., :3].abs().max() > 1e-3) == moves


def test_without_an_expert_there_is_no_context_and_no_modulation():
    model = random_model(small_config(add_action_expert=False, action_expert_config=None), seed=0)
    with pytest.raises(ValueError, match="no action expert"):
        model.modulation(flow.time_grid(2))
    with pytest.raises(ValueError, match="no action expert"):
        model.expert_context([], torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool))
