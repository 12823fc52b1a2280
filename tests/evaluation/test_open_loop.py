"""Open loop: closed forms, plain twins of what is vectorised, and padding that is never counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import HORIZON, LENGTH, REACH, TAG, write_lessons

from molmoact2.evaluation.open_loop import (
    Target,
    action_span,
    episode_rows,
    hold_still,
    imitate_nearest,
    make_target,
    measure_errors,
    measure_saturation,
    nearest_rows,
    sample_frames,
)
from molmoact2.processing.normalize import scaling_of


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_lessons(tmp_path_factory.mktemp("lessons") / "data")


def random_target(seed, *, num=5, horizon=4, width=3):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, horizon + 1, size=num)
    return Target(
        rows=np.arange(num),
        states=rng.normal(size=(num, width)).astype(np.float32),
        actions=rng.normal(size=(num, horizon, width)).astype(np.float32),
        is_valid=np.arange(horizon) < lengths[:, None],
        span=np.array([2.0, 0.0, 5.0])[:width],
    )


def test_what_was_recorded_has_no_error():
    target = random_target(0)
    errors = measure_errors(target.actions, target)
    assert errors.overall == 0
    assert not errors.mean_absolute.any()
    assert not errors.root_mean_square.any()
    assert not errors.percentile_95.any()
    assert not target.error_sums(target.actions).any()


@given(seed=st.integers(0, 1000))
def test_errors_are_those_of_a_loop(seed):
    target = random_target(seed)
    plans = np.random.default_rng(seed + 1).normal(size=target.actions.shape)
    steps = [(n, h) for n in range(5) for h in range(4) if target.is_valid[n, h]]
    apart = np.array(
        [[abs(float(plans[n, h, d]) - float(target.actions[n, h, d])) for d in range(3)] for n, h in steps]
    )
    errors = measure_errors(plans, target)
    np.testing.assert_allclose(errors.mean_absolute, apart.mean(axis=0))
    np.testing.assert_allclose(errors.root_mean_square, np.sqrt((apart**2).mean(axis=0)))
    np.testing.assert_allclose(errors.percentile_95, [np.quantile(column, 0.95) for column in apart.T])
    np.testing.assert_allclose(errors.relative, [apart[:, 0].mean() / 2, np.nan, apart[:, 2].mean() / 5])
    shares = (apart[:, 0] / 2 + apart[:, 2] / 5) / 2
    assert errors.overall == pytest.approx(shares.mean())
    for step in range(4):
        here = [index for index, (_, h) in enumerate(steps) if h == step]
        wanted = shares[here].mean() if here else np.nan
        np.testing.assert_allclose(errors.relative_by_step[step], wanted)
        np.testing.assert_allclose(errors.by_step[step], apart[here].mean(axis=0) if here else [np.nan] * 3)
    sums = target.error_sums(plans)
    np.testing.assert_allclose(sums, [sum(shares[i] for i, (m, _) in enumerate(steps) if m == n) for n in range(5)])
    assert sums.sum() / len(steps) == pytest.approx(errors.overall)


def test_steps_beyond_the_end_do_not_count():
    target = random_target(3)
    plans = np.where(target.is_valid[..., None], target.actions, 1e6)
    assert measure_errors(plans, target).overall == 0
    assert np.nanmax(measure_errors(plans, target).by_step) == 0


def test_frames_are_of_the_episodes_that_were_named(dataset):
    rows = sample_frames(dataset, [2, 5], 12, seed=1)
    assert len(np.unique(rows)) == len(rows) == 12
    assert (np.diff(rows) > 0).all()
    assert set(dataset.column("episode_index")[rows]) == {2, 5}
    assert rows.tolist() == sample_frames(dataset, [5, 2, 2], 12, seed=1).tolist()
    assert rows.tolist() != sample_frames(dataset, [2, 5], 12, seed=2).tolist()
    assert sample_frames(dataset, [2, 5], 1000).tolist() == [*range(20, 30), *range(50, 60)]


@pytest.mark.parametrize(
    ("episodes", "num_frames", "complaint"),
    [
        ([], 1, "At least one episode"),
        ([3, 12], 1, r"no episode \[12\]"),
        ([-1], 1, "no episode"),
        ([1], 0, "At least 1 frame"),
    ],
)
def test_what_is_not_there_cannot_be_looked_at(dataset, episodes, num_frames, complaint):
    with pytest.raises(ValueError, match=complaint):
        sample_frames(dataset, episodes, num_frames)


def test_the_target_ends_with_the_episode(dataset):
    rows = np.array([0, LENGTH - 1])
    target = make_target(dataset, rows, HORIZON, np.ones(6))
    assert target.is_valid.sum(axis=1).tolist() == [LENGTH, 1]
    np.testing.assert_array_equal(target.actions[1, 0], dataset.actions[LENGTH - 1])
    with pytest.raises(ValueError, match="never change"):
        make_target(dataset, rows, HORIZON, np.zeros(6))


def test_the_span_is_that_of_the_quantiles():
    actions = np.stack([np.linspace(0, 100, 101), np.full(101, 3.0)], axis=1)
    np.testing.assert_allclose(action_span(actions), [98, 0])


def test_holding_still_depends_on_what_an_action_means():
    states = np.arange(6, dtype=np.float32).reshape(2, 3)
    still = hold_still("absolute joint pose", states, 4, 3)
    assert still is not None
    assert (still == states[:, None]).all()
    assert still.shape == (2, 4, 3)
    assert hold_still("absolute joint pose", states, 4, 2) is None
    delta = hold_still("delta end-effector pose", states, 4, 2)
    assert delta is not None
    assert delta.shape == (2, 4, 2)
    assert not delta.any()
    assert hold_still("", states, 4, 3) is None
    assert hold_still("joint velocity", states, 4, 3) is None


@given(seed=st.integers(0, 1000), num_queries=st.integers(1, 7))
def test_the_nearest_is_that_of_all_distances(seed, num_queries):
    rng = np.random.default_rng(seed)
    known = rng.normal(size=(40, 3)) * [1, 100, 0] + 7
    queries = rng.normal(size=(num_queries, 3)) * [1, 100, 0] + 7
    unit = np.where(known.std(axis=0) > 1e-6, known.std(axis=0), 1)
    apart = (((known[None] - queries[:, None]) / unit) ** 2).sum(axis=-1)
    assert nearest_rows(known, queries).tolist() == apart.argmin(axis=1).tolist()


def test_neighbours_are_found_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    known, queries = rng.normal(size=(50, 4)), rng.normal(size=(23, 4))
    whole = nearest_rows(known, queries)
    monkeypatch.setattr("molmoact2.evaluation.open_loop.MOST_DISTANCES", 3 * 50)
    assert nearest_rows(known, queries).tolist() == whole.tolist()


def test_the_nearest_training_state_gives_its_actions(dataset):
    rows = episode_rows(dataset, [7])
    plans = imitate_nearest(dataset, [3, 7], dataset.states[rows], HORIZON)
    np.testing.assert_array_equal(plans, np.broadcast_to(dataset.actions[rows[0]], plans.shape))
    other = imitate_nearest(dataset, [3], dataset.states[rows], HORIZON)
    np.testing.assert_array_equal(other, np.broadcast_to(dataset.actions[30], other.shape))


def saturation_of(mode, values, predicted=None, *, constant=False, scaled=True):
    stats = {"min": [0.0], "max": [10.0], "q01": [1.0], "q99": [9.0], "mean": [5.0], "std": [2.0]}
    scaling = scaling_of(
        lambda name: np.array(stats[name]), mode=mode, scaled=np.array([scaled]), constant=np.array([constant])
    )
    return measure_saturation(scaling, np.array(values)[:, None], predicted)


def test_values_beyond_the_range_are_counted():
    part = saturation_of("q01_q99", [0.0, 1.0, 5.0, 9.5], np.array([[[1.0], [2.0]], [[9.0], [9.0]]]))
    assert (part.low.item(), part.high.item()) == (1, 9)
    assert part.recorded_outside.tolist() == [0.5]
    assert part.recorded_at_bound.tolist() == [0.75]
    assert part.predicted_at_bound is not None
    assert part.predicted_at_bound.tolist() == [0.75]
    assert saturation_of("min_max", [0.0, 10.0]).recorded_outside.tolist() == [0]


@pytest.mark.parametrize("kind", [{"mode": "mean_std"}, {"mode": "none"}, {"mode": "min_max", "constant": True}])
def test_without_a_range_nothing_is_beyond_it(kind):
    part = saturation_of(values=[-1e9, 1e9], predicted=np.array([[[5.0]]]), **kind)
    assert (part.low.item(), part.high.item()) == (-np.inf, np.inf)
    assert part.recorded_outside.tolist() == part.recorded_at_bound.tolist() == [0]
    assert part.predicted_at_bound is not None
    assert part.predicted_at_bound.tolist() == [0]


def test_a_dimension_that_is_passed_through_has_the_range_of_the_network():
    assert saturation_of("min_max", [0.5, 2.0], scaled=False).recorded_outside.tolist() == [0.5]


def test_a_checkpoint_says_as_its_bound_what_is_beyond_it():
    ones = np.full((3, 6), 5.0, np.float32)
    part = measure_saturation(TAG.action_scaling, np.zeros((1, 6)), TAG.action_scaling.restore(ones))
    assert part.predicted_at_bound is not None
    assert part.predicted_at_bound.tolist() == [1] * 6


def test_lessons_are_as_they_say(dataset):
    reach = (dataset.actions - dataset.states)[:, 0]
    assert set(np.round(np.abs(reach) * 255 / REACH).astype(int)) <= {50, 100, 150, 200}
    assert (reach < 0).any()
    assert (reach > 0).any()
