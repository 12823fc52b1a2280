"""Pulled flows against closed forms: linear networks, the exact flow of a Gaussian, and a twin in numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from molmoact2.model import flow
from molmoact2.model.flow import Velocity
from molmoact2.model.guidance import Guidance, Rule, gain
from molmoact2.testing import random_model
from small_networks import GRID, prompts, small_config

HORIZON, WIDTH, PADDED = 5, 3, 4
RULES: tuple[Rule, ...] = ("guided", "simplified")


def some(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def guidance(
    rule: Rule, *, count: int = 2, width: int = WIDTH, padded: int = WIDTH, max_gain: float = 10.0
) -> Guidance:
    weight = torch.linspace(1, 0, HORIZON)[None, :, None].repeat(count, 1, 1)
    return Guidance(target=some(7, count, HORIZON, padded), weight=weight, width=width, rule=rule, max_gain=max_gain)


def linear(seed: int, width: int) -> tuple[Velocity, Tensor]:
    """A velocity that is a matrix, and the matrix."""
    size = HORIZON * width
    matrix = some(seed, size, size) / size**0.5
    return lambda x_t, _step: (x_t.flatten(1) @ matrix.T + 1).view_as(x_t), matrix


@pytest.mark.parametrize("t", [0.01, 0.1, 0.3, 0.5, 0.75, 0.9, 0.99])
def test_the_gain_is_that_of_the_variance(t: float):
    variance = (1 - t) ** 2 / (t**2 + (1 - t) ** 2)
    assert gain(t, 1e9) == pytest.approx((1 - t) / (t * variance))


def test_the_gain_is_bounded_where_it_would_be_infinite_and_least_in_the_middle():
    assert gain(0.0, 10.0) == 10.0
    assert gain(1.0, 7.5) == 7.5
    assert gain(1e-9, 10.0) == gain(1 - 1e-9, 10.0) == 10.0
    assert gain(0.5, 10.0) == 2.0
    assert gain(0.5, 1.5) == 1.5


@given(seed=st.integers(0, 50), num_steps=st.integers(1, 8), data=st.data())
def test_a_linear_network_is_pulled_by_its_transpose(seed: int, num_steps: int, data: st.DataObject):
    step, pull = data.draw(st.integers(0, num_steps - 1)), guidance("guided")
    (velocity, matrix), x_t, t = linear(seed, WIDTH), some(seed + 1, 2, HORIZON, WIDTH), step / num_steps
    u_t = velocity(x_t, step)
    miss = (pull.weight * (pull.target - x_t - (1 - t) * u_t)).flatten(1)
    jacobian = torch.eye(HORIZON * WIDTH) + (1 - t) * matrix
    expected = u_t + gain(t, 10.0) * (miss @ jacobian).view_as(x_t)
    torch.testing.assert_close(pull.steer(velocity, num_steps)(x_t, step), expected, rtol=1e-4, atol=1e-4)


def test_a_curved_network_is_pulled_down_the_slope_of_its_miss():
    """Jᵀ W (target - e) is the gradient of -½ W (target - e)²: finite differences in float64."""
    pull, num_steps, step = guidance("guided", count=1), 4, 1
    matrix, t = linear(3, WIDTH)[1].double(), step / num_steps

    def velocity(x_t: Tensor, _step: int) -> Tensor:
        return torch.tanh(x_t.double().flatten(1) @ matrix.T).view_as(x_t)

    def minus_half_square(x_t: Tensor) -> Tensor:
        return -0.5 * (pull.weight * (pull.target - x_t - (1 - t) * velocity(x_t, step)) ** 2).sum()

    x_t, slope = some(4, 1, HORIZON, WIDTH).double(), torch.zeros(HORIZON * WIDTH)
    for index in range(slope.numel()):
        nudge = torch.zeros(slope.numel(), dtype=torch.float64)
        nudge[index] = 1e-6
        nudge = nudge.view_as(x_t)
        slope[index] = (minus_half_square(x_t + nudge) - minus_half_square(x_t - nudge)) / 2e-6
    correction = (pull.steer(velocity, num_steps)(x_t, step) - velocity(x_t, step)) / gain(t, 10.0)
    torch.testing.assert_close(correction.flatten().float(), slope, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 50), num_steps=st.integers(1, 10), max_gain=st.sampled_from([1.0, 5.0, 10.0]))
def test_the_simplified_rule_is_its_twin_in_numpy(seed: int, num_steps: int, max_gain: float):
    """The twin runs time the other way round, from 1 at the noise to 0, and negates velocities, as others do."""
    pull, (velocity, matrix) = guidance("simplified", max_gain=max_gain), linear(seed, WIDTH)
    noise = some(seed + 1, 2, HORIZON, WIDTH)
    x, target, weight = (part.double().numpy() for part in (noise, pull.target, pull.weight))
    for step in range(num_steps):
        time = 1 - step / num_steps
        backward = -((x.reshape(2, -1) @ matrix.double().numpy().T) + 1).reshape(x.shape)
        tau = 1 - time
        error = (target - (x - time * backward)) * weight
        with np.errstate(divide="ignore"):
            factor = np.float64(1 - tau) / tau * ((1 - tau) ** 2 + tau**2) / (1 - tau) ** 2
        x = x - (backward - min(max_gain, factor) * error) / num_steps
    ours = flow.integrate(pull.steer(velocity, num_steps), noise, num_steps)
    torch.testing.assert_close(ours.double(), torch.from_numpy(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rule", RULES)
def test_padding_is_left_alone(rule: Rule):
    """The padding moves by itself here, and the rest depends on it, so that its gradient is not zero."""

    def velocity(x_t: Tensor, _step: int) -> Tensor:
        padding = x_t[..., WIDTH:]
        return torch.cat((x_t[..., :WIDTH].tanh() + padding, 0.5 * padding), dim=-1)

    noise, pull = some(0, 2, HORIZON, PADDED), guidance(rule, padded=PADDED)
    plain, pulled = (flow.integrate(v, noise, 5) for v in (velocity, pull.steer(velocity, 5)))
    assert torch.equal(pulled[..., WIDTH:], plain[..., WIDTH:])
    assert not torch.allclose(pulled[..., :WIDTH], plain[..., :WIDTH], atol=0.1)


@pytest.mark.parametrize("rule", RULES)
def test_a_chunk_of_zero_weights_flows_as_it_would_alone(rule: Rule):
    velocity, noise = linear(1, WIDTH)[0], some(0, 2, HORIZON, WIDTH)
    pull = guidance(rule)
    pull.weight[1] = 0
    plain, pulled = (flow.integrate(v, noise, 5) for v in (velocity, pull.steer(velocity, 5)))
    assert torch.equal(pulled[1], plain[1])
    assert not torch.allclose(pulled[0], plain[0], atol=0.1)
    alone = flow.integrate(pull.row(0).steer(lambda x, i: velocity(x, i), 5), noise[:1], 5)
    torch.testing.assert_close(alone, pulled[:1], rtol=1e-5, atol=1e-5)


def smooth_flow() -> tuple[Velocity, Tensor, Tensor]:
    """The exact velocity of smooth random trajectories with 10 Euler steps, their mean and their covariance."""
    steps = torch.arange(HORIZON, dtype=torch.float32)
    covariance = torch.exp(-((steps[:, None] - steps) ** 2) / 8) + 1e-4 * torch.eye(HORIZON)
    mean = torch.linspace(-0.5, 0.5, HORIZON)[:, None].expand(HORIZON, WIDTH)

    def velocity(x_t: Tensor, step: int) -> Tensor:
        t = step / 10
        spread = t**2 * covariance + (1 - t) ** 2 * torch.eye(HORIZON)
        expected = mean + t * covariance @ torch.linalg.solve(spread, x_t - t * mean)
        return (expected - x_t) / (1 - t)

    return velocity, mean, covariance


@pytest.mark.parametrize("rule", RULES)
def test_the_flow_of_smooth_trajectories_begins_as_decided_and_goes_on_smoothly(rule: Rule):
    """Two steps of a likely trajectory are decided; the third lies where trajectories go on from there."""
    velocity, mean, covariance = smooth_flow()
    decided = mean[:2] + torch.linalg.cholesky(covariance[:2, :2]) @ some(3, 2, WIDTH)
    target, weight = torch.zeros(400, HORIZON, WIDTH), torch.zeros(400, HORIZON, 1)
    target[:, :2], weight[:, :2] = decided, 1.0
    pull, noise = Guidance(target=target, weight=weight, width=WIDTH, rule=rule, max_gain=10.0), some(5, *target.shape)
    plain, pulled = (flow.integrate(v, noise, 10) for v in (velocity, pull.steer(velocity, 10)))
    assert (pulled[:, :2] - decided).abs().mean() < 0.1 < (plain[:, :2] - decided).abs().mean()
    seams = [(chunks[:, 2] - decided[1]).abs().mean() for chunks in (plain, pulled)]
    natural = (plain[:, 2] - plain[:, 1]).abs().mean()
    assert seams[1] < 0.6 * seams[0]
    assert seams[1] < 1.3 * natural


def test_gradients_go_nowhere_else():
    weight = torch.nn.Parameter(some(0, WIDTH, WIDTH))
    x_t = some(1, 1, HORIZON, WIDTH)
    pulled = guidance("guided", count=1).steer(lambda x, _step: x @ weight, 4)(x_t, 1)
    assert not pulled.requires_grad
    assert not x_t.requires_grad
    assert weight.grad is None


def test_the_network_is_pulled_down_its_slope():
    """From noise to the end in one weak step; finite differences of the network itself."""
    model = random_model(small_config(), seed=0).requires_grad_(False)
    inputs = prompts(model.config)
    layers = model.read(inputs, model.image_features(inputs, GRID)).layers
    context, times = model.expert_context(layers, inputs.token_ids, inputs.valid), model.modulation(flow.time_grid(1))
    pull = replace(guidance("guided", padded=5, width=3), max_gain=1e-2)

    def end(start: Tensor, guidance: Guidance | None = None) -> Tensor:
        return model.sample_actions(start, context, times, action_dim=3, guidance=guidance)

    def half_square(start: Tensor) -> Tensor:
        return 0.5 * (pull.weight * (pull.target - end(start))[..., :3] ** 2).sum()

    start = some(1, 2, HORIZON, 5)
    correction = (end(start, pull) - end(start)) / 1e-2
    assert not correction[..., 3:].any()
    for place in [(0, 0, 0), (0, 4, 2), (1, 1, 1), (1, 3, 0)]:
        nudge = torch.zeros_like(start)
        nudge[place] = 1e-2
        slope = (half_square(start + nudge) - half_square(start - nudge)) / 2e-2
        torch.testing.assert_close(correction[place], -slope, rtol=0.02, atol=2e-3)
    assert all(parameter.grad is None for parameter in model.parameters())
