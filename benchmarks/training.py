"""What a training step costs, and what makes it cheaper.

sharing   all noise samples of a chunk share one pass over its prompt, against a pass for every sample; and precisions
memory    the same, in processes of their own: the highest resident memory of the whole process (`ru_maxrss`), and how
          much of it came with the step, after one step on a question without images had made the optimiser's moments
packing   several examples in a row, against one example per row, padded to the longest
loader    examples encoded by the training process or by a worker beside it, against the step that uses them up

Steps are counted in CPU time, which others on the machine do not change much; the loader is about what goes on at the
same time, and in the time that passes as well.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from benchmarks.learning import Learner, Way, stage
from benchmarks.measuring import Settings, in_turns, measure, milliseconds, print_table, ratio
from benchmarks.memory import highest_mark, in_own_process, megabytes
from molmoact2.training.batch import TrainBatch, make_batches
from molmoact2.training.config import StageConfig
from molmoact2.training.loader import StepBatches

STAGES = {"nano": stage(robot=32), "medium": replace(stage(robot=2), rows_per_pass=1)}
TRY = stage(robot=2)
SAMPLES = TRY.flow_samples
SHARED = f"prompt read once for {SAMPLES} samples, bfloat16"
IN_ONE_PASS = f"prompt read {SAMPLES} times, in one pass"
IN_PASSES = f"prompt read {SAMPLES} times, in {SAMPLES} passes"
FLOAT32 = "prompt read once, float32"
AGAIN = "prompt read once, activations computed again"
WAYS = {
    SHARED: Way(),
    IN_ONE_PASS: Way(is_shared=False),
    IN_PASSES: Way(is_shared=False, in_one_pass=False),
    FLOAT32: Way(dtype="float32"),
    AGAIN: Way(checkpoint_activations=True),
}
TIMED = {"nano": (SHARED, IN_ONE_PASS, IN_PASSES, FLOAT32), "medium": (SHARED, IN_PASSES, FLOAT32)}
HELD = {"nano": tuple(WAYS), "medium": (SHARED, FLOAT32, AGAIN)}
"""Medium in one pass would hold more than 16 GB."""
MIX = {"robot": 20, "short": 12, "long": 4}
"""Examples of each kind in a step that is packed."""
NUM_STEPS = 8
"""Steps that are timed together where examples are encoded for them."""


def benchmark(settings: Settings) -> None:
    """Measure nano and, where it is wanted, one or two steps of the medium network."""
    with torch.inference_mode(False):
        for size in ("nano", "medium") if settings.has_medium else ("nano",):
            compare_memory(size, settings)
            compare_sharing(size, settings)
        compare_packing(settings)
        compare_loaders(settings)


def stage_of(size: str, settings: Settings) -> StageConfig:
    """What is learned in a step."""
    return TRY if settings.smoke else STAGES[size]


def few(settings: Settings) -> Settings:
    """For what takes long."""
    return replace(settings, repetitions=min(settings.repetitions, 2))


def compare_sharing(size: str, settings: Settings) -> None:
    """CPU seconds of a step in every way."""
    learner = Learner(size, stage_of(size, settings), num_workers=0)
    calls = {name: partial(learner.step, learner.batches(WAYS[name]), WAYS[name].dtype) for name in TIMED[size]}
    seconds = in_turns(calls, few(settings) if size == "medium" else settings, time.process_time)
    rows = [
        [name, milliseconds(taken), f"{len(learner.examples) / taken:.3g}", ratio(taken, seconds[SHARED])]
        for name, taken in seconds.items()
    ]
    print_table(
        f"A training step: {size}, {learner}", ["how", "CPU ms", "examples a CPU second", "against the first"], rows
    )


def compare_memory(size: str, settings: Settings) -> None:
    """Memory of a step in every way."""
    step = stage_of(size, settings)
    names = HELD[size][:2] if settings.smoke else HELD[size]
    marks = {name: in_own_process(memory_of_step, WAYS[name], size, step, settings.threads) for name in names}
    first = marks[SHARED][1]
    rows = [
        [name, megabytes(whole), megabytes(of_step), f"{of_step / first:.2f} x"]
        for name, (whole, of_step) in marks.items()
    ]
    columns = ["how", "process, MB", "of that the step, MB", "step against the first"]
    print_table(f"Memory of a training step: {size}, examples at once: {largest_pass(step)}", columns, rows)


def largest_pass(step: StageConfig) -> int:
    """Examples that go through the network at once."""
    return step.rows_per_pass or sum(step.examples_per_step.values())


def memory_of_step(way: Way, size: str, step: StageConfig, num_threads: int) -> tuple[int, int]:
    """Bytes that this process holds at most, and how many of them only since it makes a real step."""
    torch.set_num_threads(num_threads)
    with_rest = replace(step, examples_per_step={**step.examples_per_step, "rest": 1})
    learner = Learner(size, with_rest, num_workers=0, checkpoint_activations=way.checkpoint_activations)
    *robot, rest = learner.examples
    learner.step(make_batches([rest], learner.stage), way.dtype)
    before = highest_mark()
    learner.examples = robot
    learner.step(learner.batches(way), way.dtype)
    return highest_mark(), highest_mark() - before


def compare_packing(settings: Settings) -> None:
    """The same examples in rows of different lengths."""
    learner = Learner("nano", stage(**(dict.fromkeys(MIX, 1) if settings.smoke else MIX)), num_workers=0)
    longest = max(map(len, learner.examples))
    alone = "one example per row"
    capacities = {alone: None} | {f"rows of {times * longest} tokens": times * longest for times in (1, 2, 4)}
    batches = {
        name: make_batches(learner.examples, replace(learner.stage, tokens_per_row=capacity))
        for name, capacity in capacities.items()
    }
    seconds = in_turns(
        {name: partial(learner.step, given) for name, given in batches.items()}, settings, time.process_time
    )
    num_tokens = sum(map(len, learner.examples))
    rows = [
        [name, f"{num_rows(given)}", f"{padding(given):.0%}", milliseconds(taken), f"{num_tokens / taken:,.0f}",
         f"{len(learner.examples) / taken:.3g}", ratio(seconds[alone], taken)]
        for (name, given), taken in zip(batches.items(), seconds.values(), strict=True)
    ]  # fmt: skip
    columns = ["how", "rows", "padding", "CPU ms", "tokens a CPU second", "examples a CPU second", "faster"]
    print_table(f"Packing: nano, {learner}", columns, rows)


def num_rows(batches: list[TrainBatch]) -> int:
    """Rows of all passes."""
    return sum(len(batch.inputs.valid) for batch in batches)


def padding(batches: list[TrainBatch]) -> float:
    """Share of what the decoder computes that is padding."""
    return 1 - sum(int(b.inputs.valid.sum()) for b in batches) / sum(b.inputs.valid.numel() for b in batches)


def compare_loaders(settings: Settings) -> None:
    """Examples that are encoded against examples that are learned from."""
    num_steps = 2 if settings.smoke else NUM_STEPS
    learner = Learner("nano", stage_of("nano", settings), num_workers=0)
    alone, ahead = (loader(learner, workers) for workers in (0, 1))
    given = [learner.batches(Way())] * (1 + num_steps)
    only = "steps on examples that are there"
    runs: dict[str, tuple[Callable[[], Iterable[list[TrainBatch]]], Callable[[list[TrainBatch]], object]]] = {
        "encoded in the training process": (lambda: alone.steps(0, 1 + num_steps), len),
        "encoded by one worker": (lambda: ahead.steps(0, 1 + num_steps), len),
        only: (lambda: given, learner.step),
        "steps, encoding in the same process": (lambda: alone.steps(0, 1 + num_steps), learner.step),
        "steps, one worker beside them": (lambda: ahead.steps(0, 1 + num_steps), learner.step),
    }
    rounds = [
        {name: times_per_step(steps(), use) for name, (steps, use) in runs.items()} for _ in range(few(settings).rounds)
    ]
    count = len(learner.examples)
    passed, worked = ({name: median(times[name][i] for times in rounds) / count for name in runs} for i in (0, 1))
    rows = [
        [name, f"{1000 * passed[name]:.3g}", f"{1 / passed[name]:,.0f}", f"{passed[only] / passed[name]:.2f} x",
         f"{1000 * worked[name]:.3g}"]
        for name in runs
    ]  # fmt: skip
    columns = ["what", "ms per example", "examples a second", "against the steps alone", "CPU ms of this process"]
    print_table("The loader: nano, with the augmentation of its recipes", columns, rows)


def times_per_step(steps: Iterable[list[TrainBatch]], use: Callable[[list[TrainBatch]], object]) -> tuple[float, float]:
    """Seconds that pass and CPU seconds of this process, over all steps but the first: a worker has to be started."""
    coming = iter(steps)
    use(next(coming))
    begin, cpu_begin = time.perf_counter(), time.process_time()
    count = sum(1 for _ in map(use, coming))
    return (time.perf_counter() - begin) / count, (time.process_time() - cpu_begin) / count


def loader(learner: Learner, num_workers: int) -> StepBatches:
    """The learner's batches, prepared by so many workers."""
    ours = learner.trainer.batches
    config = replace(ours.config, num_workers=num_workers, stages=(learner.stage,))
    return StepBatches(ours.streams, ours.encoder, config, rank=0, num_ranks=1)


if __name__ == "__main__":
    measure(benchmark, __doc__)
