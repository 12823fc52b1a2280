"""The same BPE on shorter texts: runs of zeros are folded before the library sees them.

The first merges of action tokenizers double the zero, in the released one and in those fitted here. What they make of a
run is known from its length (`action_runs`), so the library is left with the other merges and less text.
"""

import json
import string
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Tokenizer, models, pre_tokenizers

from molmoact2.tokens.action_runs import fold_zeros
from molmoact2.tokens.action_table import byte_letters

CUT, DOUBLED, MOST_DOUBLED = 0xF0000, 0xF0001, 16
"""Characters from a range that belongs to nobody: where a word ends, two zeros; those for 4, 8, … zeros follow."""
ENGLISH = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
"""The released tokenizer cuts a text into words, as if it were English."""
LETTER, DIGIT, OTHER, BLANK, APOSTROPHE, SHORT_FORM = range(6)
"""What it tells apart; the last are letters that may follow an apostrophe, as in "it's"."""
SPECIAL = {" ": BLANK, "'": APOSTROPHE} | dict.fromkeys("stmdlvr", SHORT_FORM)
NEVER = 2
WORDS = np.array(
    [  # letter, digit, other, blank, apostrophe, short form
        [0, 1, 1, 1, 1, 0],  # after a letter
        [1, 0, 1, 1, 1, 1],  # after a digit
        [1, 1, 0, 1, 0, 1],  # after another
        [0, 0, 0, NEVER, 0, 0],  # a blank belongs to what follows; the rule for several is left to the library
        [1, 1, 0, 1, 0, NEVER],  # after an apostrophe
        [0, 1, 1, 1, 1, 0],  # after a letter that may follow one
    ],
    np.int8,
)
"""Whether a word begins (1) at the second of two characters; NEVER where this table does not say."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldedBpe:
    """A BPE for texts whose zeros are folded."""

    bpe: Tokenizer
    zero: int
    """The character of level 0."""
    doubled: Int[np.ndarray, " k"]
    """The characters for 2, 4, 8, … zeros."""
    kinds: Int[np.ndarray, " c"] | None
    """What the character 0, 1, … is for `WORDS`; None where texts are not cut."""
    is_known: Bool[np.ndarray, " c"]
    """Whether texts with the character 0, 1, … can be folded; none can where the BPE does not begin with zeros."""

    @classmethod
    def of(cls, bpe: Tokenizer, zero: int) -> "FoldedBpe":
        """The BPE for folded texts that gives the tokens which `bpe` gives for whole ones."""
        document = json.loads(bpe.to_str())
        vocab, merges = document["model"]["vocab"], [tuple(pair) for pair in document["model"]["merges"]]
        letters = {letter: c for letter, c in _letters(document).items() if letter in vocab}
        first = next((letter for letter, c in letters.items() if c == zero), "")
        doublings = [(first * 2**k, first * 2**k) for k in range(MOST_DOUBLED)]
        num = next((k for k, pair in enumerate(doublings) if merges[k : k + 1] != [pair]), MOST_DOUBLED)
        spelt = {letter: chr(c) for letter, c in letters.items()}
        spelt |= {left + right: chr(DOUBLED + k) for k, (left, right) in enumerate(doublings[:num])}
        kept = []
        for left, right in merges[num:]:
            if left in spelt and right in spelt:
                spelt.setdefault(left + right, spelt[left] + spelt[right])
                kept.append((spelt[left], spelt[right]))
        folded = Tokenizer(models.BPE(vocab={short: vocab[token] for token, short in spelt.items()}, merges=kept))
        folded.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(chr(CUT))
        characters = np.arange(len(vocab))
        is_cut = document["pre_tokenizer"] is not None
        return cls(
            bpe=folded,
            zero=zero,
            doubled=DOUBLED + np.arange(num),
            kinds=np.array([_kind(chr(c)) for c in characters.tolist()]) if is_cut else None,
            is_known=np.isin(characters, list(letters.values())) & (num > 0),
        )

    def can_fold(self, rows: Int[np.ndarray, "b n"]) -> Bool[np.ndarray, " b"]:
        """Which rows of characters `encode` takes."""
        is_known = np.asarray(self.is_known[rows].all(axis=1))
        if self.kinds is None:
            return is_known
        kinds = self.kinds[rows]
        return is_known & (WORDS[kinds[:, :-1], kinds[:, 1:]] != NEVER).all(axis=1)

    def encode(self, rows: Int[np.ndarray, "b n"]) -> list[Int[np.ndarray, " n"]]:
        """Token ids of rows of characters."""
        symbols, lengths = fold_zeros(rows, self.zero, self.doubled)
        if self.kinds is None:
            return encode_texts(self.bpe, symbols, lengths)
        kinds, ends = self.kinds[np.where(symbols < CUT, symbols, self.zero)], lengths.cumsum()
        begins_word = np.zeros(len(symbols), bool)
        begins_word[1:] = WORDS[kinds[:-1], kinds[1:]] == 1
        begins_word[ends[:-1]] = False
        places = np.flatnonzero(begins_word)
        num_cuts = np.diff(np.searchsorted(places, ends), prepend=0)
        return encode_texts(self.bpe, np.insert(symbols, places, CUT), lengths + num_cuts)


def encode_texts(
    bpe: Tokenizer, characters: Int[np.ndarray, " m"], lengths: Int[np.ndarray, " b"]
) -> list[Int[np.ndarray, " n"]]:
    """Token ids of texts of these lengths, which stand one after the other."""
    whole, ends = characters.astype("<u4").tobytes().decode("utf-32-le"), lengths.cumsum()
    texts = [whole[start:end] for start, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]
    return [np.array(encoding.ids, np.int64) for encoding in bpe.encode_batch_fast(texts)]


def _letters(document: Mapping[str, Any]) -> dict[str, int]:
    """How single characters that texts with folded zeros may have are written in the vocabulary -> the character."""
    match document:
        case {"normalizer": None, "pre_tokenizer": None, "decoder": {"type": "Fuse"}}:
            return {chr(c): c for c in range(len(document["model"]["vocab"]))}
        case {"normalizer": None, "pre_tokenizer": cut, "decoder": {"type": "ByteLevel"}} if cut == ENGLISH:
            letters = {letter: byte for letter, byte in byte_letters().items() if chr(byte).isascii()}
            return {letter: c for letter, c in letters.items() if chr(c) not in string.whitespace.strip(" ")}
    return {}


def _kind(character: str) -> int:
    """What a character is for `WORDS`."""
    general = {"L": LETTER, "N": DIGIT}.get(unicodedata.category(character)[0], OTHER)
    return SPECIAL.get(character, general)
