"""The training loop: stages one after the other, resumable at any step, the same however often it is stopped.

What a step sees follows from the seed and the step's number alone, so nothing of the data needs to be saved.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from molmoact2.inference import MolmoAct2Policy, save_policy
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.training.checkpoint import latest_checkpoint, load_checkpoint, read_progress, save_checkpoint
from molmoact2.training.config import StageConfig, TrainConfig
from molmoact2.training.encode import BatchEncoder, TrainBatch
from molmoact2.training.examples import EpisodeSource, Examples, SceneSource
from molmoact2.training.log import RunLog
from molmoact2.training.optimizer import MovingAverage, learning_rate, make_optimizer, set_learning_rate
from molmoact2.training.pointing import PointingHeads, pointing_losses
from molmoact2.training.step import batch_losses, descend, encode, read_out

MEASURED_SCENES = 256
SNAPSHOTS = "snapshots"
"""Folder of a run in which the policy is kept as it was along the way."""


@dataclass(frozen=True, kw_only=True)
class TrainData:
    """What a run learns from."""

    scenes: SceneSource
    held_out: SceneSource
    """Scenes for measuring only."""
    episodes: EpisodeSource


class Trainer:
    """One run in one folder."""

    def __init__(
        self, model: MolmoAct2, encoder: BatchEncoder, data: TrainData, config: TrainConfig, folder: Path
    ) -> None:
        self.model, self.encoder, self.data, self.config, self.folder = model, encoder, data, config, folder
        self.heads = PointingHeads(model.config.text_config.hidden_size, len(data.scenes.things)).to(model.device)
        generator = torch.Generator().manual_seed(config.seed)
        for parameter in self.heads.parameters():
            fan_in = parameter.shape[-1]
            parameter.data.normal_(std=fan_in**-0.5 if parameter.dim() == 2 else 0.0, generator=generator)
        self.modules: dict[str, nn.Module] = {"model": model, "heads": self.heads}
        self.parameters = [p for module in self.modules.values() for p in module.parameters()]
        self.dtype = {"bfloat16": torch.bfloat16, "float32": torch.float32}[config.dtype]
        self.step = 0
        self._begin_stage(config.stages[0])
        if config.compile:
            compile_towers(model)

    def _begin_stage(self, stage: StageConfig) -> None:
        self.optimizer = make_optimizer(self.modules.values(), stage.optimizer)
        self.average = MovingAverage(self.model, stage.optimizer.ema_decay)

    def resume(self) -> None:
        """Continue from the newest checkpoint in the run's folder, if there is one.

        Raises:
            ValueError: that checkpoint belongs to a run with other settings.
        """
        checkpoint = latest_checkpoint(self.folder / "checkpoints")
        if checkpoint is None:
            return
        progress = read_progress(checkpoint)
        if progress["config"] != _as_json(self.config):
            raise ValueError(f"{checkpoint} was made with other settings. Use them again, or another output folder.")
        self.step = progress["step"]
        self._begin_stage(self.config.stage_at(self.step - 1)[0])
        load_checkpoint(checkpoint, self.modules, self.optimizer, self.average)

    def run(self, until: int | None = None) -> None:
        """Train to the end, or to global step `until`; what was learned is then in `export`."""
        last = self.config.num_steps if until is None else min(until, self.config.num_steps)
        with RunLog(self.folder, step=self.step, num_steps=self.config.num_steps) as log:
            since, seen = time.perf_counter(), 0
            for batch, rng in self._batches(self.step, last):
                stage, in_stage = self.config.stage_at(self.step)
                if in_stage == 0 and self.step > 0:
                    self._begin_stage(stage)
                parts = self._descend(stage, in_stage, batch, rng)
                self.step += 1
                seen += len(batch.trigger)
                log.advance()
                if self.step % self.config.log_every == 0:
                    values = {name: float(value.detach()) for name, value in parts.items()}
                    values["examples_per_second"] = seen / (time.perf_counter() - since)
                    log.write(self.step, stage.name, values)
                    since, seen = time.perf_counter(), 0
                if self.step % self.config.measure_every == 0 or self.step == self.config.num_steps:
                    log.write(self.step, stage.name, self.measure())
                if self.step % self.config.snapshot_every == 0 and stage.frames_per_step:
                    self.export(self.folder / SNAPSHOTS / f"step-{self.step:07d}")
                if self.step % self.config.checkpoint_every == 0 or self.step == last:
                    self.save()

    def _descend(
        self, stage: StageConfig, in_stage: int, batch: TrainBatch, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        self.model.train()
        rate = learning_rate(in_stage, stage.num_steps, stage.optimizer)
        set_learning_rate(self.optimizer, rate)
        loss, parts = batch_losses(
            self.model, self.heads, batch, stage=stage, pointing=self.config.pointing, dtype=self.dtype,
            grid=self.encoder.processor.images.grid, rng=rng,
        )  # fmt: skip
        norm = descend(loss, self.optimizer, self.parameters, stage.optimizer.clip_norm)
        self.average.update(self.model)
        return {**parts, "loss": loss.detach(), "gradient_norm": norm, "learning_rate": torch.tensor(rate)}

    def _batches(self, first: int, last: int) -> Iterator[tuple[TrainBatch, np.random.Generator]]:
        """Batches of steps [first, last), each prepared while the one before it is learned from."""
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(self.batch_at, first) if first < last else None
            for step in range(first, last):
                assert coming is not None
                ready = coming.result()
                coming = thread.submit(self.batch_at, step + 1) if step + 1 < last else None
                yield ready

    def batch_at(self, step: int) -> tuple[TrainBatch, np.random.Generator]:
        """The batch of a global step and the generator for what else the step draws: functions of the seed alone."""
        stage, _ = self.config.stage_at(step)
        rng = np.random.default_rng((self.config.seed, step))
        parts: list[Examples] = []
        if stage.frames_per_step:
            parts.append(self.data.episodes.draw(rng, stage.frames_per_step))
        if stage.scenes_per_step:
            parts.append(self.data.scenes.draw(rng, stage.scenes_per_step))
        return self.encoder(Examples.join(parts), rng).to(self.model.device), rng

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Mean error in cm of pointing at the named thing in scenes held out, and with another thing named in them."""
        index = np.arange(min(MEASURED_SCENES, len(self.data.held_out.pool)))
        measuring = replace(self.encoder, augment=None)
        self.model.eval()
        errors = {}
        # Measuring has shapes of its own, which are not worth compiling for.
        with self.average.applied_to(self.model), torch.compiler.set_stance("force_eager"):
            for name, seed in (("held_out_error_cm", 0), ("held_out_renamed_error_cm", 1)):
                rng = np.random.default_rng(seed)
                batch = measuring(self.data.held_out.at(index, rng), rng).to(self.model.device)
                encoding = encode(self.model, batch, self.encoder.processor.images.grid, self.dtype)
                _, parts = pointing_losses(self.heads, *read_out(batch, encoding), batch.labels, self.config.pointing)
                errors[name] = 100 * float(parts["error_m"])
        return errors

    def save(self) -> None:
        """Write a checkpoint to resume from."""
        progress = {"step": self.step, "config": _as_json(self.config)}
        save_checkpoint(self.folder / "checkpoints", self.modules, self.optimizer, self.average, progress)

    def export(self, folder: Path) -> None:
        """Write the averaged weights as an ordinary checkpoint; the pointing heads stay behind."""
        model = MolmoAct2(self.model.config)
        model.load_state_dict(self.average.average, strict=False)
        save_policy(MolmoAct2Policy(model=model.eval(), processor=self.encoder.processor), folder)


def compile_towers(model: MolmoAct2) -> None:
    """Speed up training from outside: the network itself knows nothing of it."""
    model.vision.compile()
    model.text.compile()
    if model.action_expert is not None:
        model.action_expert.velocity = torch.compile(model.action_expert.velocity)


def _as_json(config: TrainConfig) -> dict[str, Any]:
    """A config as JSON reads it back: tuples become lists."""
    return json.loads(json.dumps(asdict(config)))
