"""Policies that think, and scenes that vary, as a command asks for them: what is done, noted, shown and refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from thinker import tiny_thinker
from worlds import LineWorld, ListeningWalker

from molmoact2.cli.evaluate import Evaluate
from molmoact2.envs.variations import NOMINAL, Variations
from molmoact2.evaluation.benchmark import Benchmark, run_benchmark
from molmoact2.evaluation.policies import PolicyChoice, PolicySource
from molmoact2.evaluation.rollout import UNOBSERVED
from molmoact2.evaluation.setup import make_benchmark, open_environment
from molmoact2.evaluation.thoughts import Thoughts, thought_sentences
from molmoact2.testing import fake_observation, tiny_checkpoint
from molmoact2.types import ActionChunk, DepthReasoning, Observation

PLAIN_PROTOCOL = {
    "policy", "fingerprint", "environment", "embodiment", "control_hz", "max_steps", "first_seed", "action_steps",
    "flow_steps", "mode", "dtype", "molmoact2",
}  # fmt: skip
"""What runs of before know of; a further entry would refuse to continue them."""


class Tabletop:
    """Stands for an environment where only its robot matters."""

    embodiment = "so101_tabletop"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("plain") / "plain")


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_thinker(tmp_path_factory.mktemp("thinking") / "thinking")


def thought(num_changed: int, *, passes: int = 3, age: int = 0) -> DepthReasoning:
    return DepthReasoning(codes=np.zeros(9, np.int64), changed=np.arange(9) < num_changed, passes=passes, age=age)


class ThinkingWalker(ListeningWalker):
    """Renews as many cells as it has looked before."""

    looks = 0

    def act(self, observation: Observation, /) -> ActionChunk:
        self.looks += 1
        return replace(super().act(observation), depth=thought(self.looks, passes=2 * self.looks))


def open_thinker(_environment: object) -> PolicySource:
    return PolicySource(start=ThinkingWalker, num_action_steps=3)


def test_thoughts_are_counted_plan_by_plan(tmp_path: Path):
    benchmark = Benchmark(open_environment=LineWorld, open_policy=open_thinker, tasks=("left",), num_episodes=2)
    *_, records = run_benchmark(benchmark, tmp_path, {"policy": "thinker"})
    for record in records:
        looks = list(range(1, record["plans"] + 1))
        assert record["depth"] == {
            "cells": 9, "renewed": looks, "passes": [2 * look for look in looks], "age": [0] * len(looks)
        }  # fmt: skip
    renewed = np.mean([look for record in records for look in record["depth"]["renewed"]])
    assert thought_sentences(records) == [
        f"Thinking: {renewed:.1f} of 9 depth cells renewed per plan, in {2 * renewed:.1f} passes."
    ]


def test_who_does_not_think_has_no_record_of_it():
    thoughts = Thoughts(UNOBSERVED)
    thoughts.planned(0, fake_observation(), ActionChunk(actions=np.zeros((1, 6), np.float32)))
    assert thoughts.record == {}
    assert thought_sentences([{"task": "pick"}]) == []


def test_thinking_ahead_is_told():
    thoughts = Thoughts(UNOBSERVED)
    for age in (0, 1, 1, 1):
        chunk = ActionChunk(actions=np.zeros((1, 6), np.float32), depth=thought(2, age=age))
        thoughts.planned(0, fake_observation(), chunk)
    assert thought_sentences([thoughts.record])[0].endswith("75% of plans used the map of an earlier look.")


def test_other_observers_see_all_of_it():
    class Listener:
        def __init__(self) -> None:
            self.heard: list[int] = []

        def planned(self, step, _observation, _chunk, /):
            self.heard.append(step)

        def stepped(self, step, _executed, _outcome, /):
            self.heard.append(-step)

    listener = Listener()
    thoughts = Thoughts(listener)
    thoughts.planned(4, fake_observation(), ActionChunk(actions=np.zeros((1, 6), np.float32)))
    thoughts.stepped(5, np.zeros(6), None)
    assert listener.heard == [4, -5]


def test_a_checkpoint_thinks_when_it_is_asked_to(thinking: Path):
    for think in (False, True):
        choice = PolicyChoice(name=str(thinking), environment="so101", think=think)
        chunk = choice.open(Tabletop()).start(0).act(fake_observation())
        assert (chunk.depth is not None) == think
        assert chunk.actions.shape == (6, 6)


def test_a_checkpoint_thinks_ahead_when_it_is_asked_to(thinking: Path):
    policy = (
        PolicyChoice(name=str(thinking), environment="so101", think=True, think_ahead=True).open(Tabletop()).start(0)
    )
    chunks = [policy.act(fake_observation(seed=seed)) for seed in (0, 1, 2)]
    assert [chunk.depth.age for chunk in chunks] == [0, 1, 1]
    assert chunks[0].depth.passes > 0


def test_a_plain_checkpoint_cannot_think_and_nothing_is_begun(plain: Path, tmp_path: Path):
    choice = PolicyChoice(name=str(plain), environment="so101", think=True)
    with pytest.raises(ValueError, match="was not trained to think"):
        choice.open(Tabletop())
    with pytest.raises(ValueError, match="was not trained to think"):
        Evaluate(policy=str(plain), think=True, episodes=1, output=tmp_path / "run").run()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "expert", "think": True}, "'expert' cannot think"),
        ({"name": "tiny", "think_ahead": True}, "ask for think as well"),
    ],
)
def test_thinking_that_makes_no_sense_is_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        PolicyChoice(environment="so101", **fields)


def test_the_protocol_names_what_is_unusual_only(plain: Path, thinking: Path):
    def protocol(name: object, variations: Variations = NOMINAL, **fields: bool) -> dict:
        choice = PolicyChoice(name=str(name), environment="so101", **fields)
        return make_benchmark(choice, tasks=(), num_episodes=1, num_films=0, variations=variations)[1]

    assert protocol(plain).keys() == protocol(thinking).keys() == PLAIN_PROTOCOL
    assert protocol(plain, Variations(camera=0)).keys() == PLAIN_PROTOCOL
    unusual = protocol(thinking, Variations(camera=1, lighting=0.5), think=True, think_ahead=True)
    assert {name: unusual[name] for name in unusual.keys() - PLAIN_PROTOCOL} == {
        "variations": {"lighting": 0.5, "camera": 1.0}, "think": True, "think_ahead": True
    }  # fmt: skip


def test_an_environment_is_varied_as_asked():
    environment = open_environment("so101", Variations(distractors=0.5))
    environment.reset(seed=0, task="pick")
    assert len(environment.scene.distractors) == 3
    environment.close()


def test_a_varied_run_is_measured_noted_and_not_mixed_with_another(tmp_path: Path, capsys: pytest.CaptureFixture):
    run = Evaluate(policy="expert", tasks=("push",), episodes=1, films=0, report=False, output=tmp_path)
    replace(run, variation=("lighting=0.5", "camera")).run()
    assert "1 / 1" in capsys.readouterr().out
    assert json.loads((tmp_path / "protocol.json").read_text())["variations"] == {"lighting": 0.5, "camera": 1.0}
    with pytest.raises(ValueError, match=r"another protocol: variations was .* is None"):
        run.run()
    with pytest.raises(ValueError, match="Did you mean 'camera'"):
        replace(run, variation=("camra=1",)).run()


def test_runs_of_different_scenes_go_to_different_folders():
    plain = Evaluate(policy="expert")
    assert plain.run_name("nano", {}) == "evaluate-so101-nano"
    varied = Evaluate(policy="nano", think=True, think_ahead=True)
    name = varied.run_name("you/nano", {"lighting": 0.5, "camera": 1.0})
    assert name == "evaluate-so101-you-nano-think-think-ahead-lighting-0.5-camera-1"
