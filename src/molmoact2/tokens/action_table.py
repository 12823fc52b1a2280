"""What each token of an action tokenizer stands for, as one table, so that whole batches are read at once.

Tokens are strings of characters, or, where `tokenizer.json` says ByteLevel, of bytes that are written as printable
characters. Either way a token is a run of UTF-8 bytes, and the bytes of a list of tokens are a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8
from tokenizers import Tokenizer

from molmoact2.tokens.action_runs import spread
from molmoact2.tokens.reading import require

END, WRONG = b"\xff", b"\xfe"
"""Bytes that no UTF-8 text has: the end of a list of tokens, and a token that does not exist."""
UNDECODABLE = 0xDC00
"""Bytes that are no UTF-8 are read as this code point plus the byte."""
DECODERS = ("ByteLevel", "Fuse")


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenTable:
    """The bytes of every token, and those of WRONG and END behind them."""

    data: UInt8[np.ndarray, " n"]
    starts: Int[np.ndarray, " v+2"]
    lengths: Int[np.ndarray, " v+2"]

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
        tokens = [read(string).replace(END, WRONG) for string in strings] + [WRONG, END]
        lengths = np.array([len(token) for token in tokens])
        return cls(data=np.frombuffer(b"".join(tokens), np.uint8), starts=lengths.cumsum() - lengths, lengths=lengths)

    @property
    def size(self) -> int:
        """Number of tokens."""
        return len(self.starts) - 2

    def characters(
        self, token_ids: Sequence[Int[np.ndarray, " n"]]
    ) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " b"], Bool[np.ndarray, " b"]]:
        """Code points of all lists, one after the other; how many each list has; and whether they are a text.

        A list is no text if it has an unknown token, or part of a character.
        """
        lengths = np.array([len(ids) for ids in token_ids], np.int64)
        flat = np.concatenate([*token_ids, np.zeros(0, np.int64)]).astype(np.int64)
        known = np.where((flat >= 0) & (flat < self.size), flat, self.size)
        tokens = np.insert(known, lengths.cumsum(), self.size + 1)
        data = self.data[spread(self.starts[tokens], self.lengths[tokens])]
        text = data.tobytes().decode("utf-8", "surrogateescape")
        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)
        ends = np.flatnonzero(codes == UNDECODABLE + END[0])
        is_broken = (codes >= UNDECODABLE + 0x80) & (codes < UNDECODABLE + END[0])
        broken_before = np.concatenate(([0], is_broken.cumsum()))[ends]
        counts = np.diff(ends, prepend=-1) - 1
        return np.delete(codes, ends), counts, np.diff(broken_before, prepend=0) == 0


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
