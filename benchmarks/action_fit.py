"""Ways to fit an action tokenizer, on the same training episodes, compared on episodes that were held out.

python -m benchmarks.action_fit --mixture my_mixture.toml       the table of docs/tokenizer.md
python -m benchmarks.action_fit --made-up 1000000               time and memory of fitting to so many made-up chunks
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.action_tokenizer import SHAPES, made_up_chunks
from benchmarks.measuring import print_table
from molmoact2.data.chunk_stream import Episodes, choose_mixture, chunk_batches, open_sources
from molmoact2.evaluation.tokenizers import draw_comparison, measure_tokenizer
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.action_fit import fit_action_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tokens"))
import slow_action_tokenizer as slow

WAYS = {
    "one word, no dead levels": {"layout": "frequency", "dead_zone": 0.5},
    "+ dimension by dimension": {"dead_zone": 0.5},
    "+ dead zone 0.6": {},
    "+ scale 10.5": {"scale": 10.5},
    "dead zone 0.7": {"dead_zone": 0.7},
    "scale 8": {"scale": 8.0},
    "scale 15": {"scale": 15.0},
}
"""What each line of the table passes to `fit_action_tokenizer`."""


@dataclass(frozen=True, kw_only=True)
class Fits:
    """What to fit to."""

    mixture: str | None = None
    """Mixture file; a fifth of the episodes is held out."""
    chunks: int = 30_000
    """Chunks to fit to."""
    vocab_size: int = 2048
    made_up: int = 0
    """Fit to so many made-up chunks instead, and say what it took."""
    picture: Path | None = None
    """File to draw the table to."""

    def compare(self) -> None:
        """Fit in every way, and measure on the episodes that were held out."""
        sources = open_sources(
            choose_mixture(self.mixture, (), None), num_chunks=self.chunks, episodes=Episodes(every=5)
        )
        batches = list(chunk_batches(sources, seed=0, episodes=Episodes(every=5)))
        horizon = max(part.horizon for source in sources for part in source.parts)
        tokenizers = {"reference": reference(batches, self.vocab_size)} | {
            name: fit_action_tokenizer(batches, vocab_size=self.vocab_size, longest_horizon=horizon, **way)
            for name, way in WAYS.items()
        }
        apart = Episodes(every=5, are_apart=True)
        held_out = open_sources(choose_mixture(self.mixture, (), None), num_chunks=10**9, episodes=apart)
        measured = {
            (name, source.robot.tag): measure_tokenizer(
                name, tokenizer, source, chunk_batches([source.asked_for(3000)], seed=1, episodes=apart)
            )
            for name, tokenizer in tokenizers.items()
            for source in held_out
        }
        tags = [source.robot.tag for source in held_out]
        columns = ["fitted", *(f"{tag}: {what}" for tag in tags for what in ("tokens", "error", "failed"))]
        rows = [
            [name]
            + [
                cell
                for tag in tags
                for m in [measured[name, tag]]
                for cell in (f"{m.tokens_per_chunk:.2f}", f"{m.mean_error:.4f}", f"{m.failure_rate:.1%}")
            ]
            for name in tokenizers
        ]
        print_table("Tokens per chunk and mean error of normalised values, on held-out episodes", columns, rows)
        if self.picture:
            draw_comparison(self.picture, list(measured.values()))

    def fit_made_up(self) -> None:
        """Say how long it takes, and how much memory."""
        before, begin = peak_mb(), time.perf_counter()
        tokenizer = fit_action_tokenizer(made_up_batches(self.made_up), vocab_size=self.vocab_size, longest_horizon=30)
        seconds = time.perf_counter() - begin
        rows = [[f"{self.made_up:,}", str(tokenizer.table.size), f"{seconds:.0f}", f"{before:.0f}", f"{peak_mb():.0f}"]]
        print_table("Fitting to made-up chunks", ["chunks", "tokens", "s", "MB before", "most MB"], rows)


def reference(batches: list[np.ndarray], vocab_size: int) -> ActionTokenizer:
    """A tokenizer that was fitted as the released one was."""
    bpe, min_token = slow.fit((chunk for batch in batches for chunk in batch), vocab_size=vocab_size)
    settings = {"scale": 10.0, "min_token": min_token, "vocab_size": vocab_size}
    return ActionTokenizer.from_files(
        {"tokenizer.json": bpe.to_str().encode(), "processor_config.json": json.dumps(settings).encode()}
    )


def made_up_batches(num_chunks: int) -> Iterator[np.ndarray]:
    """Batches of the shapes of three robots, in turns."""
    shapes = list(SHAPES.values())[:3]
    for number, start in enumerate(range(0, num_chunks, 500)):
        yield made_up_chunks(min(500, num_chunks - start), *shapes[number % 3], seed=number)


def peak_mb() -> float:
    """Most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    fits = tyro.cli(Fits, description=__doc__)
    (fits.fit_made_up if fits.made_up else fits.compare)()
