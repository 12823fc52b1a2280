"""What depends on the time grid alone is computed once per policy, what depends on the prompt alone once per chunk."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from golden_cases import GOLDEN, Case
from molmoact2 import MolmoAct2Policy, load_policy
from molmoact2.model.action_expert import ActionExpert

CASE = Case("tiny", 0)


@pytest.fixture
def fresh() -> MolmoAct2Policy:
    return load_policy(GOLDEN / "tiny")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How often each part of the expert was asked."""
    counted = Counter()

    def count(name: str) -> None:
        original = getattr(ActionExpert, name)

        def counting(*arguments: object, **options: object) -> object:
            counted[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(ActionExpert, name, counting)

    for name in ("modulation", "context", "velocity"):
        count(name)
    return counted


def test_chunks_share_the_times_and_steps_share_the_prompt(fresh: MolmoAct2Policy, calls: Counter):
    for _ in range(3):
        fresh.act(CASE.observation(), CASE.tag, num_steps=5)
    assert calls == {"modulation": 1, "context": 3, "velocity": 15}


def test_every_number_of_steps_has_its_own_times(fresh: MolmoAct2Policy, calls: Counter):
    noise = CASE["noise"][0]
    for num_steps in (4, 2, 4, 2):
        shared = fresh.act(CASE.observation(), CASE.tag, num_steps=num_steps, noise=noise)
        alone = load_policy(GOLDEN / "tiny").act(CASE.observation(), CASE.tag, num_steps=num_steps, noise=noise)
        np.testing.assert_array_equal(shared.actions, alone.actions)
    assert calls["modulation"] == 2 + 4


def test_another_network_has_its_own_times(fresh: MolmoAct2Policy):
    fresh.act(CASE.observation(), CASE.tag, seed=0)
    expert = fresh.model.action_expert
    assert expert is not None
    expert.final_modulation.bias.add_(0.5)
    expected = replace(load_policy(GOLDEN / "tiny"), model=fresh.model).act(CASE.observation(), CASE.tag, seed=0)
    actual = replace(fresh, revision="changed").act(CASE.observation(), CASE.tag, seed=0)
    np.testing.assert_array_equal(actual.actions, expected.actions)
