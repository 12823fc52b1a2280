"""What each step learns from: batches as a function of the step, prepared ahead by worker processes."""

import zlib
from collections.abc import Iterator, Mapping

from torch.utils.data import DataLoader, Dataset

from molmoact2.data.errors import require
from molmoact2.registry import unknown
from molmoact2.training.batch import TrainBatch, make_batches
from molmoact2.training.config import StageConfig, TrainConfig
from molmoact2.training.encode import ExampleEncoder, TrainExample
from molmoact2.training.examples import Stream


class StepBatches(Dataset):
    """Item `step` is what one rank learns from in that global step, pass by pass."""

    def __init__(
        self, streams: Mapping[str, Stream], encoder: ExampleEncoder, config: TrainConfig, *, rank: int, num_ranks: int
    ) -> None:
        self.streams, self.encoder, self.config = streams, encoder, config
        self.rank, self.num_ranks = rank, num_ranks
        for name in (name for stage in config.stages for name in stage.examples_per_step if name not in streams):
            raise unknown("stream of examples", name, streams)
        for stage in config.stages:
            count = sum(stage.examples_per_step.values())
            require(
                count >= num_ranks,
                f"Stage {stage.name!r} has {count} examples per step for {num_ranks} ranks. Give every rank one.",
            )

    def __len__(self) -> int:
        """Number of steps."""
        return self.config.num_steps

    def __getitem__(self, step: int) -> list[TrainBatch]:
        """The passes of a step."""
        return make_batches(self.examples(step), self.config.stage_at(step)[0])

    def examples(self, step: int) -> list[TrainExample]:
        """This rank's examples of a step, encoded."""
        stage, _ = self.config.stage_at(step)
        mine = self.config.numbers_at(step)[self.rank :: self.num_ranks]
        return [self.encode(stream, number, stage) for stream, number in mine]

    def encode(self, stream: str, number: int, stage: StageConfig) -> TrainExample:
        """One example; its random draws depend on its stream and number only."""
        return self.encoder(self.streams[stream].example(number), stage, (zlib.crc32(stream.encode()), number))

    def steps(self, first: int, last: int) -> Iterator[list[TrainBatch]]:
        """The batches of steps [first, last), in order, while later ones are being prepared."""
        workers = self.config.num_workers
        yield from DataLoader(
            self,
            batch_size=None,
            sampler=range(first, last),  # type: ignore[arg-type]  # any iterable of indices
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            collate_fn=_as_it_is,
        )


def _as_it_is(batches: list[TrainBatch]) -> list[TrainBatch]:
    return batches
