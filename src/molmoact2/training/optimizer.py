"""The optimiser: parameter groups, learning-rate schedule, and the moving average that is exported."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from molmoact2.training.config import OptimizerConfig

TOWERS = {
    "vision.": "vision",
    "connector.": "connector",
    "text.new_embedding": "connector",
    "action_expert.": "expert",
    "depth_gate.": "expert",
}
"""How a parameter's name begins -> the tower whose learning rate and clipping it shares; all others: the decoder."""


def tower_of(name: str) -> str:
    """The tower of a parameter (training.md F.5)."""
    return next((tower for beginning, tower in TOWERS.items() if name.startswith(beginning)), "decoder")


def make_optimizer(
    modules: Iterable[nn.Module], config: OptimizerConfig, *, never_decayed: Collection[str] = ()
) -> torch.optim.AdamW:
    """AdamW over all parameters of `modules` that learn, grouped by tower and by whether they decay.

    `never_decayed` names further parameters that keep their size, besides embeddings and what is no matrix.
    """
    factors = {
        "vision": config.vision_factor,
        "connector": config.connector_factor,
        "expert": config.expert_factor,
        "decoder": 1.0,
    }
    groups: dict[tuple[str, float], list[nn.Parameter]] = {}
    for name, parameter in (item for module in modules for item in module.named_parameters()):
        decays = parameter.dim() == 2 and not name.endswith("embedding") and name not in never_decayed
        if parameter.requires_grad:
            groups.setdefault((tower_of(name), config.weight_decay * decays), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "tower": tower, "factor": factors[tower],
             "lr": factors[tower] * config.learning_rate}
            for (tower, decay), parameters in groups.items()
        ],
        betas=config.betas,
        eps=config.epsilon,
        fused=True,
    )  # fmt: skip


def towers(optimizer: torch.optim.Optimizer) -> dict[str, list[nn.Parameter]]:
    """Tower -> its parameters that learn."""
    found: dict[str, list[nn.Parameter]] = {}
    for group in optimizer.param_groups:
        found.setdefault(group["tower"], []).extend(group["params"])
    return found


def learning_rate(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """Learning rate of step `step` (from 0): linear warm-up, then a cosine to the final fraction."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(num_steps - config.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


class MovingAverage:
    """Exponential moving average of a module's parameters that learn, with the usual correction while it is young."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: parameter.detach().clone() for name, parameter in learning(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move a little towards the module's present parameters."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        for name, parameter in learning(module).items():
            self.average[name].lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Put the average in the place of the module's parameters, for as long as the block runs."""
        with torch.no_grad():
            present = {name: parameter.detach().clone() for name, parameter in learning(module).items()}
            self._copy(self.average, module)
        try:
            yield
        finally:
            self._copy(present, module)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, torch.Tensor], module: nn.Module) -> None:
        for name, parameter in learning(module).items():
            parameter.copy_(values[name])


def learning(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
