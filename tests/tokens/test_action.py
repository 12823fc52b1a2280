"""OpenFAST: the released action tokenizer, id for id; and that nothing is lost in silence."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import slow_action_tokenizer as slow
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from golden_cases import GOLDEN
from molmoact2.tokens import ActionDecodeError, ActionTokenizer
from molmoact2.tokens.action import read_action_codes
from molmoact2.tokens.action_levels import LAYOUTS, cosine_basis, levels_in, levels_of, rows_of
from molmoact2.tokens.vocabulary import TokenFamily

FOLDER = GOLDEN / "fast_tokenizer"
TOKENIZER = ActionTokenizer.load(FOLDER)
FAMILY = TokenFamily(name="action", output=9, start=10, end=11, first=12, count=2048)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "golden.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def wide() -> ActionTokenizer:
    """In the released way, with so many levels that some characters are two bytes, and some tokens one of those."""
    chunks = np.random.default_rng(0).uniform(-1, 1, (40, 6, 3))
    bpe, min_token = slow.fit(chunks, vocab_size=800, scale=100.0)
    settings = {"scale": 100.0, "min_token": min_token, "vocab_size": 800}
    return ActionTokenizer.from_files(
        {"tokenizer.json": bpe.to_str().encode(), "processor_config.json": json.dumps(settings).encode()}
    )


def with_settings(**changes: object) -> ActionTokenizer:
    settings = json.loads(TOKENIZER.files["processor_config.json"]) | changes
    return ActionTokenizer.from_files({**TOKENIZER.files, "processor_config.json": json.dumps(settings).encode()})


def test_recorded_ids_and_values(recorded: dict[str, np.ndarray]):
    token_ids = TOKENIZER.encode(recorded["chunks"])
    for found, padded in zip(token_ids, recorded["token_ids"], strict=True):
        np.testing.assert_array_equal(found, padded[padded >= 0])
    decoded = TOKENIZER.decode(token_ids, horizon=30, action_dim=32)
    # The same double-precision sums in another order than the reference's fast transform.
    np.testing.assert_allclose(decoded, recorded["decoded"], rtol=0, atol=1e-13)


def test_a_chunk_at_a_time_is_the_same(recorded: dict[str, np.ndarray]):
    chunks = np.repeat(recorded["chunks"][:3], 50, axis=0)
    together = TOKENIZER.encode(chunks)
    read = TOKENIZER.decode(together, horizon=30, action_dim=32)
    for i in (0, 50, 100, 149):
        np.testing.assert_array_equal(TOKENIZER.encode(chunks[i : i + 1])[0], together[i])
        np.testing.assert_array_equal(TOKENIZER.decode_one(together[i], horizon=30, action_dim=32), read[i])


def test_it_does_what_the_plain_algorithm_does(recorded: dict[str, np.ndarray]):
    chunks = recorded["train"][:40, ::2, :7]
    how = {"scale": TOKENIZER.scale, "min_token": TOKENIZER.min_token}
    token_ids = [slow.encode(TOKENIZER.bpe, chunk, **how) for chunk in chunks]
    assert [ids.tolist() for ids in TOKENIZER.encode(chunks)] == token_ids
    plain = [slow.decode(TOKENIZER.bpe, ids, **how, horizon=15, action_dim=7) for ids in token_ids]
    np.testing.assert_allclose(
        TOKENIZER.decode([np.array(ids) for ids in token_ids], horizon=15, action_dim=7), plain, atol=1e-13
    )


@pytest.mark.parametrize("kind", ["released", "two bytes"])
@given(data=st.data())
def test_any_tokens_are_read_as_the_library_reads_them(kind: str, data: st.DataObject, wide: ActionTokenizer):
    tokenizer = {"released": TOKENIZER, "two bytes": wide}[kind]
    lists = data.draw(st.lists(st.lists(st.integers(-2, tokenizer.table.size + 1), max_size=4), max_size=5))
    width = data.draw(st.integers(1, 8))
    rows, is_valid = tokenizer.table.rows([np.array(ids, np.int64) for ids in lists], width)
    for ids, row, valid in zip(lists, rows, is_valid, strict=True):
        is_known = all(0 <= token < tokenizer.table.size for token in ids)
        text = tokenizer.bpe.decode(ids, skip_special_tokens=False) if is_known else ""
        assert valid == (len(text) == width and "\N{REPLACEMENT CHARACTER}" not in text)
        assert not valid or row.tolist() == [ord(character) for character in text]


def test_a_level_may_be_written_in_two_tokens(wide: ActionTokenizer):
    chunk = np.random.default_rng(1).uniform(-1, 1, (1, 6, 3))
    (token_ids,) = wide.encode(chunk)
    read = wide.decode([token_ids], horizon=6, action_dim=3)
    assert np.abs(cosine_basis(6) @ (read - chunk)).max() <= 0.5 / wide.scale + 1e-9
    assert (wide.table.lengths[token_ids] > 18).any(), "the test is about tokens that are half a level"
    half = token_ids[: int(np.flatnonzero(wide.table.lengths[token_ids] > 18)[0]) + 1]
    with pytest.raises(ActionDecodeError, match="part of a level"):
        wide.decode([half], horizon=6, action_dim=3)


@given(arrays(np.float64, (4, 3), elements=st.floats(-1, 1)))
def test_what_is_read_back_is_within_half_a_level(chunk: np.ndarray):
    read = TOKENIZER.decode(TOKENIZER.encode(chunk[None]), horizon=4, action_dim=3)[0]
    levels = cosine_basis(4) @ (read - chunk) * TOKENIZER.scale
    assert np.abs(levels).max() <= 0.5 + 1e-9


@given(arrays(np.float64, (1, 3, 2), elements=st.floats(-1, 1)), st.floats(0.5, 1))
def test_the_dead_zone_moves_levels_towards_zero(chunk: np.ndarray, dead_zone: float):
    coefficients = 10 * cosine_basis(3) @ chunk
    levels = levels_of(chunk, 10.0, dead_zone)
    assert (levels * coefficients >= 0).all()
    beyond = np.abs(coefficients) - np.abs(levels)
    assert (beyond <= dead_zone + 1e-9).all()
    assert (beyond[levels != 0] >= dead_zone - 1 - 1e-9).all()
    np.testing.assert_array_equal(levels_of(chunk, 10.0, 0.5), np.rint(coefficients))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_have_inverses(layout: str):
    levels = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    rows = rows_of(levels, layout)
    np.testing.assert_array_equal(levels_in(rows, layout, 3, 4), levels)
    assert rows[0, 1] == {"frequency": levels[0, 0, 1], "dimension": levels[0, 1, 0]}[layout]


@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_the_cosine_transform_is_orthonormal(length: int):
    basis = cosine_basis(length)
    np.testing.assert_allclose(basis @ basis.T, np.eye(length), atol=1e-12)
    np.testing.assert_allclose(basis[0], 1 / np.sqrt(length))


@pytest.mark.parametrize("value", [1e4, -1e4, -3.0])
def test_a_level_that_cannot_be_written_is_an_error_not_a_gap(value: float):
    chunks = np.zeros((3, 4, 2))
    chunks[1] = value
    with pytest.raises(ValueError, match="cannot be written"):
        TOKENIZER.encode(chunks)
    assert TOKENIZER.can_encode(chunks).tolist() == [True, False, True]


def test_nan_is_an_error():
    chunks = np.full((1, 4, 2), np.nan)
    with pytest.raises(ValueError, match="NaN"):
        TOKENIZER.encode(chunks)
    assert not TOKENIZER.can_encode(chunks).any()


def test_no_chunks_are_no_tokens():
    assert TOKENIZER.encode(np.zeros((0, 4, 2))) == []
    chunks, is_valid = TOKENIZER.decode_batch([], horizon=4, action_dim=2)
    assert chunks.shape == (0, 4, 2)
    assert is_valid.shape == (0,)


@pytest.mark.parametrize(("horizon", "action_dim"), [(29, 32), (30, 31), (1, 1)])
def test_a_wrong_length_is_an_error_not_zeros(recorded: dict[str, np.ndarray], horizon: int, action_dim: int):
    padded = recorded["token_ids"][0]
    with pytest.raises(ActionDecodeError, match="960 levels"):
        TOKENIZER.decode([padded[padded >= 0]], horizon=horizon, action_dim=action_dim)


def test_unknown_ids_are_an_error():
    with pytest.raises(ActionDecodeError, match=r"9999.* unknown"):
        TOKENIZER.decode([np.array([5, 9999])], horizon=1, action_dim=2)


def test_in_a_batch_what_cannot_be_read_is_masked():
    good = TOKENIZER.encode(np.full((1, 4, 2), 0.25))[0]
    lists = [good, good[:-1], np.array([], np.int64), good, np.append(good, good), np.array([10**9]), np.array([-1])]
    chunks, is_valid = TOKENIZER.decode_batch(lists, horizon=4, action_dim=2)
    assert is_valid.tolist() == [True, False, False, True, False, False, False]
    np.testing.assert_array_equal(np.isnan(chunks).all(axis=(1, 2)), ~is_valid)
    np.testing.assert_array_equal(chunks[0], TOKENIZER.decode_one(good, horizon=4, action_dim=2))
    np.testing.assert_array_equal(chunks[3], chunks[0])


@pytest.mark.parametrize("ids", [[], [10, 12], [12, 11], [11, 12, 10], [10, 12, 5, 11]])
def test_text_that_holds_no_whole_action_is_an_error(ids: list[int]):
    with pytest.raises(ActionDecodeError):
        read_action_codes(np.array(ids, np.int64), FAMILY)


def test_codes_are_read_between_their_marks():
    assert read_action_codes(np.array([10, 12, 14, 11, 3]), FAMILY).tolist() == [0, 2]


def test_files_are_saved_unchanged(tmp_path: Path):
    TOKENIZER.save(tmp_path)
    for name in ("tokenizer.json", "processor_config.json"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_workers_get_the_same_tokenizer():
    chunk = np.full((1, 4, 2), 0.25)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(TOKENIZER)).encode(chunk), TOKENIZER.encode(chunk))


def test_fields_that_the_released_files_lack_have_its_defaults():
    assert (TOKENIZER.layout, TOKENIZER.dead_zone) == ("frequency", 0.5)
    other = with_settings(layout="dimension", dead_zone=0.75)
    assert (other.layout, other.dead_zone) == ("dimension", 0.75)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"scale": "ten"}, "'scale' must be of type float, got 'ten'"),
        ({"scale": 0}, "'scale' must be positive"),
        ({"min_token": 0.5}, "'min_token' must be of type int"),
        ({"layout": "spiral"}, "'layout' must be one of frequency, dimension, got 'spiral'"),
        ({"dead_zone": 0.2}, "'dead_zone' must be from 0.5 to 1"),
    ],
)
def test_malformed_settings_are_refused(changes: dict[str, object], complaint: str):
    with pytest.raises(ValueError, match=complaint):
        with_settings(**changes)


def test_an_unknown_decoder_is_refused():
    document = json.loads(TOKENIZER.files["tokenizer.json"]) | {"decoder": None}
    files = {**TOKENIZER.files, "tokenizer.json": json.dumps(document).encode()}
    with pytest.raises(ValueError, match="one of the decoders ByteLevel, Fuse, got None"):
        ActionTokenizer.from_files(files).encode(np.zeros((1, 2, 2)))


def test_a_folder_that_is_no_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"lacks tokenizer.json and processor_config.json"):
        ActionTokenizer.load(tmp_path)
