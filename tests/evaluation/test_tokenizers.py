"""Measuring tokenizers: the numbers are those of a loop over chunks, and failures are failures."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from molmoact2.data.chunk_stream import ChunkSource, choose_mixture, chunk_batches, open_sources
from molmoact2.evaluation.token_files import read_chunks, read_token_lists, write_chunks, write_token_lists
from molmoact2.evaluation.tokenizers import (
    Bins,
    Measurement,
    comparison_table,
    dimension_table,
    draw_comparison,
    measure_tokenizer,
    write_comparison,
)
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.action_fit import fit_action_tokenizer
from small_recordings import NAMES, record_motion


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ChunkSource:
    folder = tmp_path_factory.mktemp("motion") / "dataset"
    record_motion(folder, (60, 45))
    return open_sources(choose_mixture(None, (str(folder),), "new:toy"), num_chunks=1000)[0]


@pytest.fixture(scope="module")
def chunks(source: ChunkSource) -> np.ndarray:
    return np.concatenate(list(chunk_batches([source], seed=0)))


@pytest.fixture(scope="module")
def tokenizer(chunks: np.ndarray) -> ActionTokenizer:
    return fit_action_tokenizer([chunks], vocab_size=200, longest_horizon=10)


@given(arrays(np.float32, (2, 3, 2), elements=st.floats(-1, 1, width=32)), st.integers(1, 300))
def test_bins_are_equal_parts(chunks: np.ndarray, num_bins: int):
    bins = Bins(num_bins=num_bins)
    token_ids = bins.encode(chunks)
    assert all(0 <= token < num_bins for ids in token_ids for token in ids)
    read, is_valid = bins.decode_batch(token_ids, horizon=3, action_dim=2)
    assert is_valid.all()
    assert np.abs(read - chunks).max() <= 1 / num_bins + 1e-6
    _, is_valid = bins.decode_batch([token_ids[0][:-1], token_ids[1]], horizon=3, action_dim=2)
    assert is_valid.tolist() == [False, True]


def test_bins_refuse_what_is_beyond_them():
    assert Bins().can_encode(np.array([[[1.0]], [[1.01]], [[np.nan]]])).tolist() == [True, False, False]


def test_the_numbers_are_those_of_a_loop(source: ChunkSource, chunks: np.ndarray, tokenizer: ActionTokenizer):
    measured = measure_tokenizer("mine", tokenizer, source, [chunks[:40], chunks[40:]])
    lengths, errors, in_units, ids = [], [], [], set()
    for chunk in chunks:
        (token_ids,) = tokenizer.encode(chunk[None])
        read = np.clip(tokenizer.decode_one(token_ids, horizon=10, action_dim=3), -1, 1)
        lengths.append(len(token_ids))
        ids |= set(token_ids.tolist())
        errors.append(np.abs(read - chunk))
        in_units.append(np.abs(source.scaling.restore(read) - source.scaling.restore(chunk)))
    assert (measured.num_chunks, measured.num_failures, measured.failure_rate) == (105, 0, 0.0)
    assert measured.tokens_per_chunk == pytest.approx(np.mean(lengths))
    assert measured.most_tokens == max(lengths)
    assert measured.values_per_token == pytest.approx(105 * 30 / sum(lengths))
    assert measured.ids_used == len(ids)
    assert measured.mean_error == pytest.approx(np.mean(errors))
    assert measured.largest_error == pytest.approx(np.max(errors))
    for i, name in enumerate(NAMES):
        assert measured.mean_error_by_dimension[name] == pytest.approx(np.array(in_units)[..., i].mean())
        assert measured.largest_error_by_dimension[name] == pytest.approx(np.array(in_units)[..., i].max())


class Faulty(Bins):
    """Cannot write a chunk that begins above 0, and forgets a token of one whose second number is below 0."""

    def can_encode(self, chunks: np.ndarray) -> np.ndarray:
        return chunks[:, 0, 0] <= 0

    def encode(self, chunks: np.ndarray) -> list[np.ndarray]:
        return [ids[int(chunk[0, 1] < 0) :] for ids, chunk in zip(super().encode(chunks), chunks, strict=True)]


def test_what_does_not_come_back_is_a_failure_and_no_error(source: ChunkSource, chunks: np.ndarray):
    measured = measure_tokenizer("faulty", Faulty(), source, [chunks])
    fine = chunks[(chunks[:, 0, 0] <= 0) & (chunks[:, 0, 1] >= 0)]
    assert 0 < measured.num_failures == len(chunks) - len(fine)
    alone = measure_tokenizer("bins", Bins(), source, [fine])
    assert measured.mean_error == alone.mean_error
    assert measured.largest_error < 1 / 256 + 1e-6
    with pytest.raises(ValueError, match="none of the 3 chunks"):
        measure_tokenizer("faulty", Faulty(), source, [np.ones((3, 10, 3))])


def test_tables_files_and_picture(source: ChunkSource, chunks: np.ndarray, tokenizer: ActionTokenizer, tmp_path: Path):
    measurements: list[Measurement] = [
        measure_tokenizer(name, one, source, [chunks]) for name, one in (("bins", Bins()), ("mine", tokenizer))
    ]
    assert comparison_table(measurements).row_count == 2
    assert dimension_table(measurements).row_count == 3
    write_comparison(tmp_path / "out.json", measurements, seed=3)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["seed"] == 3
    assert [row["tokens_per_chunk"] for row in written["measurements"]] == [30, measurements[1].tokens_per_chunk]
    draw_comparison(tmp_path / "out.png", measurements)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_token_files_come_back(tmp_path: Path):
    lists = [np.array([3, 1, 2]), np.array([], np.int64), np.array([7])]
    written = write_token_lists(tmp_path / "ids.jsonl", [(lists[:2], 4, 2), (lists[2:], 4, 2)])
    assert written == (3, 4)
    token_ids, horizon, action_dim = read_token_lists(tmp_path / "ids.jsonl")
    assert [ids.tolist() for ids in token_ids] == [[3, 1, 2], [], [7]]
    assert (horizon, action_dim) == (4, 2)


GOOD = '{"ids": [1], "horizon": 4, "action_dim": 2}'


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "it is empty"),
        ("[1, 2]", "line 1 must hold a JSON object"),
        (f"{GOOD}\n{GOOD[:-4]}", "line 2 is not valid JSON"),
        ('{"ids": [1.5], "horizon": 4, "action_dim": 2}', "every element of 'ids' must be of type int"),
        ('{"ids": [99999999999999999999], "horizon": 4, "action_dim": 2}', "is no token id"),
        ('{"ids": [1], "action_dim": 2}', "lacks the field 'horizon'"),
        ('{"ids": [1], "horizon": 0, "action_dim": 2}', r"the shape \[0, 2\]"),
        (GOOD + "\n" + GOOD.replace("4", "5"), "Decode those of a shape alone"),
    ],
)
def test_malformed_token_files_are_refused(tmp_path: Path, content: str, complaint: str):
    (tmp_path / "ids.jsonl").write_text(content)
    with pytest.raises(ValueError, match=complaint):
        read_token_lists(tmp_path / "ids.jsonl")


def test_missing_and_binary_token_files_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="missing"):
        read_token_lists(tmp_path / "ids.jsonl")
    (tmp_path / "ids.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="it is not text"):
        read_token_lists(tmp_path / "ids.jsonl")
    with pytest.raises(ValueError, match=r"must end in \.jsonl"):
        write_token_lists(tmp_path / "ids.txt", [])


def test_chunk_files_come_back(tmp_path: Path):
    chunks = np.arange(12.0).reshape(2, 3, 2)
    for name in ("a.npy", "b.npz"):
        write_chunks(tmp_path / name, chunks, np.array([True, False]))
    np.testing.assert_array_equal(read_chunks(tmp_path / "a.npy"), chunks)
    with np.load(tmp_path / "b.npz") as both:
        np.testing.assert_array_equal(both["chunks"], chunks)
        assert both["is_valid"].tolist() == [True, False]
    np.savez(tmp_path / "one.npz", anything=chunks)
    np.testing.assert_array_equal(read_chunks(tmp_path / "one.npz"), chunks)


def test_malformed_chunk_files_are_refused(tmp_path: Path):
    for name, array in {"flat": np.zeros((4, 2)), "ids": np.zeros((1, 2, 2), int), "none": np.zeros((0, 2, 2))}.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(ValueError, match=r"Save one array of floating-point numbers"):
            read_chunks(tmp_path / f"{name}.npy")
    whole = (tmp_path / "flat.npy").read_bytes()
    for name, content in {
        "cut.npy": whole[:-9],
        "text.npy": b"chunks",
        "cut.npz": b"PK\x03\x04",
        "empty.npy": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="no readable numpy file"):
            read_chunks(tmp_path / name)
    with pytest.raises(ValueError, match="the file is missing"):
        read_chunks(tmp_path / "gone.npy")
    with pytest.raises(ValueError, match=r"\.npy or \.npz"):
        read_chunks(tmp_path / "chunks.csv")
