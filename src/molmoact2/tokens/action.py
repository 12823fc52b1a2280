"""OpenFAST: an action chunk as a short list of tokens.

A chunk is smooth, so its cosine transform along time is mostly zeros:

    chunk [h, a]  -- DCT, × scale, round -->  levels [h, a]  -- one character each -->  text  -- BPE -->  token ids

Facts: training.md D. What a tokenizer of our own may differ in is a field of `processor_config.json` that the released
one lacks: the `layout` of the levels and the `dead_zone` around 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer

from molmoact2.tokens.action_folded import FoldedBpe, encode_texts
from molmoact2.tokens.action_levels import LAYOUTS, chunks_of, levels_in, levels_of, rows_of
from molmoact2.tokens.action_table import REPLACEMENT, TokenTable
from molmoact2.tokens.reading import parse_json, read_field, read_optional, require
from molmoact2.tokens.vocabulary import TokenFamily, read_tokenizer

FILES = ("tokenizer.json", "processor_config.json")
EXTRA_FILES = ("tokenizer_config.json",)
"""Kept where they are there; nothing is read from them."""
RELEASED = {"frequency": {"processor_class": "UniversalActionProcessor"}, "dimension": {}}
"""Layout -> how a file with it says that the reference implementation reads it too."""
SURROGATES = 0xD800
"""The first number that is no character."""
BLOCK = 1 << 16
"""Levels that are worked on at once, so that they stay in the cache."""


class ActionDecodeError(ValueError):
    """Generated tokens are not a whole action chunk."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ActionTokenizer:
    """Turns normalised action chunks into tokens and back."""

    bpe: Tokenizer
    scale: float
    """Levels per unit of a normalised cosine coefficient."""
    min_token: int
    """The level written as the character 0."""
    vocab_size: int
    """Number of ids it was fitted for; the BPE may use fewer."""
    layout: str = "frequency"
    """Order in which levels are written, one of `LAYOUTS`."""
    dead_zone: float = 0.5
    """Part of a level that still becomes 0; see `levels_of`."""
    files: Mapping[str, bytes] = field(repr=False)
    """The files it was read from, kept to be saved again unchanged."""

    @classmethod
    def load(cls, directory: str | Path) -> "ActionTokenizer":
        """Read a directory in the released format: `tokenizer.json` and `processor_config.json`."""
        directory = Path(directory)
        missing = [name for name in FILES if not (directory / name).is_file()]
        require(not missing, f"{directory} is no action tokenizer: it lacks {' and '.join(missing)}.")
        extra = [name for name in EXTRA_FILES if (directory / name).is_file()]
        return cls.from_files({name: (directory / name).read_bytes() for name in (*FILES, *extra)})

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "ActionTokenizer":
        """Read the contents of `tokenizer.json` and `processor_config.json`."""
        where = "processor_config.json"
        settings = parse_json(files[where], where)
        scale = read_field(settings, "scale", float, where)
        layout = read_optional(settings, "layout", str, where) or cls.layout
        dead_zone = read_optional(settings, "dead_zone", float, where) or cls.dead_zone
        require(0 < scale < np.inf, f"{where}: 'scale' must be positive, got {scale}.")
        require(layout in LAYOUTS, f"{where}: 'layout' must be one of {', '.join(LAYOUTS)}, got {layout!r}.")
        require(0.5 <= dead_zone <= 1, f"{where}: 'dead_zone' must be from 0.5 to 1, got {dead_zone}.")
        return cls(
            bpe=read_tokenizer(files["tokenizer.json"], "The action tokenizer's tokenizer.json"),
            scale=scale,
            min_token=read_field(settings, "min_token", int, where),
            vocab_size=read_field(settings, "vocab_size", int, where),
            layout=layout,
            dead_zone=dead_zone,
            files=dict(files),
        )

    def save(self, directory: str | Path) -> None:
        """Write the files it was read from into `directory`, which must exist."""
        for name, content in self.files.items():
            (Path(directory) / name).write_bytes(content)

    @cached_property
    def table(self) -> TokenTable:
        """What each token stands for."""
        return TokenTable.read(self.bpe, parse_json(self.files["tokenizer.json"], "tokenizer.json"))

    @cached_property
    def folded(self) -> FoldedBpe:
        """The BPE for texts with folded zeros, which is faster."""
        return FoldedBpe.of(self.bpe, -self.min_token)

    @cached_property
    def is_writable(self) -> Bool[np.ndarray, " c"]:
        """For the characters 0, 1, …: whether the BPE gives them back. None beyond them can be written."""
        alone = [chr(character) for character in range(min(self.table.size, SURROGATES))]
        token_ids = [np.array(encoding.ids, np.int64) for encoding in self.bpe.encode_batch_fast(alone)]
        read, is_one = self.table.rows(token_ids, 1)
        return is_one & (read[:, 0] == np.arange(len(alone)))

    def levels(self, chunks: Float[np.ndarray, "b h a"]) -> Int[np.ndarray, "b h a"]:
        """The level of every cosine coefficient of normalised chunks, frequency by frequency.

        Raises ValueError for NaN, and for a level that has no token and so could not be given back.
        """
        require(np.isfinite(chunks).all(), "A chunk to encode holds NaN or infinity.")
        levels = levels_of(chunks, self.scale, self.dead_zone)
        lost = np.unique(levels[~self._have_tokens(levels)])
        require(
            not lost.size,
            f"The levels {lost[:5]} of a chunk cannot be written with this action tokenizer, which has no token for "
            "them. Are the actions normalised to [-1, 1], and no longer than the chunks that it was fitted for?",
        )
        return levels

    def can_encode(self, chunks: Float[np.ndarray, "b h a"]) -> Bool[np.ndarray, " b"]:
        """Which of the normalised chunks `encode` does not refuse."""
        is_number = np.isfinite(chunks)
        levels = levels_of(np.where(is_number, chunks, 0), self.scale, self.dead_zone)
        return np.asarray((is_number & self._have_tokens(levels)).all(axis=(1, 2)))

    def _have_tokens(self, levels: Int[np.ndarray, "b h a"]) -> Bool[np.ndarray, "b h a"]:
        """Which levels the BPE can write."""
        characters = levels - self.min_token
        size = len(self.is_writable)
        inside = (characters >= 0) & (characters < size)
        return self.is_writable[np.clip(characters, 0, size - 1)] & inside

    def encode(self, chunks: Float[np.ndarray, "b h a"]) -> list[Int[np.ndarray, " n"]]:
        """Token ids of each normalised chunk. Raises ValueError where `levels` does."""
        step = max(1, BLOCK // max(1, chunks[:1].size))
        return [ids for start in range(0, len(chunks), step) for ids in self._encode(chunks[start : start + step])]

    def _encode(self, chunks: Float[np.ndarray, "b h a"]) -> list[Int[np.ndarray, " n"]]:
        rows = rows_of(self.levels(chunks), self.layout) - self.min_token
        can_fold = self.folded.can_fold(rows)
        whole = rows[~can_fold]
        shorter = iter(self.folded.encode(rows[can_fold]))
        others = iter(encode_texts(self.bpe, whole.ravel(), np.full(len(whole), rows.shape[1])))
        return [next(shorter if foldable else others) for foldable in can_fold]

    def decode(
        self, token_ids: Sequence[Int[np.ndarray, " n"]], *, horizon: int, action_dim: int
    ) -> Float[np.ndarray, "b h a"]:
        """The normalised chunks (float64) of lists of token ids.

        Raises ActionDecodeError for unknown ids and for lists that are not exactly horizon × action_dim levels.
        """
        chunks, is_valid = self.decode_batch(token_ids, horizon=horizon, action_dim=action_dim)
        if not is_valid.all():
            self._refuse(np.asarray(token_ids[int(is_valid.argmin())], np.int64), horizon, action_dim)
        return chunks

    def decode_one(
        self, token_ids: Int[np.ndarray, " n"], *, horizon: int, action_dim: int
    ) -> Float[np.ndarray, "h a"]:
        """Like `decode`, for one list."""
        return self.decode([np.asarray(token_ids, np.int64)], horizon=horizon, action_dim=action_dim)[0]

    def decode_batch(
        self, token_ids: Sequence[Int[np.ndarray, " n"]], *, horizon: int, action_dim: int
    ) -> tuple[Float[np.ndarray, "b h a"], Bool[np.ndarray, " b"]]:
        """The normalised chunks (float64) of lists of token ids, and which of the lists were whole chunks.

        The others are NaN: those with unknown ids, and those that are not exactly horizon × action_dim levels.
        """
        step = max(1, BLOCK // max(1, horizon * action_dim))
        chunks = np.empty((len(token_ids), horizon, action_dim))
        is_valid = np.zeros(len(token_ids), bool)
        for block in (slice(start, start + step) for start in range(0, len(token_ids), step)):
            rows, is_valid[block] = self.table.rows(token_ids[block], horizon * action_dim)
            levels = levels_in(rows + self.min_token, self.layout, horizon, action_dim)
            chunks_of(levels, self.scale, out=chunks[block])
        chunks[~is_valid] = np.nan
        return chunks, is_valid

    def _refuse(self, token_ids: Int[np.ndarray, " n"], horizon: int, action_dim: int) -> NoReturn:
        """Say why a list of token ids is no chunk."""
        unknown, size = token_ids[(token_ids < 0) | (token_ids >= self.table.size)], self.table.size
        complaint = f"Action tokens {unknown[:5]} are unknown to the action tokenizer, which has {size}."
        require(not unknown.size, complaint, ActionDecodeError)
        text = self.table.text(token_ids)
        half = "The action tokens have part of a level, of which the others are missing."
        require(REPLACEMENT not in text, half, ActionDecodeError)
        raise ActionDecodeError(
            f"The action tokens hold {len(text)} levels, but {horizon} steps of {action_dim} dimensions need "
            f"{horizon * action_dim}. The checkpoint does not speak this action tokenizer's language."
        )


def read_action_codes(token_ids: Int[np.ndarray, " s"], family: TokenFamily) -> Int[np.ndarray, " n"]:
    """The action codes between `<action_start>` and `<action_end>` of generated text.

    Raises ActionDecodeError where either is missing or something else stands between them.
    """
    starts, ends = (np.flatnonzero(token_ids == marker) for marker in (family.start, family.end))
    is_whole = starts.size and ends.size and starts[0] < ends[0]
    require(is_whole, "The generated text has no complete <action_start> … <action_end>.", ActionDecodeError)
    codes = token_ids[starts[0] + 1 : ends[0]] - family.first
    are_actions = ((codes >= 0) & (codes < family.count)).all()
    require(are_actions, "There are other tokens between <action_start> and <action_end>.", ActionDecodeError)
    return codes
