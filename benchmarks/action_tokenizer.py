"""How long action chunks take to become tokens and chunks again, against the released algorithm.

The baseline is the slow twin of the tests: a chunk at a time, its characters through Python, one call of the library
for each. Both sides use the same tokenizer and give the same ids and values. No chunk is encoded twice, because the
library remembers texts. Times are of the processor, all threads together: a second core comes on top where the library
encodes batches.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measuring import Settings, measure, print_table, ratio
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.action_fit import fit_action_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tokens"))
import slow_action_tokenizer as slow

SHAPES = {"DROID, 15 x 8": (15, 8), "SO-101, 30 x 6": (30, 6), "YAM, 30 x 14": (30, 14), "padded, 30 x 32": (30, 32)}
BATCH = 2048


def made_up_chunks(num_chunks: int, horizon: int, width: int, seed: int = 0) -> np.ndarray:
    """Chunks [n, horizon, width] that glide between three places, with noise, some dimensions at rest."""
    rng = np.random.default_rng(seed)
    places = np.clip(rng.normal(scale=0.5, size=(num_chunks, 3, width)), -0.9, 0.9)
    is_still = rng.random((num_chunks, 1, width)) < 0.3
    places = np.where(is_still, places[:, :1], places)
    time = np.linspace(0, 2, horizon)
    leg = np.minimum(time.astype(int), 1)
    share = ((1 - np.cos(np.pi * (time - leg))) / 2)[None, :, None]
    moving = places[:, leg] * (1 - share) + places[:, leg + 1] * share
    return np.clip(moving + rng.normal(scale=0.01, size=moving.shape) * ~is_still, -1, 1).astype(np.float32)


def released_way(chunks: np.ndarray) -> ActionTokenizer:
    """A tokenizer that was fitted as the released one was, and has its smallest level of -55."""
    bpe, min_token = slow.fit([*chunks, np.full((30, 1), -1.0)], vocab_size=2048)
    settings = {"scale": 10.0, "min_token": min_token, "vocab_size": 2048}
    return ActionTokenizer.from_files(
        {"tokenizer.json": bpe.to_str().encode(), "processor_config.json": json.dumps(settings).encode()}
    )


def encode_one_by_one(tokenizer: ActionTokenizer, batches: Iterator[np.ndarray]) -> list[list[int]]:
    """Token ids of the next batch."""
    return [
        slow.encode(tokenizer.bpe, chunk, scale=tokenizer.scale, min_token=tokenizer.min_token)
        for chunk in next(batches)
    ]


def decode_one_by_one(tokenizer: ActionTokenizer, token_ids: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    """The chunks of token ids."""
    how = {"scale": tokenizer.scale, "min_token": tokenizer.min_token, "horizon": shape[0], "action_dim": shape[1]}
    return np.stack([slow.decode(tokenizer.bpe, ids, **how) for ids in token_ids])


def processor_seconds(alternatives: Mapping[str, Callable[[], object]], settings: Settings) -> dict[str, float]:
    """Median seconds of processor time of each alternative; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(settings.rounds):
        for name, alternative in alternatives.items():
            begin = time.process_time()
            alternative()
            seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(times) for name, times in seconds.items()}


def benchmark(settings: Settings) -> None:
    """Measure chunks of four robots, with a tokenizer in the released format and one of our own."""
    num_chunks = 40 if settings.smoke else BATCH
    rows = []
    for name, shape in SHAPES.items():
        train = made_up_chunks(100 if settings.smoke else 3000, *shape)
        tokenizers = {
            "released": released_way(train),
            "ours": fit_action_tokenizer(
                [train], vocab_size=2048, longest_horizon=30, layout="frequency", dead_zone=0.5
            ),
        }
        for kind, tokenizer in tokenizers.items():
            pool = made_up_chunks(num_chunks * 2 * (settings.rounds + 2), *shape, seed=1)
            pool = pool[tokenizer.can_encode(pool)]
            batches = iter(np.array_split(pool, 2 * (settings.rounds + 2)))
            token_ids = tokenizer.encode(next(batches))
            lists = [ids.tolist() for ids in token_ids]
            assert np.allclose(
                decode_one_by_one(tokenizer, lists, shape),
                tokenizer.decode(token_ids, horizon=shape[0], action_dim=shape[1]),
            )
            seconds = processor_seconds(
                {
                    "encode slowly": partial(encode_one_by_one, tokenizer, batches),
                    "encode": lambda tokenizer=tokenizer, batches=batches: tokenizer.encode(next(batches)),
                    "decode slowly": partial(decode_one_by_one, tokenizer, lists, shape),
                    "decode": partial(tokenizer.decode_batch, token_ids, horizon=shape[0], action_dim=shape[1]),
                },
                settings,
            )
            each = {way: 1e6 * whole / num_chunks for way, whole in seconds.items()}
            rows.append(
                [name, kind]
                + [f"{each[way]:.1f}" for way in ("encode slowly", "encode")]
                + [ratio(each["encode slowly"], each["encode"])]
                + [f"{each[way]:.1f}" for way in ("decode slowly", "decode")]
                + [ratio(each["decode slowly"], each["decode"])]
            )
    columns = ["chunk", "fitted", "encode: plain, µs", "ours, µs", "faster", "decode: plain, µs", "ours, µs", "faster"]
    print_table(f"Action chunks to tokens and back, {num_chunks} at a time", columns, rows)


if __name__ == "__main__":
    measure(benchmark, __doc__)
