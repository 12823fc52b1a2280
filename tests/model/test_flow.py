"""The straight path and Euler's method, against closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.model import flow


def some(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 99), num_steps=st.integers(1, 12), samples=st.sampled_from([(), (2,), (2, 3)]))
def test_the_true_velocity_carries_noise_to_actions_in_any_number_of_steps(seed: int, num_steps: int, samples: tuple):
    noise, actions = some(seed, *samples, 5, 4), some(seed + 1, *samples, 5, 4)
    _, u_t = flow.interpolate(noise, actions, torch.zeros(samples))
    x_1 = flow.integrate(lambda _x, _i: u_t, noise, num_steps)
    torch.testing.assert_close(x_1, actions, rtol=1e-5, atol=1e-5)


@given(seed=st.integers(0, 99), num_steps=st.integers(1, 12))
def test_every_euler_step_lies_on_the_path(seed: int, num_steps: int):
    noise, actions, seen = some(seed, 2, 5, 4), some(seed + 1, 2, 5, 4), []

    def velocity(x_t: torch.Tensor, _step: int) -> torch.Tensor:
        seen.append(x_t)
        return actions - noise

    flow.integrate(velocity, noise, num_steps)
    for t, x_t in zip(flow.time_grid(num_steps), seen, strict=True):
        torch.testing.assert_close(x_t, flow.interpolate(noise, actions, t.expand(2))[0], rtol=1e-5, atol=1e-5)


def test_the_path_starts_at_noise_and_ends_at_actions():
    noise, actions = some(0, 3, 5, 4), some(1, 3, 5, 4)
    assert torch.equal(flow.interpolate(noise, actions, torch.zeros(3))[0], noise)
    assert torch.equal(flow.interpolate(noise, actions, torch.ones(3))[0], actions)


def test_each_sample_has_its_own_time():
    noise, actions, t = some(0, 2, 3, 5, 4), some(1, 2, 3, 5, 4), torch.rand(2, 3)
    x_t, u_t = flow.interpolate(noise, actions, t)
    for b in range(2):
        for k in range(3):
            alone = flow.interpolate(noise[b, k], actions[b, k], t[b, k])
            torch.testing.assert_close((x_t[b, k], u_t[b, k]), alone, rtol=0, atol=1e-6)


def test_the_velocity_is_the_derivative_of_the_path():
    noise, actions = some(0, 5, 4), some(1, 5, 4)
    (earlier, u_t), (later, _) = (flow.interpolate(noise, actions, torch.tensor(t)) for t in (0.25, 0.75))
    torch.testing.assert_close((later - earlier) / 0.5, u_t, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 7, 200])
def test_eulers_method_on_exponential_growth(num_steps: int):
    """x' = x from 1: (1 + 1/n)^n, which tends to e."""
    x_1 = flow.integrate(lambda x_t, _: x_t, torch.ones(1, 1, 1), num_steps)
    assert float(x_1) == pytest.approx((1 + 1 / num_steps) ** num_steps, rel=1e-5)
    assert float(x_1) < math.e


def test_the_state_stays_in_float32():
    seen = []

    def velocity(x_t: torch.Tensor, _step: int) -> torch.Tensor:
        seen.append(x_t.dtype)
        return x_t.bfloat16()

    assert flow.integrate(velocity, torch.ones(1, 2, 2).bfloat16(), 3).dtype == torch.float32
    assert seen == [torch.float32] * 3


@pytest.mark.parametrize("num_steps", [0, -1])
def test_no_steps_are_refused(num_steps: int):
    with pytest.raises(ValueError, match=f"at least 1, got {num_steps}"):
        flow.time_grid(num_steps)
