"""Every table, one after the other: `make bench`."""

from benchmarks import (
    action_tokenizer,
    data_loader,
    dataset_frames,
    image_preprocessing,
    policy_latency,
    real_time,
    rendering,
    serving,
    think,
    training,
)
from benchmarks.measuring import Settings, measure

BENCHMARKS = (
    policy_latency,
    image_preprocessing,
    dataset_frames,
    data_loader,
    rendering,
    action_tokenizer,
    training,
    think,
    real_time,
    serving,
)


def every_benchmark(settings: Settings) -> None:
    """Run all of them with the same settings."""
    for module in BENCHMARKS:
        module.benchmark(settings)


if __name__ == "__main__":
    measure(every_benchmark, __doc__)
