"""What each token of an action tokenizer stands for, as one table, so that whole batches are read at once.

Tokens are strings of characters, or, where `tokenizer.json` says ByteLevel, of the bytes of characters, written as
printable ones. A token that begins or ends within a character has no place in the table: lists that hold such tokens
are read by the library, one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int32
from tokenizers import Tokenizer

from molmoact2.tokens.action_runs import spread
from molmoact2.tokens.reading import require

DECODERS = ("ByteLevel", "Fuse")
NOT_HERE = 1 << 32
"""Length of what is not in the table: more than any chunk has."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What the library reads where bytes are no character."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenTable:
    """The characters of every token, one token after the other."""

    bpe: Tokenizer
    characters: Int32[np.ndarray, " n"]
    starts: Int[np.ndarray, " v+1"]
    lengths: Int[np.ndarray, " v+1"]
    """NOT_HERE for tokens with parts of characters, and for the last one, which stands for ids that do not exist."""

    @classmethod
    def read(cls, bpe: Tokenizer, document: Mapping[str, Any]) -> "TokenTable":
        """The table of a tokenizer, of whose `tokenizer.json` `document` is the content."""
        kind = (document.get("decoder") or {}).get("type")
        require(
            kind in DECODERS,
            f"The action tokenizer's tokenizer.json must have one of the decoders {', '.join(DECODERS)}, got {kind!r}.",
        )
        strings = [bpe.id_to_token(token) or "" for token in range(bpe.get_vocab_size())]
        read = bytes_of if kind == "ByteLevel" else str.encode
        texts = [read(string).decode("utf-8", "replace") for string in strings] + [REPLACEMENT]
        characters = np.frombuffer("".join(texts).encode("utf-32-le"), np.int32)
        lengths = np.array([len(text) for text in texts])
        starts = lengths.cumsum() - lengths
        is_whole = np.array([REPLACEMENT not in text for text in texts])
        return cls(bpe=bpe, characters=characters, starts=starts, lengths=np.where(is_whole, lengths, NOT_HERE))

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.lengths) - 1

    def rows(
        self, token_ids: Sequence[Int[np.ndarray, " n"]], width: int
    ) -> tuple[Int32[np.ndarray, "b width"], Bool[np.ndarray, " b"]]:
        """The characters of lists of tokens, and which of the lists are texts of `width` characters.

        The others have unknown ids, parts of characters, or another length; their rows mean nothing.
        """
        counts = np.array([len(ids) for ids in token_ids], np.int64)
        flat = np.concatenate([np.zeros(0, np.int64), *token_ids]).astype(np.int64, copy=False)
        tokens = np.where((flat >= 0) & (flat < self.size), flat, self.size)
        until = np.concatenate(([0], self.lengths[tokens].cumsum()))[np.concatenate(([0], counts.cumsum()))]
        widths = np.diff(until)
        is_valid = widths == width
        tokens = tokens[np.repeat(is_valid, counts)]
        found = self.characters[spread(self.starts[tokens], self.lengths[tokens])].reshape(-1, width)
        if len(found) == len(counts):
            return found, is_valid
        rows = np.zeros((len(counts), width), np.int32)
        rows[is_valid] = found
        for row in np.flatnonzero(widths >= NOT_HERE).tolist():
            text = self.text(token_ids[row])
            is_valid[row] = len(text) == width and REPLACEMENT not in text
            rows[row] = np.frombuffer(text.ljust(width)[:width].encode("utf-32-le"), np.int32)
        return rows, is_valid

    def text(self, token_ids: Int[np.ndarray, " n"]) -> str:
        """The text of one list, with REPLACEMENT for what is no character."""
        ids = np.asarray(token_ids, np.int64)
        is_known = (ids >= 0) & (ids < self.size)
        return self.bpe.decode(ids[is_known].tolist(), skip_special_tokens=False) + REPLACEMENT * int(
            not is_known.all()
        )


def bytes_of(string: str) -> bytes:
    """The bytes that a ByteLevel token stands for; a string with other characters stands for itself."""
    letters = byte_letters()
    return bytes(letters[c] for c in string) if letters.keys() >= set(string) else string.encode()


@lru_cache
def byte_letters() -> dict[str, int]:
    """The printable character that ByteLevel writes for each byte -> the byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}
