"""The optimiser: parameter groups, learning-rate schedule, and the moving average that is exported."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from molmoact2.training.config import OptimizerConfig

VISION_PARTS = ("vision.", "connector.")
EXPERT_PARTS = ("action_expert.", "depth_gate.")


def make_optimizer(modules: Iterable[nn.Module], config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over all parameters of `modules`, grouped by learning rate and by whether they decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in modules:
        for name, parameter in module.named_parameters():
            decay = config.weight_decay if parameter.dim() == 2 and not name.endswith("embedding") else 0.0
            groups.setdefault((_factor(name, config), decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": decay, "factor": factor, "lr": factor * config.learning_rate}
            for (factor, decay), parameters in groups.items()
        ],
        betas=config.betas,
        eps=config.epsilon,
        fused=True,
    )


def _factor(name: str, config: OptimizerConfig) -> float:
    if name.startswith(VISION_PARTS):
        return config.vision_factor
    return config.expert_factor if name.startswith(EXPERT_PARTS) else 1.0


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
    """Exponential moving average of a module's parameters, with the usual correction while it is young."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.average = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move a little towards the module's present parameters."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        for name, parameter in module.named_parameters():
            self.average[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Put the average in the place of the module's parameters, for as long as the block runs."""
        present = {name: parameter.data for name, parameter in module.named_parameters()}
        for name, parameter in module.named_parameters():
            parameter.data = self.average[name]
        try:
            yield
        finally:
            for name, parameter in module.named_parameters():
                parameter.data = present[name]
