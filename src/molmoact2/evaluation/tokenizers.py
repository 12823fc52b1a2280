"""How well action tokenizers do: tokens, errors and failures on the chunks of a mixture, in one table.

Errors are those of what a policy would execute: the chunk that comes back is clipped to the normalised range and put
into robot units as in inference. A chunk that a tokenizer cannot write, or not read again, counts as a failure and in
no other number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int
from rich import box
from rich.table import Table

from molmoact2.data.chunk_stream import ChunkSource
from molmoact2.data.errors import require
from molmoact2.data.files import write_json, written_atomically

NUM_BINS = 256


class ChunkTokenizer(Protocol):
    """What is compared; `ActionTokenizer` and `Bins` are some."""

    def can_encode(self, chunks: Float[np.ndarray, "b h a"]) -> Bool[np.ndarray, " b"]:
        """Which chunks it can write."""
        ...

    def encode(self, chunks: Float[np.ndarray, "b h a"]) -> Sequence[Int[np.ndarray, " n"]]:
        """Token ids of each normalised chunk."""
        ...

    def decode_batch(
        self, token_ids: Sequence[Int[np.ndarray, " n"]], *, horizon: int, action_dim: int
    ) -> tuple[Float[np.ndarray, "b h a"], Bool[np.ndarray, " b"]]:
        """The chunks of lists of token ids, and which of them are valid."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bins:
    """A token per number: which of equal parts of [-1, 1] it lies in."""

    num_bins: int = NUM_BINS

    def can_encode(self, chunks: Float[np.ndarray, "b h a"]) -> Bool[np.ndarray, " b"]:
        """Whether all numbers are within [-1, 1]."""
        return np.abs(chunks).max(axis=(1, 2), initial=0) <= 1

    def encode(self, chunks: Float[np.ndarray, "b h a"]) -> Sequence[Int[np.ndarray, " n"]]:
        """The bins, step by step."""
        bins = np.floor((chunks.astype(np.float64) + 1) / 2 * self.num_bins).astype(np.int64)
        return [bins.ravel() for bins in np.minimum(bins, self.num_bins - 1)]

    def decode_batch(
        self, token_ids: Sequence[Int[np.ndarray, " n"]], *, horizon: int, action_dim: int
    ) -> tuple[Float[np.ndarray, "b h a"], Bool[np.ndarray, " b"]]:
        """The middles of the bins; NaN for what is no chunk."""
        is_valid = np.array([len(ids) == horizon * action_dim for ids in token_ids], bool)
        chunks = np.full((len(token_ids), horizon, action_dim), np.nan)
        bins = [ids for ids, valid in zip(token_ids, is_valid, strict=True) if valid]
        chunks[is_valid] = ((np.array(bins) + 0.5) / self.num_bins * 2 - 1).reshape(-1, horizon, action_dim)
        return chunks, is_valid


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One tokenizer on the chunks of one embodiment."""

    tokenizer: str
    embodiment: str
    num_chunks: int
    num_failures: int
    """Chunks that it could not write, or not read again."""
    tokens_per_chunk: float
    most_tokens: int
    values_per_token: float
    """Numbers that a token stands for: the compression."""
    ids_used: int
    """Different token ids that occurred."""
    mean_error: float
    """Of normalised values, absolute."""
    largest_error: float
    mean_error_by_dimension: dict[str, float]
    """In robot units."""
    largest_error_by_dimension: dict[str, float]
    units: dict[str, str]

    @property
    def failure_rate(self) -> float:
        """Failures per chunk."""
        return self.num_failures / self.num_chunks


@dataclass(frozen=True, kw_only=True)
class _RoundTrip:
    """What came back of a batch of chunks: a row of each array is a chunk."""

    num_chunks: int
    """All of them, also those that did not come back."""
    num_values: int
    lengths: Int[np.ndarray, " k"]
    """Tokens."""
    ids: frozenset[int]
    mean: Float[np.ndarray, "k 1+a"]
    """Absolute error over the steps: normalised and over all dimensions, then each in robot units."""
    largest: Float[np.ndarray, "k 1+a"]


def _round_trip(tokenizer: ChunkTokenizer, source: ChunkSource, batch: Float[np.ndarray, "b h a"]) -> _RoundTrip:
    _, horizon, action_dim = batch.shape
    chunks = batch[tokenizer.can_encode(batch)]
    token_ids = tokenizer.encode(chunks)
    read, is_valid = tokenizer.decode_batch(token_ids, horizon=horizon, action_dim=action_dim)
    chunks, read = chunks[is_valid], np.clip(read[is_valid], -1, 1)
    kept = [ids for ids, valid in zip(token_ids, is_valid, strict=True) if valid]
    errors = np.abs(read - chunks)
    in_units = np.abs(source.scaling.restore(read) - source.scaling.restore(chunks))
    return _RoundTrip(
        num_chunks=len(batch),
        num_values=errors.size,
        lengths=np.array([len(ids) for ids in kept], np.int64),
        ids=frozenset(np.unique(np.concatenate([np.zeros(0, np.int64), *kept])).tolist()),
        mean=np.column_stack([errors.mean(axis=(1, 2)), in_units.mean(axis=1)]),
        largest=np.column_stack([errors.max(axis=(1, 2), initial=0), in_units.max(axis=1, initial=0)]),
    )


def measure_tokenizer(
    name: str, tokenizer: ChunkTokenizer, source: ChunkSource, batches: Iterable[Float[np.ndarray, "b h a"]]
) -> Measurement:
    """Write and read the normalised chunks of one embodiment. Raises ValueError where not one comes back."""
    trips = [_round_trip(tokenizer, source, batch) for batch in batches]
    num_chunks, robot = sum(trip.num_chunks for trip in trips), source.robot
    lengths = np.concatenate([np.zeros(0), *(trip.lengths for trip in trips)])
    require(lengths.size > 0, f"{name!r} gives back none of the {num_chunks} chunks of {robot.tag!r}.")
    mean, largest = (np.concatenate([vars(trip)[part] for trip in trips]) for part in ("mean", "largest"))

    def by_dimension(values: Float[np.ndarray, " a"]) -> dict[str, float]:
        return dict(zip(robot.action_names, values.tolist(), strict=True))

    return Measurement(
        tokenizer=name,
        embodiment=robot.tag,
        num_chunks=num_chunks,
        num_failures=num_chunks - len(lengths),
        tokens_per_chunk=float(lengths.mean()),
        most_tokens=int(lengths.max()),
        values_per_token=sum(trip.num_values for trip in trips) / float(lengths.sum()),
        ids_used=len(set().union(*(trip.ids for trip in trips))),
        mean_error=float(mean[:, 0].mean()),
        largest_error=float(largest[:, 0].max()),
        mean_error_by_dimension=by_dimension(mean[:, 1:].mean(axis=0)),
        largest_error_by_dimension=by_dimension(largest[:, 1:].max(axis=0)),
        units=dict(zip(robot.action_names, robot.action_units, strict=True)),
    )


def comparison_table(measurements: Sequence[Measurement]) -> Table:
    """A row per measurement."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("embodiment", "tokenizer"):
        table.add_column(column)
    for column in ("tokens", "most", "values per token", "mean error", "largest", "failures", "ids used"):
        table.add_column(column, justify="right")
    for m in measurements:
        table.add_row(
            m.embodiment, m.tokenizer, f"{m.tokens_per_chunk:.2f}", str(m.most_tokens), f"{m.values_per_token:.2f}",
            f"{m.mean_error:.4f}", f"{m.largest_error:.3f}", f"{m.failure_rate:.2%}", str(m.ids_used),
        )  # fmt: skip
    return table


def dimension_table(measurements: Sequence[Measurement]) -> Table:
    """The mean (and largest) error of every dimension of one embodiment, in robot units; a column per tokenizer."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{measurements[0].embodiment}: mean error (largest)", title_justify="left"
    )
    table.add_column("dimension")
    table.add_column("unit")
    for m in measurements:
        table.add_column(m.tokenizer, justify="right")
    for name, unit in measurements[0].units.items():
        cells = (
            f"{m.mean_error_by_dimension[name]:.3g} ({m.largest_error_by_dimension[name]:.3g})" for m in measurements
        )
        table.add_row(name, unit, *cells)
    return table


def write_comparison(path: Path, measurements: Sequence[Measurement], **about: Any) -> None:
    """Write measurements as JSON, with what else is to be said about them, atomically."""
    rows = [asdict(measurement) | {"failure_rate": measurement.failure_rate} for measurement in measurements]
    write_json(path, about | {"measurements": rows})


def draw_comparison(path: Path, measurements: Sequence[Measurement]) -> None:
    """A picture of tokens and errors, a panel per embodiment: the nearer to the lower left, the better."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, NullLocator

    tags = list(dict.fromkeys(m.embodiment for m in measurements))
    names = list(dict.fromkeys(m.tokenizer for m in measurements))
    figure = Figure(figsize=(1.2 + 3.4 * len(tags), 3.6), layout="constrained")
    panels = figure.subplots(1, len(tags), squeeze=False)[0]
    for panel, tag in zip(panels, tags, strict=True):
        for number, name in enumerate(names):
            points = [m for m in measurements if (m.embodiment, m.tokenizer) == (tag, name)]
            tokens, errors = [m.tokens_per_chunk for m in points], [m.mean_error for m in points]
            panel.scatter(tokens, errors, s=60, color=f"C{number}", marker="osD^vPX*"[number % 8], label=name, zorder=3)
        panel.set(title=tag, xlabel="tokens per chunk", xscale="log")
        panel.margins(0.1)
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean error, normalised")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(names)))
    with written_atomically(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
