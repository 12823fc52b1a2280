"""Fitting: no level is dead, merges are those of plain BPE, and the result is better than the reference's."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import slow_action_tokenizer as slow
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.action_fit import fit_action_tokenizer
from molmoact2.tokens.action_levels import LAYOUTS, largest_level, levels_of
from molmoact2.tokens.action_merges import learn_merges
from molmoact2.tokens.action_runs import fold_zeros


def smooth(num_chunks: int, horizon: int, width: int, seed: int = 0) -> np.ndarray:
    """Chunks that glide from one place to another, with a little noise."""
    rng = np.random.default_rng(seed)
    begin, end = rng.uniform(-0.9, 0.9, (2, num_chunks, 1, width))
    end[..., width // 2 :] = begin[..., width // 2 :]
    glide = (1 - np.cos(np.linspace(0, np.pi, horizon)))[None, :, None] / 2
    return np.clip(begin + (end - begin) * glide + rng.normal(scale=0.02, size=(num_chunks, horizon, width)), -1, 1)


@settings(max_examples=25)
@given(st.floats(0.5, 15), st.integers(1, 32), st.sampled_from([*LAYOUTS]), st.sampled_from([0.5, 0.6, 1.0]))
def test_every_level_that_can_occur_is_written_and_read(scale: float, horizon: int, layout: str, dead_zone: float):
    largest = largest_level(scale, horizon)
    tokenizer = fit_action_tokenizer(
        [np.zeros((3, horizon, 1))],
        vocab_size=2 * largest + 4,
        scale=scale,
        longest_horizon=horizon,
        layout=layout,
        dead_zone=dead_zone,
    )
    assert tokenizer.min_token == -largest
    every = np.arange(-largest, largest + 1)
    token_ids = [np.array(tokenizer.bpe.encode(chr(level + largest)).ids) for level in every]
    rows, is_valid = tokenizer.table.rows(token_ids, 1)
    assert is_valid.all()
    np.testing.assert_array_equal(rows[:, 0] - largest, every)
    shuffled = np.random.default_rng(0).permutation(every)
    whole = tokenizer.bpe.encode("".join(chr(level + largest) for level in shuffled)).ids
    rows, _ = tokenizer.table.rows([np.array(whole)], len(every))
    np.testing.assert_array_equal(rows[0] - largest, shuffled)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([*LAYOUTS]))
def test_the_most_extreme_chunks_come_back(horizon: int, width: int, seed: int, layout: str):
    """Square waves reach the largest coefficients there are; not one of them was seen in fitting."""
    tokenizer = TRAINED[layout]
    chunk = np.random.default_rng(seed).choice([-1.0, 1.0], (2, horizon, width))
    chunk[1] = chunk[1, 0]
    read = tokenizer.decode(tokenizer.encode(chunk), horizon=horizon, action_dim=width)
    np.testing.assert_array_equal(
        levels_of(read, 10.0), levels_of(chunk, 10.0, tokenizer.dead_zone), "levels are read as they were written"
    )


TRAINED = {
    layout: fit_action_tokenizer([smooth(60, 15, 4)], vocab_size=300, longest_horizon=30, layout=layout)
    for layout in LAYOUTS
}


def test_the_reference_loses_levels_that_it_did_not_see():
    """Why the alphabet is made differently here: the reference reads zeros for such a chunk."""
    bpe, min_token = slow.fit(smooth(60, 15, 4), vocab_size=300)
    settings = {"scale": 10.0, "min_token": min_token, "vocab_size": 300}
    reference = ActionTokenizer.from_files(
        {"tokenizer.json": bpe.to_str().encode(), "processor_config.json": json.dumps(settings).encode()}
    )
    written = reference.is_writable[: largest_level(10.0, 15) - min_token]
    assert not written.all()
    lost = (np.flatnonzero(~written)[-1] + min_token) / 10.0
    chunk = np.full((1, 1, 1), lost) if abs(lost) <= 1 else np.full((1, 15, 1), lost / np.sqrt(15))
    ids = slow.encode(bpe, chunk[0], scale=10.0, min_token=min_token)
    zeros = slow.decode(bpe, ids, scale=10.0, min_token=min_token, horizon=chunk.shape[1], action_dim=1)
    assert not zeros.any()
    with pytest.raises(ValueError, match="cannot be written"):
        reference.encode(chunk)


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=20), max_size=6),
    st.integers(0, 3),
    st.integers(4, 14),
    st.integers(1, 4),
)
def test_merges_are_those_of_plain_bpe(texts: list[list[int]], zero: int, vocab_size: int, per_batch: int):
    texts = [[zero if symbol == 3 else symbol for symbol in text] for text in texts]
    batches = [texts[start : start + per_batch] for start in range(0, len(texts), per_batch)]
    flat = [
        (np.array([symbol for text in batch for symbol in text], np.int64), np.array([len(text) for text in batch]))
        for batch in batches
    ]
    assert learn_merges(flat, spellings="abcd", vocab_size=vocab_size) == slow.learn_merges(texts, "abcd", vocab_size)


@given(st.data())
def test_runs_of_zeros_are_folded_as_one_by_one(data: st.DataObject):
    num_doubled, width = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 50))
    row = st.lists(st.sampled_from([7, 7, 7, 7, 7, 1, 9]), min_size=width, max_size=width)
    rows = data.draw(st.lists(row, max_size=4))
    doubled = 100 + np.arange(num_doubled)
    symbols, lengths = fold_zeros(np.array(rows, np.int64).reshape(len(rows), width), 7, doubled)
    folded = [slow.fold_zeros(row, 7, doubled.tolist()) for row in rows]
    assert symbols.tolist() == [symbol for row in folded for symbol in row]
    assert lengths.tolist() == [len(row) for row in folded]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_learnt_is_what_the_library_encodes(layout: str):
    """The texts that training ended with have as many symbols as the library finds tokens."""
    chunks, tokenizer = smooth(60, 15, 4), TRAINED[layout]
    document = json.loads(tokenizer.files["tokenizer.json"])
    ids = document["model"]["vocab"]
    zero = chr(-tokenizer.min_token)
    merges = [(ids[left], ids[right]) for left, right in document["model"]["merges"]]
    assert merges[:2] == [(ids[zero], ids[zero]), (ids[zero * 2], ids[zero * 2])]
    assert 2 * -tokenizer.min_token + 1 + 6 < len(ids) <= 300
    for chunk, token_ids in zip(chunks[:10], tokenizer.encode(chunks[:10]), strict=True):
        levels = levels_of(chunk[None], 10.0, tokenizer.dead_zone)[0]
        text = list((levels if layout == "frequency" else levels.T).ravel() - tokenizer.min_token)
        for pair in merges:
            place = 0
            while place < len(text) - 1:
                if (text[place], text[place + 1]) == pair:
                    spelt = document["model"]["merges"][merges.index(pair)]
                    text[place : place + 2] = [ids["".join(spelt)]]
                place += 1
        assert text == token_ids.tolist()


def test_the_same_chunks_give_the_same_files():
    fits = [fit_action_tokenizer([smooth(40, 10, 3)], vocab_size=200, longest_horizon=10).files for _ in range(2)]
    assert fits[0] == fits[1]


def test_horizons_and_widths_may_be_mixed_in_any_batches():
    chunks = [smooth(30, 15, 6), smooth(30, 5, 7), smooth(7, 30, 14)]
    tokenizer = fit_action_tokenizer(iter(chunks), vocab_size=512, longest_horizon=30)
    singly = fit_action_tokenizer(
        (c[i : i + 1] for c in chunks for i in range(len(c))), vocab_size=512, longest_horizon=30
    )
    assert tokenizer.files == singly.files
    for batch in chunks:
        horizon, width = batch.shape[1:]
        read = tokenizer.decode(tokenizer.encode(batch), horizon=horizon, action_dim=width)
        assert np.abs(levels_of(read - batch, 100.0)).max() <= 60


def test_without_chunks_there_are_levels_only():
    tokenizer = fit_action_tokenizer([], vocab_size=256, longest_horizon=16)
    assert tokenizer.table.size == 2 * 40 + 1 + 6
    chunk = smooth(1, 16, 2)
    read = tokenizer.decode(tokenizer.encode(chunk), horizon=16, action_dim=2)
    assert np.abs(read - chunk).max() < 0.2


def test_saved_and_loaded_it_is_the_same(tmp_path):
    tokenizer = TRAINED["dimension"]
    tokenizer.save(tmp_path)
    again = ActionTokenizer.load(tmp_path)
    assert again.files == tokenizer.files
    assert (again.layout, again.dead_zone, again.scale, again.vocab_size) == ("dimension", 0.6, 10.0, 300)
    chunks = smooth(5, 15, 4, seed=9)
    for mine, theirs in zip(tokenizer.encode(chunks), again.encode(chunks), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_one_that_is_written_by_frequency_is_read_by_the_plain_algorithm():
    tokenizer = TRAINED["frequency"]
    settings = json.loads(tokenizer.files["processor_config.json"])
    assert settings["processor_class"] == "UniversalActionProcessor"
    chunks = smooth(10, 15, 4, seed=3)
    for ids, read in zip(
        token_ids := tokenizer.encode(chunks), tokenizer.decode(token_ids, horizon=15, action_dim=4), strict=True
    ):
        plain = slow.decode(tokenizer.bpe, ids, scale=10.0, min_token=tokenizer.min_token, horizon=15, action_dim=4)
        np.testing.assert_allclose(read, plain, atol=1e-13)
    assert "processor_class" not in json.loads(TRAINED["dimension"].files["processor_config.json"])


def test_it_needs_fewer_tokens_than_the_reference_for_the_same_values():
    train, test = smooth(400, 15, 6), smooth(100, 15, 6, seed=1)
    bpe, min_token = slow.fit(train, vocab_size=512)
    reference = np.mean([len(slow.encode(bpe, chunk, scale=10.0, min_token=min_token)) for chunk in test])
    ours = fit_action_tokenizer([train], vocab_size=512, longest_horizon=15, dead_zone=0.5)
    token_ids = ours.encode(test)
    np.testing.assert_array_equal(
        levels_of(ours.decode(token_ids, horizon=15, action_dim=6), 10.0), levels_of(test, 10.0)
    )
    assert np.mean([len(ids) for ids in token_ids]) < 0.95 * reference


def test_tokens_are_counted_as_they_are_learnt():
    counts: list[int] = []
    chunks = [smooth(40, 10, 3)]
    tokenizer = fit_action_tokenizer(chunks, vocab_size=100, longest_horizon=10, on_token=counts.append)
    assert counts == list(range(counts[0], 101))
    assert tokenizer.table.size == 100


NO_NUMBER = smooth(2, 10, 3)
NO_NUMBER[1, 4, 2] = np.nan


@pytest.mark.parametrize(
    ("chunks", "changes", "complaint"),
    [
        (smooth(2, 10, 3), {"vocab_size": 40}, "vocab_size must be 65, the levels that scale 10 and 10 steps need"),
        (smooth(2, 10, 3), {"vocab_size": 70_000}, "to 32768; got 70000"),
        (smooth(2, 10, 3), {"layout": "spiral"}, "layout must be one of"),
        (smooth(2, 10, 3) + 3, {}, "normalised"),
        (np.ones((1, 40, 3)), {}, "no longer than the longest horizon"),
        (NO_NUMBER, {}, "NaN"),
    ],
)
def test_mistakes_are_explained(chunks: np.ndarray, changes: dict, complaint: str):
    arguments = {"vocab_size": 200, "longest_horizon": 10} | changes
    with pytest.raises(ValueError, match=complaint):
        fit_action_tokenizer([chunks], **arguments)


@pytest.mark.parametrize("dead_zone", [0.4, 1.1])
def test_a_dead_zone_out_of_range_is_refused(dead_zone: float):
    fit: Callable = fit_action_tokenizer
    with pytest.raises(ValueError, match="dead_zone"):
        fit([smooth(2, 10, 3)], vocab_size=200, longest_horizon=10, dead_zone=dead_zone)
