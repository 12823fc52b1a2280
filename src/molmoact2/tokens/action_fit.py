"""Fitting OpenFAST: which runs of levels deserve a token of their own.

The alphabet is every level that a chunk within [-1, 1] can have, whether or not it occurs in the data:

    |coefficient| <= sqrt(horizon)    so    levels -m … m    with m = round(scale · sqrt(longest horizon))

and a whole chunk is one word, so that tokens may run over anything. Facts: training.md D, where the alphabet of the
reference loses levels and its words are cut by a rule for English.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Tokenizer, decoders, models

from molmoact2.tokens.action import RELEASED, ActionTokenizer
from molmoact2.tokens.action_levels import LAYOUTS, largest_level, levels_of, rows_of
from molmoact2.tokens.action_merges import learn_merges
from molmoact2.tokens.action_runs import MOST_DOUBLINGS, fold_zeros
from molmoact2.tokens.reading import require

BATCH = 512
"""Chunks that are transformed at once."""
MOST_TOKENS = 2**15
"""Levels are characters, and not far beyond are numbers that are none."""
OPENED_BY_TRANSFORMERS = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}


def fit_action_tokenizer(
    chunks: Iterable[Float[np.ndarray, "b h a"]],
    *,
    vocab_size: int,
    scale: float = 10.0,
    longest_horizon: int,
    layout: str = "dimension",
    dead_zone: float = 0.6,
    on_token: Callable[[int], object] = int,
) -> ActionTokenizer:
    """Fit a tokenizer to batches of normalised chunks, which may differ in horizon and width.

    Args:
        chunks: batches of chunks of values in [-1, 1], at most `longest_horizon` steps; gone through once.
        vocab_size: tokens of the result, the levels included.
        scale: levels per unit of a cosine coefficient. The usual error of a step is 0.29 / scale or less.
        longest_horizon: steps of the longest chunk that will ever be encoded; it decides how many levels there are.
        layout: order of the levels, one of `LAYOUTS`. Only "frequency" is read by the reference implementation too.
        dead_zone: what part of a level still becomes 0, at least 0.5; see `levels_of`.
        on_token: told how many tokens there are so far.

    The result is the same for the same batches, and needs two bytes of memory per symbol of the texts. Raises
    ValueError for chunks that are longer or not normalised, and for a vocabulary that leaves no room for the levels.
    """
    largest = largest_level(scale, longest_horizon)
    num_levels = 2 * largest + 1
    require(layout in LAYOUTS, f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}.")
    require(0.5 <= dead_zone <= 1, f"dead_zone must be from 0.5 to 1, got {dead_zone}.")
    require(
        num_levels <= vocab_size <= MOST_TOKENS,
        f"vocab_size must be {num_levels}, the levels that scale {scale:g} and {longest_horizon} steps need, to "
        f"{MOST_TOKENS}; got {vocab_size}. Take more tokens or a smaller scale.",
    )
    num_doublings = min(MOST_DOUBLINGS, vocab_size - num_levels)
    doubled = num_levels + np.arange(num_doublings)
    levels = (levels_within(batch, scale, dead_zone, largest) for batch in in_batches(chunks))
    spellings, merges = learn_merges(
        (fold_zeros(rows_of(block, layout) + largest, largest, doubled) for block in levels),
        spellings=[*map(chr, range(num_levels)), *(chr(largest) * 2**k for k in range(1, num_doublings + 1))],
        vocab_size=vocab_size,
        on_token=on_token,
    )
    doublings = [(int(name), int(name)) for name in (largest, *doubled)][:num_doublings]
    return ActionTokenizer.from_files(
        {
            "tokenizer.json": tokenizer_json(spellings, [*doublings, *merges]),
            "tokenizer_config.json": as_json(OPENED_BY_TRANSFORMERS),
            "processor_config.json": as_json(
                {"scale": scale, "vocab_size": vocab_size, "min_token": -largest, "layout": layout}
                | {"dead_zone": dead_zone, "action_dim": None, "time_horizon": None}
                | RELEASED[layout]
            ),
        }
    )


def in_batches(chunks: Iterable[Float[np.ndarray, "b h a"]]) -> Iterator[Float[np.ndarray, "c h a"]]:
    """The same chunks, `BATCH` at a time at most."""
    return (batch[start : start + BATCH] for batch in chunks for start in range(0, len(batch), BATCH))


def levels_within(
    chunks: Float[np.ndarray, "b h a"], scale: float, dead_zone: float, largest: int
) -> Int[np.ndarray, "b h a"]:
    """The levels of chunks; ValueError if any is beyond ±`largest`, or no number."""
    require(np.isfinite(chunks).all(), "A chunk holds NaN or infinity.")
    levels = levels_of(chunks, scale, dead_zone)
    found = np.abs(levels).max(initial=0)
    require(
        found <= largest,
        f"A chunk of {chunks.shape[1]} steps has the level {found}, beyond {largest}. Are the actions normalised to "
        "[-1, 1], and no longer than the longest horizon?",
    )
    return levels


def tokenizer_json(spellings: Sequence[str], merges: Sequence[tuple[int, int]]) -> bytes:
    """A `tokenizer.json` that treats every text as one word, and writes its tokens one after the other."""
    bpe = Tokenizer(
        models.BPE(
            vocab={spelling: token for token, spelling in enumerate(spellings)},
            merges=[(spellings[left], spellings[right]) for left, right in merges],
        )
    )
    bpe.decoder = decoders.Fuse()
    return bpe.to_str().encode()


def as_json(document: dict[str, object]) -> bytes:
    """An object as the bytes of a small file."""
    return json.dumps(document, indent=2).encode()
