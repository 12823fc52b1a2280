"""How long a policy takes to answer, stage by stage, and what that is made of.

precision   bfloat16 against float32 (target on a CPU with matrix units for it: at least twice as fast)
matmuls     the whole answer against its matrix products alone (target: at most 1.3 times)
once        what is computed once, against the slow twins of the tests, which compute it again and again
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.matmuls import carry_out, matmuls_of
from benchmarks.measuring import Settings, in_turns, measure, milliseconds, print_table, ratio
from benchmarks.networks import Measured, medium, nano
from molmoact2.inference import MolmoAct2Policy
from molmoact2.inference.decoding import Speech
from molmoact2.model import flow
from molmoact2.model.action_expert import ExpertContext, Modulation
from molmoact2.types import Observation

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from slow_twins import decode_reading_anew, sample_actions, sample_actions_projecting_anew
from step_by_step import say_restricted

SPOKEN_TOKENS = 8
"""Enough to see what a cache saves; a depth map has 100."""


class Stages:
    """The parts of an answer as separate calls, each with its input at hand."""

    def __init__(self, policy: MolmoAct2Policy, observation: Observation) -> None:
        model, grid = policy.model, policy.processor.images.grid
        self.policy, self.observation, self.model = policy, observation, model
        self.inputs = policy.encode(observation).inputs
        self.features = model.image_features(self.inputs, grid)
        self.layers = model.read(self.inputs, self.features).layers
        self.context = self.project_prompt()
        self.num_steps = model.config.flow_matching_num_steps
        self.modulation = model.modulation(flow.time_grid(self.num_steps))
        horizon, width = policy.processor.tag(None).action_horizon, model.config.max_action_dim
        self.noise = torch.randn(1, horizon, width, generator=torch.Generator().manual_seed(0))
        self.calls: dict[str, Callable[[], object]] = {
            "prompt and images": lambda: policy.encode(observation),
            "vision": lambda: model.image_features(self.inputs, grid),
            "prefill": lambda: model.read(self.inputs, self.features),
            "prompt for the expert": lambda: model.expert_context(
                self.layers, self.inputs.token_ids, self.inputs.valid
            ),
            "times for the expert": lambda: model.modulation(flow.time_grid(self.num_steps)),
            "one flow step": self.flow_step,
            "whole answer": lambda: policy.act(observation, noise=self.noise[0]),
        }

    def project_prompt(self) -> ExpertContext:
        """The prompt's keys and values as the expert sees them."""
        return self.model.expert_context(self.layers, self.inputs.token_ids, self.inputs.valid)

    def flow_step(self) -> torch.Tensor:
        """One velocity."""
        assert self.model.action_expert is not None
        first = Modulation(blocks=self.modulation.blocks[:, :, :1, None], final=self.modulation.final[:, :1, None])
        return self.model.action_expert.velocity(self.noise[:, None], first, self.context)

    def flow(self) -> torch.Tensor:
        """Everything after the prompt was read."""
        return sample_actions(self.model, self.inputs, self.layers, self.noise, num_steps=self.num_steps)

    def flow_projecting_anew(self) -> torch.Tensor:
        """The same without computing anything once."""
        return sample_actions_projecting_anew(
            self.model, self.inputs, self.layers, self.noise, num_steps=self.num_steps
        )

    def speak(self) -> list[int]:
        """Read the prompt and say some tokens after it."""
        speech = Speech.begin(self.model, self.inputs, self.features, room=SPOKEN_TOKENS)
        return say_restricted(speech, count=SPOKEN_TOKENS, **self.allowed)

    def speak_reading_anew(self) -> list[int]:
        """The same without a cache."""
        return decode_reading_anew(self.model, self.inputs, self.features, count=SPOKEN_TOKENS, **self.allowed)

    @property
    def allowed(self) -> dict[str, int]:
        """Ids that may be said."""
        config = self.model.config
        assert config.state_token_start_id is not None
        return {"first_id": config.state_token_start_id, "num_ids": config.num_state_tokens}


def benchmark(settings: Settings) -> None:
    """Measure the small network and, where it is wanted, the medium one."""
    for network in (nano, medium) if settings.has_medium else (nano,):
        measured = network()
        compare_precisions(measured, settings)
        compare_with_matmuls(measured, settings)
        compare_with_slow_twins(measured, settings)


def compare_precisions(measured: Measured, settings: Settings) -> None:
    """Every stage in both precisions."""
    stages = {name: Stages(policy, measured.observation) for name, policy in measured.policies.items()}
    seconds = in_turns(
        {f"{stage} {name}": stages[name].calls[stage] for stage in stages["float32"].calls for name in stages}, settings
    )
    rows = []
    for stage in stages["float32"].calls:
        float32, bfloat16 = seconds[f"{stage} float32"], seconds[f"{stage} bfloat16"]
        rows.append([stage, milliseconds(float32), milliseconds(bfloat16), ratio(float32, bfloat16)])
    print_table(f"{measured}: stages", ["stage", "float32, ms", "bfloat16, ms", "bfloat16 is faster"], rows)


def compare_with_matmuls(measured: Measured, settings: Settings) -> None:
    """The answer and its heavy stages against their matrix products alone, in both precisions."""
    rows = []
    for name, policy in measured.policies.items():
        stages = Stages(policy, measured.observation)
        calls = {stage: stages.calls[stage] for stage in ("vision", "prefill", "whole answer")} | {"flow": stages.flow}
        alone = {f"{stage} alone": partial(carry_out, matmuls_of(call)) for stage, call in calls.items()}
        seconds = in_turns({**calls, **alone}, settings)
        for stage in calls:
            whole, products = seconds[stage], seconds[f"{stage} alone"]
            cells = [milliseconds(whole), milliseconds(products), ratio(whole, products)]
            rows.append([f"{stage}, {name}", *cells])
    columns = ["stage", "time, ms", "its matmuls alone, ms", "time / matmuls"]
    print_table(f"{measured}: matrix products", columns, rows)


def compare_with_slow_twins(measured: Measured, settings: Settings) -> None:
    """What is computed once against computing it every time."""
    stages = Stages(measured.bfloat16, measured.observation)
    pairs = {
        f"flow of {stages.num_steps} steps: prompt and times once": (stages.flow, stages.flow_projecting_anew),
        f"prompt and {SPOKEN_TOKENS} spoken tokens: with a cache": (stages.speak, stages.speak_reading_anew),
    }
    calls = {f"{name} {way}": call for name, ways in pairs.items() for way, call in zip("01", ways, strict=True)}
    seconds = in_turns(calls, settings)
    rows = [
        [name, milliseconds(fast), milliseconds(slow), ratio(slow, fast)]
        for name in pairs
        for fast, slow in [(seconds[f"{name} 0"], seconds[f"{name} 1"])]
    ]
    print_table(f"{measured}: computed once, bfloat16", ["what", "once, ms", "every time, ms", "saved"], rows)


if __name__ == "__main__":
    measure(benchmark, __doc__)
