"""OpenFAST: the released action tokenizer, id for id."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from golden_cases import GOLDEN
from molmoact2.tokens import ActionDecodeError, ActionTokenizer
from molmoact2.tokens.action import read_action_codes
from molmoact2.tokens.action_levels import cosine_basis
from molmoact2.tokens.vocabulary import TokenFamily

FOLDER = GOLDEN / "fast_tokenizer"
TOKENIZER = ActionTokenizer.load(FOLDER)
FAMILY = TokenFamily(name="action", output=9, start=10, end=11, first=12, count=2048)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "golden.npz") as file:
        return dict(file)


def test_recorded_ids_and_values(recorded: dict[str, np.ndarray]):
    token_ids = TOKENIZER.encode(recorded["chunks"])
    for found, padded in zip(token_ids, recorded["token_ids"], strict=True):
        np.testing.assert_array_equal(found, padded[padded >= 0])
    decoded = TOKENIZER.decode(token_ids, horizon=30, action_dim=32)
    # The same double-precision sums in another order than the reference's fast transform.
    np.testing.assert_allclose(decoded, recorded["decoded"], rtol=0, atol=1e-13)


def test_a_chunk_at_a_time_is_the_same(recorded: dict[str, np.ndarray]):
    chunks = recorded["chunks"][:3]
    for one, several in zip(chunks, TOKENIZER.encode(chunks), strict=True):
        np.testing.assert_array_equal(TOKENIZER.encode(one[None])[0], several)


@given(arrays(np.float64, (4, 3), elements=st.floats(-1, 1)))
def test_what_is_read_back_is_within_half_a_level(chunk: np.ndarray):
    read = TOKENIZER.decode(TOKENIZER.encode(chunk[None]), horizon=4, action_dim=3)[0]
    levels = cosine_basis(4) @ (read - chunk) * TOKENIZER.scale
    assert np.abs(levels).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("length", [1, 2, 7, 30])
def test_the_cosine_transform_is_orthonormal(length: int):
    basis = cosine_basis(length)
    np.testing.assert_allclose(basis @ basis.T, np.eye(length), atol=1e-12)
    np.testing.assert_allclose(basis[0], 1 / np.sqrt(length))


def test_a_level_that_cannot_be_written_is_an_error_not_a_gap():
    with pytest.raises(ValueError, match="cannot be written"):
        TOKENIZER.encode(np.full((1, 4, 2), 1e4))


@pytest.mark.parametrize(("horizon", "action_dim"), [(29, 32), (30, 31), (1, 1)])
def test_a_wrong_length_is_an_error_not_zeros(recorded: dict[str, np.ndarray], horizon: int, action_dim: int):
    padded = recorded["token_ids"][0]
    with pytest.raises(ActionDecodeError, match="960 levels"):
        TOKENIZER.decode([padded[padded >= 0]], horizon=horizon, action_dim=action_dim)


def test_unknown_ids_are_an_error():
    with pytest.raises(ActionDecodeError, match=r"9999.* unknown"):
        TOKENIZER.decode([np.array([5, 9999])], horizon=1, action_dim=2)


@pytest.mark.parametrize("ids", [[], [10, 12], [12, 11], [11, 12, 10], [10, 12, 5, 11]])
def test_text_that_holds_no_whole_action_is_an_error(ids: list[int]):
    with pytest.raises(ActionDecodeError):
        read_action_codes(np.array(ids, np.int64), FAMILY)


def test_codes_are_read_between_their_marks():
    assert read_action_codes(np.array([10, 12, 14, 11, 3]), FAMILY).tolist() == [0, 2]


def test_files_are_saved_unchanged(tmp_path):
    TOKENIZER.save(tmp_path)
    for name in ("tokenizer.json", "processor_config.json"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_a_folder_that_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"lacks tokenizer.json and processor_config.json"):
        ActionTokenizer.load(tmp_path)
    TOKENIZER.save(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"scale": "ten", "min_token": 0, "vocab_size": 5}')
    with pytest.raises(ValueError, match="'scale' must be of type float, got 'ten'"):
        ActionTokenizer.load(tmp_path)
