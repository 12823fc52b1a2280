"""What a policy acts on: made-up policies that use a known part of what they are given are found out."""

import numpy as np
import pytest
from lessons import HORIZON, asleep, attentive, blind, deaf, repeated, write_lessons

from molmoact2.evaluation.open_loop import action_span, make_target
from molmoact2.evaluation.sensitivity import (
    AS_RECORDED,
    AVERAGE_STATE,
    FRAMES_PER_BATCH,
    NEUTRAL_INSTRUCTION,
    NEUTRAL_WORDS,
    OTHER_NOISE,
    OTHER_WORDS,
    Effect,
    Interval,
    Variation,
    answered,
    ask_about,
    make_variations,
    measure_effects,
    mildest,
    observation_at,
    ratio_interval,
)

CAMERAS = ("front", "wrist")
ROWS = np.arange(0, 120, 4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_lessons(tmp_path_factory.mktemp("lessons") / "data")


def variations_of(dataset):
    return make_variations(CAMERAS, list(dataset.tasks.values()), dataset.states.mean(axis=0))


def effects_of(ask, dataset):
    variations = variations_of(dataset)
    plans = ask_about(ask, dataset, ROWS, variations, cameras=CAMERAS, show_progress=False)
    return measure_effects(plans, make_target(dataset, ROWS, HORIZON, action_span(dataset.actions)), variations)


def test_every_part_is_taken_away_once(dataset):
    names = [variation.name for variation in variations_of(dataset)]
    assert names[0] == AS_RECORDED
    assert set(names[1:]) == {
        *(f"{what} {shade}" for what in ("front", "wrist", "all cameras") for shade in ("grey", "black")),
        *(OTHER_NOISE, OTHER_WORDS, NEUTRAL_WORDS, AVERAGE_STATE),
    }


def test_one_camera_is_all_of_them():
    names = [variation.name for variation in make_variations(["top"], ["a", "b"], np.zeros(2))]
    assert [name for name in names if "grey" in name] == ["all cameras grey"]


def test_only_what_is_named_changes(dataset):
    before = observation_at(dataset, 15, CAMERAS)
    after = {variation.name: variation.change(before, 15) for variation in variations_of(dataset)}
    assert after[AS_RECORDED] is before
    for name, observation in after.items():
        blank = {c for c in CAMERAS if f"{c} " in name} | (set(CAMERAS) if name.startswith("all") else set())
        for camera in CAMERAS:
            level = 128 if "grey" in name else 0
            wanted = np.full((16, 16, 3), level, np.uint8) if camera in blank else before.images[camera]
            np.testing.assert_array_equal(observation.images[camera], wanted)
        assert (observation.state == before.state).all() == (name != AVERAGE_STATE)
        assert (observation.instruction == before.instruction) == (name not in (OTHER_WORDS, NEUTRAL_WORDS))
    assert after[OTHER_WORDS].instruction in dataset.tasks.values()
    assert after[NEUTRAL_WORDS].instruction == NEUTRAL_INSTRUCTION
    np.testing.assert_allclose(after[AVERAGE_STATE].state, dataset.states.mean(axis=0))


def test_without_another_instruction_none_is_swapped():
    names = [variation.name for variation in make_variations(CAMERAS, ["go", "go"], np.zeros(6))]
    assert OTHER_WORDS not in names
    assert NEUTRAL_WORDS in names


def test_who_does_not_look_is_not_disturbed_by_blank_cameras(dataset):
    effects = effects_of(blind, dataset)
    for name, effect in effects.items():
        if name != AVERAGE_STATE:
            assert effect.change == (0, 0, 0), name
            assert effect.ratio == (1, 1, 1), name
            assert effect.answer == "ignores"
    assert effects[AVERAGE_STATE].change.low > 0


def test_who_looks_and_listens_is(dataset):
    effects = effects_of(attentive, dataset)
    used = {name for name, effect in effects.items() if effect.answer == "relies"}
    assert used == {
        *(f"{what} {shade}" for what in ("front", "all cameras") for shade in ("grey", "black")),
        *(OTHER_WORDS, NEUTRAL_WORDS, AVERAGE_STATE),
    }
    assert effects["wrist grey"].ratio == (1, 1, 1)


def test_who_does_not_listen_is_not_disturbed_by_words(dataset):
    effects = effects_of(deaf, dataset)
    assert effects[OTHER_WORDS].change == effects[NEUTRAL_WORDS].change == (0, 0, 0)
    assert effects["front black"].change.low > 0


def test_who_does_the_same_everywhere_is_disturbed_by_nothing(dataset):
    assert {effect.answer for effect in effects_of(asleep, dataset).values()} == {"ignores"}


def test_who_makes_no_error_has_no_ratio(dataset):
    target = make_target(dataset, ROWS, HORIZON, action_span(dataset.actions))
    place = {int(row): index for index, row in enumerate(ROWS)}
    effects = effects_of(lambda _seen, rows, _draw: target.actions[[place[int(row)] for row in rows]], dataset)
    assert all(np.isnan(effect.ratio).all() and effect.answer == "unclear" for effect in effects.values())


def test_frames_are_asked_about_in_bounded_batches_with_their_own_rows(dataset):
    asked = []

    def ask(observations, rows, draw):
        asked.append((len(observations), draw))
        return repeated([np.full(6, row + draw) for row in rows])

    plans = ask_about(ask, dataset, ROWS, variations_of(dataset), cameras=CAMERAS, show_progress=False)
    assert max(count for count, _ in asked) == FRAMES_PER_BATCH
    np.testing.assert_array_equal(plans[AS_RECORDED][:, 0, 0], ROWS)
    np.testing.assert_array_equal(plans[OTHER_NOISE][:, 0, 0], ROWS + 1)


def test_a_camera_that_was_not_recorded_is_named(dataset):
    with pytest.raises(ValueError, match=r"looks through \['top'\].*front"):
        observation_at(dataset, 0, ["front", "top"])


def test_frames_without_an_answer_are_left_out_of_all():
    plans = {name: np.zeros((3, 2, 1), np.float32) for name in "ab"}
    plans["b"][1, 1] = np.nan
    assert answered(plans).tolist() == [True, False, True]
    plans["a"][[0, 2]] = np.nan
    with pytest.raises(ValueError, match="finished no action in all variations of any of 3 frames"):
        answered(plans)


def test_an_interval_keeps_pairs_together():
    below = np.random.default_rng(0).uniform(1, 100, size=50)
    assert ratio_interval(3 * below, below) == pytest.approx((3, 3, 3))


def test_an_interval_is_that_of_resampled_pairs():
    rng = np.random.default_rng(1)
    above, below = rng.uniform(1, 2, size=40), rng.uniform(1, 2, size=40)
    value, low, high = ratio_interval(above, below)
    assert value == pytest.approx(above.sum() / below.sum())
    drawn = rng.integers(40, size=(4000, 40))
    wanted = np.quantile(above[drawn].sum(axis=1) / below[drawn].sum(axis=1), [0.025, 0.975])
    assert (low, high) == pytest.approx(wanted, abs=0.01)


def test_more_frames_make_an_interval_narrower():
    rng = np.random.default_rng(2)
    above, below = rng.uniform(1, 2, size=(2, 400))
    few, many = ratio_interval(above[:20], below[:20]), ratio_interval(above, below)
    assert many.high - many.low < 0.5 * (few.high - few.low)


def effect(low, high, *, subject="words", value=None):
    ratio = Interval((low + high) / 2 if value is None else value, low, high)
    variation = Variation(name=f"{low}", subject=subject, change=lambda observation, _row: observation)
    return Effect(variation=variation, change=Interval(0, 0, 0), ratio=ratio)


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (1.51, 3, "relies"),
        (1.5, 3, "uses"),
        (1.11, 1.2, "uses"),
        (1.1, 1.2, "unclear"),
        (0.8, 1.2, "unclear"),
        (0.9, 1.09, "ignores"),
        (0.2, 0.3, "ignores"),
        (np.nan, np.nan, "unclear"),
    ],
)
def test_a_verdict_needs_the_whole_interval(low, high, answer):
    assert effect(low, high).answer == answer


def test_the_shade_that_harms_less_decides():
    effects = {"a": effect(2, 4, subject="x"), "b": effect(1, 2, subject="x"), "c": effect(0, 1, subject="y")}
    assert mildest(effects, "x") is effects["b"]
    nothing_known = {"a": effect(np.nan, np.nan, subject="x"), "b": effect(1, 2, subject="x")}
    assert mildest(nothing_known, "x") is nothing_known["b"]
