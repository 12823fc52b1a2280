"""What a training run would take, before anything is allocated: parameters, memory per GPU, tokens and time per step.

Memory of parameters, gradients and optimiser is counted on a network that has shapes only, and that `prepare` has
prepared. Activations are what the real step keeps (`plan_trace.py`). What is assumed:

* Parameters that learn are float32, with float32 gradients and two float32 moments; frozen matrices are bfloat16.
* Several GPUs share all of that evenly. Blocks of vision and decoder, and the connector, are gathered in bfloat16 one
  at a time, while the next is on its way. Everything else, that is tables, head and expert, is gathered once for a
  whole pass as it is stored, and so are its gradients (`sharding.py`).
* What is stored in float32 and multiplied by is kept once more in bfloat16 for the backward pass: everything on one
  GPU, tables and expert on several; but only one block of it at a time if blocks are computed again.
* Attention on a GPU is a fused kernel that keeps no scores.
* 1 GiB for CUDA and its libraries, and a twentieth of everything else for what the allocator cannot fill.

Time is work divided by the peak of the GPUs and by the share of it that is reached in practice, `UTILISATION`.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace

import torch

from molmoact2.model.config import ModelConfig
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.registry import unknown
from molmoact2.tokens.reading import require
from molmoact2.training.plan_trace import META, TOWERS, PassShape, Trace, tokens_per_image, trace
from molmoact2.training.trainable import PRESETS, TrainableConfig, part_of, parts, prepare

GIB = 2**30
UTILISATION = 0.15
"""Share of the peak that the paper's own GPU hours come to, counted with this file: 0.15 in post-training, 0.14 and
0.15 in fine-tuning to YAM and DROID, 0.26 in pre-training, all on H100s and with activations computed again (paper
section 4). This implementation has not been measured on a GPU."""
RESERVED_BYTES, FRAGMENTED = 1.0 * GIB, 0.05
BLOCK = re.compile(r"(vision|text|action_expert)\.blocks\.\d+(?!\.modulation)\b")
UNIT = re.compile(r"(vision|text)\.blocks\.|connector\.")
"""Parameters that are gathered in turn; the others stay gathered for a whole pass."""
TOKENS_AROUND_IMAGE = 4
"""`<im_start>`, `<im_end>` and "Image 1"."""
FLOAT32, BFLOAT16 = 4, 2


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    memory_gib: float
    peak_tflops: float
    """Products of dense bfloat16 matrices, from its data sheet."""


GPUS = {
    "H200-141": Gpu(141.0, 989.0),
    "H100-80": Gpu(80.0, 989.0),
    "A100-80": Gpu(80.0, 312.0),
    "A100-40": Gpu(40.0, 312.0),
    "L40S-48": Gpu(48.0, 362.0),
    "RTX-4090-24": Gpu(24.0, 165.0),
    "RTX-3090-24": Gpu(24.0, 71.0),
    "cpu": Gpu(16.0, 0.8),
}
"""Name -> what it is. The processor is two cores of a Xeon with AMX, measured with torch 2.13; give its memory."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a run would have."""

    gpu: str = "H100-80"
    gpus: int = 1
    memory_gib: float | None = None
    """Of one GPU; None for what is usual for its kind."""
    utilisation: float = UTILISATION
    """Share of the peak that is reached."""

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise unknown("kind of GPU", self.gpu, GPUS)
        require(self.gpus >= 1, f"gpus must be at least 1, got {self.gpus}.")
        require(self.memory_gib is None or self.memory_gib > 0, f"memory_gib must be positive, got {self.memory_gib}.")
        require(0 < self.utilisation <= 1, f"utilisation must be in (0, 1], got {self.utilisation}.")

    @property
    def bytes_per_gpu(self) -> float:
        """Memory of one GPU."""
        return GIB * (self.memory_gib or GPUS[self.gpu].memory_gib)

    @property
    def flops_per_second(self) -> float:
        """What all GPUs compute in practice."""
        return self.gpus * GPUS[self.gpu].peak_tflops * 1e12 * self.utilisation


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a run would do; examples are all alike."""

    examples_per_step: int = 64
    images_per_example: int = 2
    text_tokens_per_example: int = 100
    """Of the prompt, without images."""
    answer_tokens_per_example: int = 0
    """Action, depth or other tokens that the network is to say."""
    tokens_per_row: int | None = None
    """Pack examples into rows of so many tokens; None gives every example a row of its own."""
    rows_per_pass: int = 2
    """Rows that a GPU takes at once."""
    flow_samples: int = 8
    """0 leaves the action expert out."""
    residual_dropout: bool = False
    insulate: bool = False
    checkpoint_activations: bool = True
    ema: bool = False
    """Keep a moving average of what learns."""

    def __post_init__(self) -> None:
        counts = ("examples_per_step", "images_per_example", "text_tokens_per_example", "rows_per_pass")
        for name in counts:
            require(vars(self)[name] >= 1, f"{name} must be at least 1, got {vars(self)[name]}.")
        require(self.flow_samples >= 0, f"flow_samples must not be negative, got {self.flow_samples}.")
        require(self.answer_tokens_per_example >= 0, "answer_tokens_per_example must not be negative, got "
                f"{self.answer_tokens_per_example}.")  # fmt: skip

    def shape(self, config: ModelConfig) -> PassShape:
        """The shapes of one pass; ValueError where a row cannot hold an example or nothing would be learned."""
        pictures = self.images_per_example * (tokens_per_image(config) + TOKENS_AROUND_IMAGE)
        per_example = pictures + self.text_tokens_per_example + self.answer_tokens_per_example
        per_row = self.tokens_per_row or per_example
        require(
            per_row >= per_example,
            f"An example has {per_example} tokens, a row only {per_row}. Make tokens_per_row "
            "larger, or take fewer images.",
        )
        acts = self.flow_samples > 0 and config.add_action_expert
        require(
            acts or self.answer_tokens_per_example,
            "Nothing would be learned: there is no action chunk (flow_samples and an action expert) and no answer "
            "(answer_tokens_per_example).",
        )
        return PassShape(
            num_rows=self.rows_per_pass,
            tokens_per_row=per_row,
            examples_per_row=per_row // per_example,
            tokens_per_example=per_example,
            images_per_example=self.images_per_example,
            answer_tokens_per_example=self.answer_tokens_per_example,
            flow_samples=self.flow_samples,
            has_dropout=self.residual_dropout,
            insulate=self.insulate,
        )


@dataclass(frozen=True, kw_only=True)
class Size:
    """Parameters of one part."""

    total: int
    """Of the plain network."""
    trained: int
    """That learn, adapters among them. A table of which only added rows learn counts whole: it has gradients, and
    moments, for all of its rows."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would take."""

    config: ModelConfig
    trainable: TrainableConfig
    hardware: Hardware
    workload: Workload
    sizes: dict[str, Size]
    """Part of the network -> its parameters."""
    memory: dict[str, float]
    """Component -> bytes per GPU."""
    rows_per_step: int
    passes_per_step: int
    """Of each GPU."""
    tokens_per_step: int
    """Padding among them."""
    flops_per_step: float
    """Of all GPUs, with what is computed again."""

    @property
    def bytes_per_gpu(self) -> float:
        """Memory that is needed on each GPU."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether a GPU has that much."""
        return self.bytes_per_gpu <= self.hardware.bytes_per_gpu

    @property
    def seconds_per_step(self) -> float:
        """Estimate: work, peak, utilisation. Reading data, sending and the optimiser are in the utilisation."""
        return self.flops_per_step / self.hardware.flops_per_second


def make_plan(config: ModelConfig, trainable: TrainableConfig, hardware: Hardware, workload: Workload) -> Plan:
    """Work out what a run would take; a network of 5 B parameters takes a few seconds and no memory to speak of.

    Raises:
        ValueError: an example does not fit a row, nothing would be learned, or adapters are wanted without peft.
    """
    shape = workload.shape(config)
    with META:
        model = MolmoAct2(config)
    plain = {name: parameter.numel() for name, parameter in model.named_parameters()}
    every_row = torch.ones(config.text_config.vocab_size, dtype=torch.bool)
    prepare(model, trainable, added_rows=every_row, frozen_dtype=torch.bfloat16)
    rows_per_step = math.ceil(workload.examples_per_step / shape.examples_per_row)
    passes = math.ceil(rows_per_step / (hardware.gpus * workload.rows_per_pass))
    sizes, state = part_sizes(plain, model), state_memory(model, hardware, workload, passes=passes)
    is_wrapped = hardware.gpus > 1 or workload.checkpoint_activations
    traced = trace(model.to(torch.bfloat16), shape, is_fused=hardware.gpu != "cpu", is_wrapped=is_wrapped)
    again = traced.recomputed_flops * workload.checkpoint_activations
    flops = traced.forward_flops + traced.backward_flops + again
    needed = state | activation_memory(traced, workload)
    overhead = {"reserve": RESERVED_BYTES + FRAGMENTED * sum(needed.values())}
    return Plan(
        config=config,
        trainable=trainable,
        hardware=hardware,
        workload=workload,
        sizes=sizes,
        memory=needed | overhead,
        rows_per_step=rows_per_step,
        passes_per_step=passes,
        tokens_per_step=rows_per_step * shape.tokens_per_row,
        flops_per_step=flops * rows_per_step / shape.num_rows,
    )


def part_sizes(plain: dict[str, int], model: MolmoAct2) -> dict[str, Size]:
    """Parameters of each part, before adapters and those that learn now."""
    total, trained = dict.fromkeys(parts(), 0), dict.fromkeys(parts(), 0)
    for name, count in plain.items():
        total[part_of(name)] += count
    for name, parameter in model.named_parameters():
        trained[part_of(name)] += parameter.numel() * parameter.requires_grad
    return {part: Size(total=total[part], trained=trained[part]) for part in parts()}


def state_memory(model: MolmoAct2, hardware: Hardware, workload: Workload, *, passes: int) -> dict[str, float]:
    """Bytes per GPU of what stays from step to step, and of the copies that products and gradients need."""
    parameters, share, is_alone = dict(model.named_parameters()), 1 / hardware.gpus, hardware.gpus == 1
    trained = sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad)
    largest = max(parameter.numel() * parameter.requires_grad for parameter in parameters.values())
    units, casts, gathered, gathered_gradients = defaultdict(int), defaultdict(int), 0, 0
    for name, parameter in parameters.items():
        is_unit = UNIT.match(name) is not None
        is_cast = parameter.requires_grad and parameter.dim() == 2 and not name.endswith("embedding")
        units[unit_of(name)] += parameter.numel() * is_unit
        casts[unit_of(name)] += parameter.numel() * (is_cast and (is_alone or not is_unit))
        gathered += parameter.nbytes * (not is_unit)
        gathered_gradients += FLOAT32 * parameter.numel() * (parameter.requires_grad and not is_unit)
    inside = [count for unit, count in casts.items() if BLOCK.match(unit)]
    cast = sum(casts.values()) - sum(inside) + [sum(inside), max(inside)][workload.checkpoint_activations]
    in_turn = sum(sorted(units.values())[-2:])
    passing = [
        gathered_gradients + (BFLOAT16 + FLOAT32) * max(units.values()),
        (BFLOAT16 + FLOAT32 * (passes > 1)) * largest,
    ][is_alone]
    sizes = {
        "weights": share * sum(parameter.nbytes for parameter in parameters.values()),
        "weights gathered": [gathered + BFLOAT16 * in_turn, 0][is_alone],
        "weights in bfloat16": BFLOAT16 * cast,
        "gradients": share * FLOAT32 * trained,
        "gradients in passing": passing,
        "Adam's moments": share * 2 * FLOAT32 * trained,
        "moving average": share * FLOAT32 * trained * workload.ema,
    }
    return {component: float(size) for component, size in sizes.items()}


def unit_of(name: str) -> str:
    """The block that a parameter is used in, or else its part; all modulations are made before the first block runs."""
    block = BLOCK.match(name)
    return block[0] if block else part_of(name)


def activation_memory(traced: Trace, workload: Workload) -> dict[str, float]:
    """Bytes of what a pass keeps, by tower, and of what comes and goes."""
    kept = [traced.kept, traced.kept_between_blocks][workload.checkpoint_activations]
    again = traced.largest_block * workload.checkpoint_activations
    passing = max(traced.largest_block, kept["logits"], 3 * traced.largest_output)
    return {
        **{f"activations: {tower}": float(kept[tower]) for tower in TOWERS},
        "activations: one block again": float(again),
        "activations in passing": float(passing),
    }


def alternatives(plan: Plan) -> dict[str, Plan]:
    """What could be changed about a run that does not fit, and what it would take then."""
    gpus, lean = plan.hardware.gpus, replace(plan.workload, checkpoint_activations=True)
    leanest = replace(lean, rows_per_pass=1)
    changes = {
        "checkpoint activations": {"workload": lean},
        "the same and one row per pass": {"workload": leanest},
        f"{8 * gpus} GPUs": {"hardware": replace(plan.hardware, gpus=8 * gpus)},
        "both and adapters (lora)": {"workload": leanest, "trainable": PRESETS["lora"]},
        "both and the expert alone (expert)": {"workload": leanest, "trainable": PRESETS["expert"]},
    }
    given = {name: vars(plan)[name] for name in ("config", "trainable", "hardware", "workload")}
    return {name: make_plan(**{**given, **change}) for name, change in changes.items() if {**given, **change} != given}
