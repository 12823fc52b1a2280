"""A small training run that is the same on any number of ranks, for the tests of parallel training.

Imported by the tests for a run of one process, and started by torchrun with the name of one of `TASKS` for several.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from molmoact2.inference import load_policy
from molmoact2.model import flow
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing.encoded import collate
from molmoact2.testing import fake_observation, tiny_checkpoint
from molmoact2.training.checkpoint import latest_checkpoint, load_checkpoint, read_progress, save_checkpoint
from molmoact2.training.config import OptimizerConfig
from molmoact2.training.gradients import clip_gradients
from molmoact2.training.optimizer import MovingAverage, make_optimizer, towers
from molmoact2.training.parallel import ALONE, World, join_world
from molmoact2.training.sharding import gather, shard

NUM_EXAMPLES, NUM_PASSES, NUM_SAMPLES, HORIZON = 4, 2, 2, 5
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, warmup_steps=1, epsilon=1e-6)
CLIP_NORM = 0.5
"""Small enough that every step clips."""


def make_checkpoint(folder: Path) -> None:
    """The weights that every run starts from."""
    tiny_checkpoint(folder, action_expert_depth_gate=True)


class ScaleRun:
    """Model, heads beside it, optimiser and average; `step` moves them once."""

    def __init__(
        self,
        start: Path,
        world: World = ALONE,
        *,
        dtype: torch.dtype = torch.float32,
        recompute: bool = False,
        frozen: str = "nothing",
        is_uneven: bool = False,
        acts_only: bool = False,
    ) -> None:
        policy = load_policy(start, device="cpu", dtype="float32")
        self.world, self.dtype, self.is_uneven, self.steps = world, dtype, is_uneven, 0
        self.acts_only = acts_only
        self.processor = policy.processor
        self.model: MolmoAct2 = policy.model
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        torch.manual_seed(0)
        self.heads = nn.Linear(self.model.config.text_config.hidden_size, 1)
        self.modules: dict[str, nn.Module] = {"model": self.model, "heads": self.heads}
        self.network = shard(
            self.model, [self.heads], world, compute_dtype=dtype, checkpoint_activations=recompute
        )  # fmt: skip
        self.optimizer = make_optimizer(self.modules.values(), OPTIMIZER)
        self.average = MovingAverage(self.model, 0.9)
        self.norms: dict[str, float] = {}

    def inputs(self, numbers: list[int]) -> ModelInputs:
        """Prompts of these examples; in an uneven run those with odd numbers have no images."""
        return collate(
            [
                self.processor.encode_question("what do you see, number " + "one " * n)
                if self.is_uneven and n % 2
                else self.processor.encode(fake_observation(seed=n))
                for n in numbers
            ]
        )

    def loss(self, numbers: list[int], counts: dict[str, int]) -> Tensor:
        """This share of the loss of the whole batch: sums, divided by the counts of all examples."""
        model, inputs = self.model, self.inputs(numbers)
        features = model.image_features(inputs, self.processor.images.grid, self.dtype)
        encoding = model.read(inputs, features)
        if self.acts_only:
            context = model.expert_context(encoding.layers, inputs.token_ids, inputs.valid)
            return self.flow_sum(numbers, context) / counts["actions"]
        total = 0 * features.sum() + 0 * encoding.hidden.sum()
        last = encoding.hidden[torch.arange(len(numbers)), inputs.valid.sum(1) - 1]
        total = total + self.heads(last.float()).square().sum() / counts["examples"]
        acting = [row for row, n in enumerate(numbers) if not (self.is_uneven and n % 2)]
        speaking = [row for row, n in enumerate(numbers) if not self.is_uneven or n % 2]
        if speaking:
            words = language_sum(model, encoding.hidden[speaking], inputs.token_ids[speaking], inputs.valid[speaking])
            total = total + words / counts["speaking"]
        if acting:
            layers = [(key[acting], value[acting]) for key, value in encoding.layers]
            context = model.expert_context(layers, inputs.token_ids[acting], inputs.valid[acting])
            total = total + self.flow_sum([numbers[row] for row in acting], context) / counts["actions"]
        return total

    def flow_sum(self, numbers: list[int], context: Any) -> Tensor:
        """Squared errors of the velocity; noise, times and actions follow from the numbers of the examples."""
        model, width = self.model, self.model.config.max_action_dim
        drawn = [torch.Generator().manual_seed(n) for n in numbers]
        noise, actions = (
            torch.stack([torch.randn(NUM_SAMPLES, HORIZON, width, generator=g) for g in drawn]) for _ in range(2)
        )
        t = torch.stack([torch.rand(NUM_SAMPLES, generator=g) for g in drawn])
        x_t, u_t = flow.interpolate(noise, actions, t)
        assert model.action_expert is not None
        velocity = model.action_expert.velocity(x_t, model.modulation(t, self.dtype), context)
        return (velocity.float() - u_t).square().sum()

    def step(self) -> float:
        """One step over its examples, shared out over the ranks and over passes; the loss of all of it."""
        first, world = self.steps * NUM_EXAMPLES, self.world
        own = list(range(first, first + NUM_EXAMPLES))[world.rank :: world.size]
        shares = [own[i::NUM_PASSES] for i in range(NUM_PASSES)]
        counts = self.counts(own)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for share in shares:
            loss = self.network(lambda share=share: self.loss(share, counts))
            loss.backward()
            total += loss.detach()
        self.norms = clip_gradients(towers(self.optimizer), CLIP_NORM, world)
        self.optimizer.step()
        self.average.update(self.model)
        self.steps += 1
        return float(world.sum(total))

    def counts(self, own: list[int]) -> dict[str, int]:
        """What to divide by, over all ranks."""
        is_odd = [bool(n % 2) for n in own]
        acting = sum(not (self.is_uneven and odd) for odd in is_odd) * NUM_SAMPLES * HORIZON
        speaking = sum(not self.is_uneven or odd for odd in is_odd)
        totals = self.world.sum(torch.tensor([len(own), acting, speaking])).tolist()
        return dict(zip(("examples", "actions", "speaking"), totals, strict=True))

    def steps_to(self, last: int) -> list[float]:
        """Losses of the steps up to and without `last`."""
        return [self.step() for _ in range(self.steps, last)]

    def save(self, folder: Path) -> None:
        save_checkpoint(
            folder, self.modules, self.optimizer, self.average, {"step": self.steps}, world=self.world
        )  # fmt: skip

    def load(self, folder: Path) -> None:
        checkpoint = latest_checkpoint(folder)
        assert checkpoint is not None
        load_checkpoint(checkpoint, self.modules, self.optimizer, self.average, world=self.world)
        self.steps = read_progress(checkpoint)["step"]

    def whole(self) -> dict[str, Tensor]:
        """Parameters, averages and optimiser state in full, on the main rank."""
        named = {f"{m}.{name}": p for m, module in self.modules.items() for name, p in module.named_parameters()}
        tensors: dict[str, Tensor] = {f"parameters.{name}": p.data for name, p in named.items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.average.items()}
        tensors |= {
            f"{kind}.{name}": value for name, p in named.items() for kind, value in self.optimizer.state[p].items()
        }
        return gather(tensors, self.world)


def language_sum(model: MolmoAct2, hidden: Tensor, token_ids: Tensor, valid: Tensor) -> Tensor:
    """Mean cross-entropy of every next word of the first table in a prompt, summed over prompts."""
    logits, wanted = model.logits(hidden[:, :-1]), token_ids[:, 1:]
    is_word = (wanted < logits.shape[-1]) & valid[:, 1:]
    losses = F.cross_entropy(logits.transpose(1, 2), wanted.where(is_word, 0), reduction="none")
    return ((losses * is_word).sum(1) / is_word.sum(1)).sum()


def start_from_nothing(world: World, folder: Path) -> dict[str, Any]:
    """Three steps, a checkpoint after the second."""
    run = ScaleRun(folder / "start", world)
    losses = run.steps_to(2)
    run.save(folder / "by-two")
    losses += run.steps_to(3)
    return {"losses": losses, "norms": run.norms}


def continue_from_one(world: World, folder: Path) -> dict[str, Any]:
    """What one process saved after two steps, saved again by this many, and continued."""
    run = ScaleRun(folder / "start", world)
    run.load(folder / "by-one")
    run.save(folder / "by-one-then-two")
    return {"losses": run.steps_to(3)}


def uneven(world: World, folder: Path) -> dict[str, Any]:
    """Ranks that have nothing for some parts of the network, with activation checkpointing."""
    return {"losses": ScaleRun(folder / "start", world, is_uneven=True, recompute=True).steps_to(3)}


def acting_only(world: World, folder: Path) -> dict[str, Any]:
    """Nothing reads the last hidden states: gradients reach the last block of the decoder by its memory alone."""
    run = ScaleRun(folder / "start", world, acts_only=True)
    before = gather({"head": run.model.lm_head.weight}, world)
    losses = run.steps_to(2)
    after = gather({"head": run.model.lm_head.weight}, world)
    return {"losses": losses, "moved": [name for name in after if not torch.equal(before[name], after[name])]}


def in_bfloat16(world: World, folder: Path) -> dict[str, Any]:
    """In mixed precision; what the ranks keep is float32 all the same."""
    run = ScaleRun(folder / "start", world, dtype=torch.bfloat16, recompute=True)
    losses = run.steps_to(2)
    return {"losses": losses, "dtypes": sorted({str(tensor.dtype) for tensor in run.whole().values()})}


def frozen_decoder(world: World, folder: Path) -> dict[str, Any]:
    """Only parts of the network learn; a checkpoint after the first step."""
    run = ScaleRun(folder / "start", world, frozen="text.")
    losses = run.steps_to(1)
    run.save(folder / "frozen-by-two")
    return {"losses": losses + run.steps_to(2)}


def measured(world: World, folder: Path) -> dict[str, Any]:
    """Measuring in between changes nothing, and shards stay shards."""
    run = ScaleRun(folder / "start", world)
    with torch.no_grad(), run.average.applied_to(run.model):
        first = run.network(lambda: run.loss([0, 1], {"examples": 1, "speaking": 1, "actions": 1}))
    kinds = sorted({type(parameter).__name__ for parameter in run.model.parameters()})
    return {"measured": float(first), "kinds": kinds, "losses": run.steps_to(3)}


def one_fails_to_write(world: World, folder: Path) -> dict[str, Any]:
    """The last rank cannot write; no rank waits for it, and the checkpoint before stays."""
    run = ScaleRun(folder / "start", world)
    run.save(folder / "kept")
    run.steps = 5
    if world.rank == world.size - 1:
        run.world = Full(**vars(world))
    try:
        run.save(folder / "kept")
    except OSError as error:
        return {"error": str(error), "left": sorted(path.name for path in (folder / "kept").iterdir())}
    return {}


class Full(World):
    """A world on whose disk nothing fits."""

    def owns(self, tensor: Tensor) -> bool:  # noqa: ARG002
        """Fail where a tensor is about to be written."""
        raise OSError(28, "No space left on device")


TASKS = {
    task.__name__: task
    for task in (start_from_nothing, continue_from_one, uneven, acting_only, in_bfloat16, frozen_decoder, measured,
                 one_fails_to_write)
}  # fmt: skip


def main(folder: Path) -> None:
    """Every task, one after the other; what it says goes to `<task>-<rank>.json`."""
    torch.set_num_threads(1)
    with join_world("cpu", timeout_s=60) as world:
        for name, task in TASKS.items():
            (folder / f"{name}-{world.rank}.json").write_text(json.dumps(task(world, folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
