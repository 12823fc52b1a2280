"""Measuring: times that are comparable because they were taken in turns, on a machine that is named."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
import tyro

Seconds: TypeAlias = dict[str, float]

MATRIX_UNITS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure."""

    repetitions: int = 7
    """Rounds; every alternative is timed once per round, and the median counts."""
    threads: int = torch.get_num_threads()
    smoke: bool = False
    """Tiny shapes and one round, to see whether it runs."""
    medium: bool = True
    """Measure the network of 300 M parameters too, which takes most of the time and, to train it, 10 GB."""

    @property
    def rounds(self) -> int:
        """How many rounds to measure."""
        return 1 if self.smoke else self.repetitions

    @property
    def has_medium(self) -> bool:
        """Whether the network of 300 M parameters is measured."""
        return self.medium and not self.smoke


def measure(benchmark: Callable[[Settings], None], what: str | None) -> None:
    """Run a benchmark with the settings of the command line, after saying where."""
    settings = tyro.cli(Settings, description=what)
    torch.set_num_threads(settings.threads)
    print(machine(settings))
    with torch.inference_mode():
        benchmark(settings)


def machine(settings: Settings) -> str:
    """What the times depend on."""
    info = CPU_INFO.read_text() if CPU_INFO.is_file() else ""
    units = [unit for unit in MATRIX_UNITS if unit in info] or ["no known matrix units"]
    return (
        f"{os.cpu_count()} cores ({platform.machine()}: {', '.join(units)}), {settings.threads} threads, "
        f"load {os.getloadavg()[0]:.1f} before; torch {torch.__version__}; medians of {settings.rounds} rounds"
    )


def in_turns(
    alternatives: Mapping[str, Callable[[], object]],
    settings: Settings,
    clock: Callable[[], float] = time.perf_counter,
) -> Seconds:
    """Median seconds of each alternative; they take turns, so that a busy minute slows all of them.

    Where a busy minute is shorter than one alternative, `clock` may be `time.process_time`: the work of this process
    alone, summed over its threads.
    """
    for alternative in alternatives.values():
        alternative()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(settings.rounds):
        for name, alternative in alternatives.items():
            begin = clock()
            alternative()
            seconds[name].append(clock() - begin)
    return {name: statistics.median(times) for name, times in seconds.items()}


def milliseconds(seconds: float) -> str:
    """In milliseconds, with three digits."""
    return f"{1000 * seconds:.3g}" if seconds < 0.0995 else f"{1000 * seconds:.0f}"


def ratio(slow: float, fast: float) -> str:
    """How many times `fast` fits into `slow`."""
    return f"{slow / fast:.2f} x"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table, as `docs/speed.md` has them."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = [columns, ["-" * width for width in widths], *rows]
    print(f"\n**{title}**\n")
    for cells in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |")
