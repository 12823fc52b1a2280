"""Robot units to the network's range and back, and the file that says how."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golden_cases import CASES, CHECKPOINTS, GOLDEN, Case
from molmoact2.processing import NormStats
from molmoact2.processing.norm_stats import FeatureStats

DOCUMENT = json.loads((GOLDEN / "tiny" / "norm_stats.json").read_text())
STATS = {
    "min": [-4.0, 0.0, 5.0], "max": [4.0, 1.0, 5.0], "mean": [1.0, 0.5, 5.0], "std": [2.0, 0.1, 0.0],
    "q01": [-2.0, 0.1, 5.0], "q99": [2.0, 0.9, 5.0], "q10": [-1.0, 0.2, 5.0], "q90": [1.0, 0.8, 5.0],
    "mask": [True, False, True], "names": ["a", "gripper", "c"], "count": [7],
}  # fmt: skip


def scaling(mode: str, **changes: object):
    return FeatureStats.read({**STATS, **changes}, mode, "stats").scaling(mode)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_recorded_states(case: Case):
    normalized = case.processor.tag(case.tag).state_scaling.normalize(case["state"])
    assert normalized.dtype == np.float32
    np.testing.assert_array_equal(normalized, case["normalized_state"])


@pytest.mark.parametrize(
    ("mode", "normalized", "restored"),
    [
        ("q01_q99", [0.5, 3.0, 0.0], [1.0, 1.0, 5.0]),
        ("q10_q90", [1.0, 3.0, 0.0], [1.0, 1.0, 5.0]),
        ("min_max", [0.25, 3.0, 0.0], [1.0, 1.0, 5.0]),
        ("mean_std", [0.0, 3.0, 0.0], [1.0, 3.0, 5.0]),
        ("none", [1.0, 3.0, 9.0], [1.0, 3.0, 9.0]),
    ],
)
def test_modes(mode: str, normalized: list[float], restored: list[float]):
    """Dimension 0 is scaled, 1 is passed through (and clipped on the way back when bounded), 2 never changed."""
    scale = scaling(mode)
    found = scale.normalize(np.array([1.0, 3.0, 9.0]))
    np.testing.assert_allclose(found, normalized, rtol=1e-6)
    np.testing.assert_allclose(scale.restore(found), restored, rtol=1e-6)
    assert scale.restore(found).dtype == np.float32


def test_values_beyond_the_bounds_are_clipped_both_ways():
    scale = scaling("q01_q99", mask=None)
    np.testing.assert_array_equal(scale.normalize(np.array([9.0, -9.0, 0.0])), [1, -1, 0])
    np.testing.assert_allclose(scale.restore(np.array([9.0, -9.0, 0.0])), [2.0, 0.1, 5.0], rtol=1e-6)


@given(st.sampled_from(["none", "mean_std", "min_max", "q01_q99", "q10_q90"]), st.floats(-1, 1), st.floats(0.2, 0.8))
def test_restoring_undoes_normalising_within_the_bounds(mode: str, first: float, second: float):
    scale, values = scaling(mode, mask=None), np.array([[first, second, 5.0]])
    np.testing.assert_allclose(scale.restore(scale.normalize(values)), values, atol=1e-5)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_what_is_read_is_what_is_saved(checkpoint: str):
    document = json.loads((GOLDEN / checkpoint / "norm_stats.json").read_text())
    stats = NormStats.read(document)
    assert json.loads(json.dumps(stats.document)) == document
    assert stats.tag("toy_arm").action.width == 5
    assert stats.tag("toy_arm").camera_keys == ("observation.images.front", "observation.images.wrist")


def test_older_files_are_read():
    old = copy.deepcopy(DOCUMENT)
    del old["norm_mode"], old["format"], old["metadata_by_tag"]["toy_arm"]["camera_keys"]
    del old["metadata_by_tag"]["toy_wide"]["state_stats"]["mask"]
    stats = NormStats.read(old)
    assert stats.tag("toy_arm").mode == "min_max"
    assert stats.tag("toy_arm").camera_keys == ()
    assert stats.tag("toy_wide").state_scaling.scaled.all()


def broken(path: str, value: object) -> dict:
    document = copy.deepcopy(DOCUMENT)
    *parents, last = path.split("/")
    place = document
    for name in parents:
        place = place[name]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "molmoact2_norm_stats.v9", "v9"),
        ("norm_mode", "quantile", "quantile"),
        ("metadata_by_tag", [], "metadata_by_tag"),
        ("metadata_by_tag/toy_arm", 5, "toy_arm"),
        ("metadata_by_tag/toy_arm/n_action_steps", 7, "n_action_steps must be 1 to action_horizon"),
        ("metadata_by_tag/toy_arm/action_horizon", True, "action_horizon"),
        ("metadata_by_tag/toy_arm/setup_type", None, "setup_type"),
        ("metadata_by_tag/toy_arm/camera_keys", [1], "camera_keys"),
        ("metadata_by_tag/toy_arm/state_stats/q01", None, "lacks q01"),
        ("metadata_by_tag/toy_arm/state_stats/q99", [1.0], "one length"),
        ("metadata_by_tag/toy_arm/state_stats/q99", ["1"] * 5, "q99"),
        ("metadata_by_tag/toy_arm/state_stats/mask", [1] * 5, "mask"),
        ("metadata_by_tag/toy_arm/action_stats/mean", [float("nan")] * 5, "mean must be finite"),
    ],
)
def test_malformed_statistics_are_refused(path: str, value: object, message: str):
    with pytest.raises(ValueError, match=message):
        NormStats.read(broken(path, value))


def test_tags():
    stats = NormStats.read(DOCUMENT)
    with pytest.raises(ValueError, match="Did you mean 'toy_arm'"):
        stats.tag("toy_rm")
    with pytest.raises(ValueError, match="name one: toy_arm, toy_wide"):
        stats.tag(None)
