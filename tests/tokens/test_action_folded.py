"""Texts with folded zeros get the very tokens that the library gives to whole ones."""

import json

import numpy as np
import pytest
import slow_action_tokenizer as slow
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_cases import GOLDEN
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.action_fit import fit_action_tokenizer
from molmoact2.tokens.action_folded import encode_texts


def chunks_between(low: float, high: float) -> np.ndarray:
    """Chunks [n, 1, a] whose levels, at scale 10, are all from 10 · low to 10 · high, and mostly 0."""
    rng = np.random.default_rng(0)
    values = rng.normal(scale=0.6, size=(300, 1, 24)) * (rng.random((300, 1, 24)) < 0.5)
    values[0, 0, :2] = low, high
    return np.clip(values, low, high)


def released(smallest_level: int) -> ActionTokenizer:
    """A tokenizer in the released way that writes level 0 as the character -smallest_level."""
    bpe, min_token = slow.fit(chunks_between(smallest_level / 10, 7.0), vocab_size=500)
    assert min_token == smallest_level
    settings = {"scale": 10.0, "min_token": min_token, "vocab_size": 500}
    return ActionTokenizer.from_files(
        {"tokenizer.json": bpe.to_str().encode(), "processor_config.json": json.dumps(settings).encode()}
    )


TOKENIZERS = {
    "released": ActionTokenizer.load(GOLDEN / "fast_tokenizer"),
    "zero is a digit": released(-52),
    "zero is a letter": released(-70),
    "zero is a sign": released(-40),
    "zero is an apostrophe": released(-39),
    "zero is a blank": released(-32),
    "zero ends a line": released(-10),
    "zero is a control character": released(-20),
    "two bytes": released(-125),
    "ours": fit_action_tokenizer([np.clip(chunks_between(-1, 1), -1, 1)], vocab_size=300, longest_horizon=30),
    "ours, zero is a blank": fit_action_tokenizer(
        [np.clip(chunks_between(-1, 1), -1, 1)], vocab_size=300, longest_horizon=10
    ),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.3, 1.0, 3.0, 20.0]), width=st.integers(1, 80))
def test_tokens_are_the_same(kind: str, seed: int, spread: float, width: int):
    tokenizer, rng = TOKENIZERS[kind], np.random.default_rng(seed)
    writable = np.flatnonzero(tokenizer.is_writable)
    likely = np.exp(-np.abs(writable + tokenizer.min_token) / spread)
    rows = rng.choice(writable, p=likely / likely.sum(), size=(8, width))
    can_fold = tokenizer.folded.can_fold(rows)
    folded = tokenizer.folded.encode(rows[can_fold])
    whole = encode_texts(tokenizer.bpe, rows[can_fold].ravel(), np.full(can_fold.sum(), width))
    assert [ids.tolist() for ids in folded] == [ids.tolist() for ids in whole]


@pytest.mark.parametrize(
    ("kind", "share"),
    [("released", 0.9), ("zero is a letter", 0.9), ("zero is a sign", 0.9), ("ours", 1), ("ours, zero is a blank", 1),
     ("zero is a blank", 0), ("zero ends a line", 0)],
)  # fmt: skip
def test_most_texts_can_be_folded(kind: str, share: float):
    tokenizer = TOKENIZERS[kind]
    rows = np.random.default_rng(1).choice([-1, 0, 0, 0, 0, 1, 2, -3], size=(200, 60)) - tokenizer.min_token
    assert tokenizer.folded.can_fold(rows).mean() >= share
    assert share or not tokenizer.folded.can_fold(rows).any()


def test_rows_that_can_and_cannot_be_folded_keep_their_order():
    tokenizer = TOKENIZERS["released"]
    chunks = np.zeros((6, 1, 4))
    chunks[1::2, 0, 1:3] = -2.3
    chunks[:, 0, 0] = np.arange(6) / 10
    rows = np.rint(chunks * 10).astype(int).reshape(6, 4) - tokenizer.min_token
    assert tokenizer.folded.can_fold(rows).tolist() == [True, False] * 3, "-23 is a blank, and two are left alone"
    for chunk, token_ids in zip(chunks, tokenizer.encode(chunks), strict=True):
        assert token_ids.tolist() == slow.encode(tokenizer.bpe, chunk, scale=10, min_token=tokenizer.min_token)
