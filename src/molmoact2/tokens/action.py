"""OpenFAST: an action chunk as a short list of tokens.

A chunk is smooth, so its cosine transform along time is mostly zeros:

    chunk [h, a]  -- DCT, × scale, round -->  integers [h, a]  -- one character each -->  text  -- BPE -->  token ids

The integers are laid out frequency by frequency, all dimensions of the lowest frequency first. Facts: training.md D.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from molmoact2.tokens.reading import parse_json, read_field, require
from molmoact2.tokens.vocabulary import TokenFamily, read_tokenizer

FILES = ("tokenizer.json", "processor_config.json")


class ActionDecodeError(ValueError):
    """Generated tokens are not a whole action chunk."""


@dataclass(frozen=True, kw_only=True)
class ActionTokenizer:
    """Turns normalised action chunks into tokens and back."""

    bpe: Tokenizer
    scale: float
    """Levels per unit of a normalised cosine coefficient."""
    min_token: int
    """The level written as the character 0."""
    vocab_size: int
    """Number of ids it was fitted for; the BPE may use fewer."""
    files: Mapping[str, bytes] = field(repr=False)
    """The files it was read from, kept to be saved again unchanged."""

    @classmethod
    def load(cls, directory: str | Path) -> "ActionTokenizer":
        """Read a directory in the released format: `tokenizer.json` and `processor_config.json`."""
        directory = Path(directory)
        missing = [name for name in FILES if not (directory / name).is_file()]
        require(not missing, f"{directory} is no action tokenizer: it lacks {' and '.join(missing)}.")
        return cls.from_files({name: (directory / name).read_bytes() for name in FILES})

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "ActionTokenizer":
        """Read the contents of `tokenizer.json` and `processor_config.json`."""
        settings = parse_json(files["processor_config.json"], "processor_config.json")
        scale = read_field(settings, "scale", float, "processor_config.json")
        require(scale > 0, f"processor_config.json: 'scale' must be positive, got {scale}.")
        return cls(
            bpe=read_tokenizer(files["tokenizer.json"], "The action tokenizer's tokenizer.json"),
            scale=scale,
            min_token=read_field(settings, "min_token", int, "processor_config.json"),
            vocab_size=read_field(settings, "vocab_size", int, "processor_config.json"),
            files=dict(files),
        )

    def save(self, directory: str | Path) -> None:
        """Write the files it was read from into `directory`, which must exist."""
        for name, content in self.files.items():
            (Path(directory) / name).write_bytes(content)

    def encode(self, chunks: Float[np.ndarray, "b h a"]) -> list[Int[np.ndarray, " n"]]:
        """Token ids of each normalised chunk.

        Raises ValueError where a chunk has a level that the tokenizer never saw and so could not give back.
        """
        characters = np.maximum(levels_of(chunks, self.scale) - self.min_token, 0).reshape(len(chunks), -1)
        texts = texts_of(characters)
        token_ids = [np.array(encoding.ids, np.int64) for encoding in self.bpe.encode_batch_fast(texts)]
        for row, text, ids in zip(characters, texts, token_ids, strict=True):
            require(
                self.bpe.decode(ids.tolist(), skip_special_tokens=False) == text,
                f"A chunk with levels {row.min() + self.min_token} to {row.max() + self.min_token} cannot be "
                "written with this action tokenizer: some of them never occurred when it was fitted. "
                "Are the actions normalised to [-1, 1]?",
            )
        return token_ids

    def decode(
        self, token_ids: Sequence[Int[np.ndarray, " n"]], *, horizon: int, action_dim: int
    ) -> Float[np.ndarray, "b h a"]:
        """The normalised chunks (float64) of lists of token ids.

        Raises ActionDecodeError for unknown ids and for lists that are not exactly horizon × action_dim levels.
        """
        return np.stack([self.decode_one(ids, horizon=horizon, action_dim=action_dim) for ids in token_ids])

    def decode_one(
        self, token_ids: Int[np.ndarray, " n"], *, horizon: int, action_dim: int
    ) -> Float[np.ndarray, "h a"]:
        """Like `decode`, for one list."""
        token_ids = np.asarray(token_ids, np.int64)
        size = self.bpe.get_vocab_size()
        unknown = token_ids[(token_ids < 0) | (token_ids >= size)]
        require(
            not unknown.size,
            f"Action tokens {unknown[:5]} are unknown to the action tokenizer, which has {size}.",
            ActionDecodeError,
        )
        text = self.bpe.decode(token_ids.tolist(), skip_special_tokens=False)
        characters = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64)
        require(
            characters.size == horizon * action_dim,
            f"The action tokens hold {characters.size} levels, but {horizon} steps of {action_dim} dimensions "
            f"need {horizon * action_dim}. The checkpoint does not speak this action tokenizer's language.",
            ActionDecodeError,
        )
        levels = (characters + self.min_token).reshape(horizon, action_dim)
        return cosine_basis(horizon).T @ (levels / self.scale)


def levels_of(chunks: Float[np.ndarray, "b h a"], scale: float) -> Int[np.ndarray, "b h a"]:
    """The quantised cosine coefficients of each chunk, frequency by frequency."""
    return np.rint(cosine_basis(chunks.shape[1]) @ chunks.astype(np.float64) * scale).astype(np.int64)


def texts_of(characters: Int[np.ndarray, "b *n"]) -> list[str]:
    """Each row as a text, one character per number."""
    flat = characters.reshape(len(characters), -1).astype("<u4")
    return [row.tobytes().decode("utf-32-le", errors="replace") for row in flat]


@lru_cache
def cosine_basis(length: int) -> Float[np.ndarray, "length length"]:
    """The orthonormal cosine transform (DCT-II): row k holds the k-th frequency at every step."""
    k, t = np.arange(length)[:, None], np.arange(length)
    basis = np.sqrt(2.0 / length) * np.cos(np.pi * k * (2 * t + 1) / (2 * length))
    basis[0] /= np.sqrt(2.0)
    basis.flags.writeable = False
    return basis


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
