"""Chunks of a mixture: the right ones, as often as asked for, normalised over all datasets of an embodiment."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from molmoact2.data.chunk_stream import (
    BATCH,
    Episodes,
    apportion,
    choose_mixture,
    chunk_batches,
    chunks_in_order,
    open_sources,
)
from molmoact2.data.mixture import Group, Mixture
from small_recordings import record_motion

LENGTHS = (23, 7, 31, 12)


def one_by_one(actions: np.ndarray, lengths: tuple[int, ...], horizon: int) -> list[np.ndarray]:
    """The chunk from every frame on, in robot units."""
    chunks, begin = [], 0
    for length in lengths:
        episode = actions[begin : begin + length]
        for start in range(length):
            steps = [episode[min(step, length - 1)] for step in range(start, start + horizon)]
            chunks.append(np.stack(steps))
        begin += length
    return chunks


def of_one(*datasets: Path, **changes: object) -> Mixture:
    group = Group(tag="new:toy", rate=1.0, datasets=tuple(map(str, datasets)))
    return Mixture(name="toy", groups=(replace(group, **changes),))


def sorted_rows(chunks: np.ndarray) -> np.ndarray:
    rows = chunks.reshape(len(chunks), -1)
    return rows[np.lexsort(rows.T)]


def test_every_frame_begins_a_chunk_that_is_normalised_by_exact_quantiles(tmp_path: Path):
    actions = record_motion(tmp_path / "a", LENGTHS)
    (source,) = open_sources(of_one(tmp_path / "a"), num_chunks=10**6)
    assert source.num_chunks == len(actions), "no more chunks than frames"
    low, high = np.quantile(actions.astype(np.float64), [0.01, 0.99], axis=0)
    raw = np.array(one_by_one(actions, LENGTHS, 10))
    expected = np.clip(2 * (raw - low) / (high - low) - 1, -1, 1)
    expected[..., 2] = raw[..., 2]
    in_order = np.concatenate(list(chunks_in_order(source)))
    np.testing.assert_allclose(in_order, expected, atol=1e-5)
    drawn = np.concatenate(list(chunk_batches([source], seed=0)))
    np.testing.assert_array_equal(sorted_rows(drawn), sorted_rows(in_order))
    assert not np.array_equal(drawn, in_order)


def test_rates_of_datasets_differ_and_quantiles_are_pooled(tmp_path: Path):
    parts = [record_motion(tmp_path / "a", (400,)), record_motion(tmp_path / "b", (100,), fps=5, seed=1, offset=30)]
    mixture = of_one(tmp_path / "a", tmp_path / "b")
    (source,) = open_sources(mixture, num_chunks=300)
    assert [part.horizon for part in source.parts] == [10, 5]
    assert [part.num_chunks for part in source.parts] == [200, 100], "a dataset counts by the square root of its frames"
    low = np.quantile(np.concatenate(parts).astype(np.float64), 0.01, axis=0)
    np.testing.assert_allclose(source.scaling.offset[:2], low[:2], rtol=1e-6)
    shapes = {batch.shape[1:] for batch in chunk_batches([source], seed=0)}
    assert shapes == {(10, 3), (5, 3)}


def test_groups_share_by_their_rates_and_repeat_what_is_short(tmp_path: Path):
    record_motion(tmp_path / "long", (3 * BATCH,))
    record_motion(tmp_path / "short", (20, 10), seed=1)
    groups = (
        replace(of_one(tmp_path / "long").groups[0], rate=0.75),
        Group(tag="new:other", rate=0.25, datasets=(str(tmp_path / "short"),)),
    )
    sources = open_sources(Mixture(name="two", groups=groups), num_chunks=480)
    assert [source.num_chunks for source in sources] == [360, 120]
    drawn = np.concatenate(list(chunk_batches(sources[1:], seed=3)))
    _, counts = np.unique(drawn.reshape(120, -1), axis=0, return_counts=True)
    assert counts.sum() == 120
    assert (counts % 4 == 0).all(), "every frame has had its turn as often as the others"
    assert max(len(batch) for batch in chunk_batches(sources, seed=3)) <= BATCH


def test_the_seed_decides(tmp_path: Path):
    record_motion(tmp_path / "a", LENGTHS)
    (source,) = open_sources(of_one(tmp_path / "a"), num_chunks=30)
    first, again, other = (np.concatenate(list(chunk_batches([source], seed=seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(sorted_rows(first), sorted_rows(other))


def test_episodes_that_are_set_apart_are_in_neither_or_the_other_part(tmp_path: Path):
    actions = record_motion(tmp_path / "a", LENGTHS)
    everything = sorted_rows(
        np.concatenate(list(chunks_in_order(open_sources(of_one(tmp_path / "a"), num_chunks=1)[0])))
    )
    parts = []
    for are_apart in (False, True):
        episodes = Episodes(every=2, are_apart=are_apart)
        sources = open_sources(of_one(tmp_path / "a"), num_chunks=10**6, episodes=episodes)
        parts.append(np.concatenate(list(chunk_batches(sources, seed=0, episodes=episodes))))
    assert [len(part) for part in parts] == [23 + 31, 7 + 12]
    np.testing.assert_array_equal(sorted_rows(np.concatenate(parts)), everything)
    np.testing.assert_array_equal(actions[:, 2].max(), parts[0][..., 2].max())


def test_a_card_may_have_the_gripper_normalised(tmp_path: Path):
    record_motion(tmp_path / "a", LENGTHS, opening=100.0)
    (tmp_path / "card.toml").write_text('tag = "percent"\nnormalize_gripper = true\n')
    sources = open_sources(of_one(tmp_path / "a", tag=str(tmp_path / "card.toml")), num_chunks=50)
    grippers = np.concatenate(list(chunk_batches(sources, seed=0)))[..., 2]
    assert set(np.unique(grippers)) == {-1.0, 1.0}


def test_a_gripper_that_cannot_be_passed_through_is_an_error(tmp_path: Path):
    record_motion(tmp_path / "a", LENGTHS, opening=100.0)
    (tmp_path / "card.toml").write_text('tag = "percent"\nnormalize_gripper = false\n')
    with pytest.raises(ValueError, match=r"gripper of .* is passed through .* but 100 is in the data"):
        open_sources(of_one(tmp_path / "a", tag=str(tmp_path / "card.toml")), num_chunks=50)


def test_an_episode_part_without_frames_is_an_error(tmp_path: Path):
    record_motion(tmp_path / "a", (20,))
    with pytest.raises(ValueError, match="no frames in the episodes that count"):
        open_sources(of_one(tmp_path / "a"), num_chunks=50, episodes=Episodes(every=2, are_apart=True))


@pytest.mark.parametrize(("every", "are_apart"), [(1, False), (-2, False), (0, True)])
def test_sensible_parts_only(every: int, are_apart: bool):
    with pytest.raises(ValueError, match="from every 2nd on"):
        Episodes(every=every, are_apart=are_apart)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.integers(0, 10**6))
def test_shares_add_up_and_are_off_by_less_than_one(weights: list[float], total: int):
    shares = apportion(weights, total)
    assert shares.sum() == total
    assert (np.abs(shares - np.array(weights) / sum(weights) * total) < 1 + 1e-6).all()


def test_a_mixture_or_datasets():
    assert choose_mixture("openfast", (), None).name == "openfast"
    assert choose_mixture(None, ("x", "y"), "libero").groups[0].datasets == ("x", "y")
    for wrong in ((None, (), None), ("openfast", ("x",), None)):
        with pytest.raises(ValueError, match="either a mixture or datasets"):
            choose_mixture(*wrong)
    with pytest.raises(ValueError, match="says itself"):
        choose_mixture("openfast", (), "libero")
