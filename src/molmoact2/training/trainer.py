"""The training loop: stages one after the other, checkpoints, measurements, export; on one process or many.

A run is a function of its configuration. Everything a step draws at random depends on the seed and on the numbers of
its examples, so a run that was stopped continues as if it had never stopped. Exported weights are the moving average.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from molmoact2.data.augmentation import Augmentation
from molmoact2.inference.checkpoint import save_policy
from molmoact2.inference.policy import MolmoAct2Policy
from molmoact2.training.batch import TrainBatch, make_batch, make_batches
from molmoact2.training.checkpoint import latest_checkpoint, load_checkpoint, read_progress, save_checkpoint
from molmoact2.training.config import StageConfig, TrainConfig
from molmoact2.training.encode import ExampleEncoder
from molmoact2.training.examples import Stream
from molmoact2.training.gradients import clip_gradients
from molmoact2.training.loader import StepBatches
from molmoact2.training.log import RunLog
from molmoact2.training.lora import fold, plain_model
from molmoact2.training.optimizer import MovingAverage, learning_rate, make_optimizer, set_learning_rate, towers
from molmoact2.training.parallel import ALONE, World
from molmoact2.training.pointing import HEADS_FILE, PointingHeads
from molmoact2.training.sharding import gather, shard
from molmoact2.training.start import Start
from molmoact2.training.step import LOGGED_ONLY, loss_sums, total_loss
from molmoact2.training.trainable import added_rows, prepare

ROWS_PER_MEASURED_PASS = 64
HISTORY_FILE = "training.json"
"""In an exported checkpoint: the recipe, its data and where it started."""
SNAPSHOTS = "snapshots"
"""Folder of a run in which the policy is kept as it was along the way."""
NOTHING = 1e-6
"""What a loss is divided by where a step has nothing for it, so that nothing divides by zero."""
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """What a run learns from."""

    streams: Mapping[str, Stream]
    """Name, as in `StageConfig.examples_per_step` -> examples."""
    held_out: Mapping[str, Stream] = field(default_factory=dict)
    """Examples for measuring only."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Dataset -> what changes when it does; a run goes on with the same data only."""


@dataclass(frozen=True, kw_only=True)
class Descended:
    """What a step leaves to be logged."""

    totals: Mapping[str, Tensor]
    """This rank's sum of each loss."""
    divisors: Mapping[str, float]
    norms: Mapping[str, float]
    """Of the gradient of each tower."""
    learning_rate: float


class Trainer:
    """One run in one folder."""

    def __init__(
        self,
        start: Start,
        data: TrainData,
        config: TrainConfig,
        folder: Path,
        *,
        heads: PointingHeads | None = None,
        origin: str = "nothing",
        world: World = ALONE,
    ) -> None:
        """`heads` learn to point along, where examples say where things are; `origin` says what `start` is."""
        self.start, self.data, self.config, self.folder, self.world = start, data, config, folder, world
        self.model, self.heads, self.origin = start.model, heads, origin
        self.encoder = ExampleEncoder(
            processor=start.processor,
            action_tokenizer=start.action_tokenizer,
            config=start.model.config,
            seed=config.seed,
        )
        self.batches = StepBatches(data.streams, self.encoder, config, rank=world.rank, num_ranks=world.size)
        self.dtype = DTYPES[config.dtype]
        rows = added_rows(start.processor.vocabulary, start.model.config.text_config.vocab_size)
        self.prepared = prepare(
            self.model, config.trainable, added_rows=rows, frozen_dtype=self.dtype, seed=config.seed
        )
        self.modules: dict[str, nn.Module] = {"model": self.model, **({} if heads is None else {"heads": heads})}
        self.network = shard(
            self.model,
            [module for name, module in self.modules.items() if name != "model"],
            world,
            compute_dtype=self.dtype,
            checkpoint_activations=config.checkpoint_activations,
        )
        self.step = 0
        self._begin_stage(config.stages[0])
        if config.compile:
            compile_towers(self.model)

    def _begin_stage(self, stage: StageConfig) -> None:
        modules = self.modules.values()
        self.optimizer = make_optimizer(modules, stage.optimizer, never_decayed=self.prepared.restricted)
        self.average = MovingAverage(self.model, stage.optimizer.ema_decay)

    def resume(self) -> None:
        """Continue from the newest checkpoint in the run's folder, if there is one.

        Raises:
            ValueError: that checkpoint belongs to a run with other settings, or the data have changed since.
        """
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        if checkpoint is None:
            return
        progress = read_progress(checkpoint)
        if progress["config"] != _as_json(self.config):
            raise ValueError(f"{checkpoint} was made with other settings. Use them again, or another output folder.")
        if progress["data"] != dict(self.data.fingerprints):
            raise ValueError(
                f"The data of this run have changed since {checkpoint} was made: it learned from {progress['data']}, "
                f"now there are {dict(self.data.fingerprints)}. Bring them back, or use another output folder."
            )
        self.step = progress["step"]
        self._begin_stage(self.config.stage_at(self.step - 1)[0])
        load_checkpoint(checkpoint, self.modules, self.optimizer, self.average, world=self.world)

    def run(self, until: int | None = None) -> None:
        """Train to the end, or to global step `until`; what was learned is then in `export`."""
        last = self.config.num_steps if until is None else min(until, self.config.num_steps)
        is_main, num_steps = self.world.is_main, self.config.num_steps
        with RunLog(self.folder, step=self.step, num_steps=num_steps) if is_main else nullcontext() as log:
            since, seen = time.perf_counter(), 0
            for batches in self.batches.steps(self.step, last):
                stage, in_stage = self.config.stage_at(self.step)
                if in_stage == 0 and self.step > 0:
                    self._begin_stage(stage)
                done = self._descend(stage, in_stage, batches)
                self.step += 1
                seen += sum(stage.examples_per_step.values())
                values = {}
                if self.step % self.config.log_every == 0:
                    values = self._report(done, stage) | {"examples_per_s": seen / (time.perf_counter() - since)}
                    since, seen = time.perf_counter(), 0
                if self.step % self.config.measure_every == 0 or self.step == self.config.num_steps:
                    values |= self.measure()
                # Before the checkpoint: what a run resumes from must be in its log.
                if log is not None:
                    log.advance(self.step, stage.name, values)
                self._keep(stage, last)

    def _keep(self, stage: StageConfig, last: int) -> None:
        """What is due after a step: a snapshot, a checkpoint."""
        if self.step % self.config.snapshot_every == 0 and (stage.flow_samples or stage.says_actions):
            self.export(self.folder / SNAPSHOTS / f"step-{self.step:07d}")
        if self.step % self.config.checkpoint_every == 0 or self.step == last:
            self.save()

    def _descend(self, stage: StageConfig, in_stage: int, batches: list[TrainBatch]) -> "Descended":
        """One step over all its passes."""
        self.model.train()
        rate = learning_rate(in_stage, stage.num_steps, stage.optimizer)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        divisors = self._divisors(batches)
        totals: dict[str, Tensor] = {}
        for number, (batch, share) in enumerate(self._passes(batches)):
            # What dropout draws, so that a run that was stopped draws it again.
            torch.manual_seed(crc32(f"{self.config.seed} {self.step} {self.world.rank} {number}".encode()))
            sums = self._sums(stage, batch)
            (share * total_loss(sums, vars(stage.losses), divisors)).backward()
            totals |= {name: share * value.detach() + totals.get(name, 0.0) for name, value in sums.items()}
        self.prepared.keep_added_rows()
        norms = clip_gradients(towers(self.optimizer), stage.optimizer.clip_norm, self.world)
        if not all(map(math.isfinite, norms.values())):
            raise FloatingPointError(self._blame(stage))
        self.optimizer.step()
        self.average.update(self.model)
        return Descended(totals=totals, divisors=divisors, norms=norms, learning_rate=rate)

    def _report(self, done: "Descended", stage: StageConfig) -> dict[str, float]:
        """What to log about a step: the mean of each loss over all ranks. Only here are they read from the device."""
        totals = self._over_ranks({name: float(value) for name, value in done.totals.items()})
        means = {name: total / done.divisors[name] for name, total in totals.items() if done.divisors[name] > NOTHING}
        loss = sum(vars(stage.losses)[name] * mean for name, mean in means.items() if name not in LOGGED_ONLY)
        gradients = {f"gradient_{tower}": norm for tower, norm in done.norms.items()}
        return {**means, "loss": loss, **gradients, "learning_rate": done.learning_rate}

    def _passes(self, batches: list[TrainBatch]) -> list[tuple[TrainBatch, float]]:
        """The passes with their share in the loss; ranks that have fewer than others repeat one for nothing."""
        missing = self._most(len(batches)) - len(batches)
        return [(batch, 1.0) for batch in batches] + [(batches[-1], 0.0)] * missing

    def _most(self, own: int) -> int:
        """The largest number that a rank has."""
        counts = torch.zeros(self.world.size)
        counts[self.world.rank] = own
        return int(self.world.sum(counts).max())

    def _divisors(self, batches: list[TrainBatch]) -> dict[str, float]:
        """How much there is of each loss in all passes of all ranks, at least `NOTHING`."""
        own: Counter[str] = Counter()
        for batch in batches:
            own.update(batch.weights)  # type: ignore[arg-type]  # counters add floats as well
        return {name: max(total, NOTHING) for name, total in self._over_ranks(own).items()}

    def _over_ranks(self, own: Mapping[str, float]) -> dict[str, float]:
        """The sum over ranks of each value; the ranks know the same names, or count what they lack as 0."""
        names = (*vars(self.config.stages[0].losses), *LOGGED_ONLY)
        total = self.world.sum(torch.tensor([own.get(name, 0.0) for name in names], dtype=torch.float64))
        return {name: value for name, value in zip(names, total.tolist(), strict=True) if value or name in own}

    def _sums(self, stage: StageConfig, batch: TrainBatch) -> dict[str, Tensor]:
        on_device, grid = batch.to(self.world.device), self.encoder.processor.images.grid
        return self.network(
            lambda: loss_sums(self.model, self.heads, on_device, grid=grid, dtype=self.dtype, insulate=stage.insulate)
        )

    @torch.no_grad()
    def _blame(self, stage: StageConfig) -> str:
        """What to say about a step whose gradient is not finite: which of this rank's examples have such a loss."""
        examples = self.batches.examples(self.step)
        examples += examples[-1:] * (self._most(len(examples)) - len(examples))  # all ranks compute together
        losses = [(example.origin, self._sums(stage, make_batch([[example]], stage))) for example in examples]
        guilty = dict.fromkeys(name for name, sums in losses if not all(map(math.isfinite, map(float, sums.values()))))
        nobody = "no single example's loss is to blame" + " on this rank" * (self.world.size > 1)
        reason = f"the loss of {'; '.join(guilty)} is not finite" if guilty else nobody
        return f"The gradient of step {self.step} is not finite: {reason}. Look at the data or lower the learning rate."

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Every loss of every held-out stream, of the averaged weights, without augmentation."""
        stage = self.config.stage_at(min(self.step, self.config.num_steps - 1))[0]
        plain = replace(
            stage, augmentation=Augmentation(mode="none"), state_jitter_bins=0.0, residual_dropout=0.0,
            tokens_per_row=None, rows_per_pass=ROWS_PER_MEASURED_PASS,
        )  # fmt: skip
        self.model.eval()
        means = {}
        # Measuring has shapes of its own, which are not worth compiling for.
        with self.average.applied_to(self.model), torch.compiler.set_stance("force_eager"):
            for name, stream in self.data.held_out.items():
                numbers = range(self.config.num_held_out)
                batches = make_batches([self.encoder(stream.example(i), plain, (i,)) for i in numbers], plain)
                totals, weights = Counter[str](), Counter[str]()
                for batch in batches:
                    totals.update({key: float(value) for key, value in self._sums(plain, batch).items()})
                    weights.update(batch.weights)  # type: ignore[arg-type]  # counters add floats as well
                means |= {f"{name}_{key}": totals[key] / weights[key] for key in totals if weights[key]}
        return means

    def save(self) -> None:
        """Write a checkpoint to resume from."""
        progress = {"step": self.step, "config": _as_json(self.config), "data": dict(self.data.fingerprints)}
        save_checkpoint(
            self.folder / "checkpoints", self.modules, self.optimizer, self.average, progress, world=self.world
        )

    def export(self, folder: Path) -> None:
        """Write the averaged weights as an ordinary checkpoint, complete in itself, with how it came to be."""
        report = {"step": self.step, "start": self.origin, "data": dict(self.data.fingerprints)}
        notes = {HISTORY_FILE: json.dumps({**report, "config": _as_json(self.config)}, indent=1).encode()}
        heads = gather(dict(self.heads.named_parameters()) if self.heads else {}, self.world)
        with self.average.applied_to(self.model):
            tensors = gather(dict(self.model.named_parameters()), self.world)

        def write() -> None:
            policy = MolmoAct2Policy(
                model=plain_model(self.model.config, fold(tensors, self.config.trainable.lora)),
                processor=self.encoder.processor,
                action_tokenizer=self.encoder.action_tokenizer,
                depth_codec=self.start.depth_codec,
            )
            save_policy(policy, folder, notes={**notes, **({HEADS_FILE: safetensors_bytes(heads)} if heads else {})})

        self.world.main_does(write)


def compile_towers(model: nn.Module) -> None:
    """Speed up training from outside: the network itself knows nothing of it."""
    for name in ("vision", "text"):
        model.get_submodule(name).compile()
    for expert in (module for name, module in model.named_children() if name == "action_expert"):
        expert.velocity = torch.compile(expert.velocity)  # type: ignore[method-assign, arg-type]


def _as_json(config: TrainConfig) -> dict[str, Any]:
    """A config as JSON reads it back: tuples become lists."""
    return json.loads(json.dumps(asdict(config)))
