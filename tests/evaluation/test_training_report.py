"""The training report: verdicts on policies that are known, the page, the JSON, and what is refused."""

import json
import math
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from lessons import HORIZON, TAG, asleep, attentive, blind, deaf, repeated, write_lessons

from molmoact2.data import LeRobotDataset
from molmoact2.evaluation.examination import NEAREST, STILL, Options, ask_checkpoint, examine
from molmoact2.evaluation.sensitivity import observation_at
from molmoact2.evaluation.training_findings import CAMERAS, SHORTCUTS, TONES, USED, WORDS, find, interval_words
from molmoact2.evaluation.training_page import MOST_POINTS, PILLS, TITLES, thin
from molmoact2.evaluation.training_report import jsonable, read_curves, write_training_report
from molmoact2.inference import load_policy
from molmoact2.processing import TagStats
from molmoact2.testing import tiny_checkpoint
from molmoact2.tokens.action import ActionDecodeError
from molmoact2.types import ActionChunk

QUIET = Options(num_frames=40, show_progress=False)
SIDES = {"held_out_episodes": range(8, 12), "train_episodes": range(8)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_lessons(tmp_path_factory.mktemp("lessons") / "data")


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return load_policy(tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint"))


def examined(ask, dataset, tag=TAG):
    return examine(ask, tag, dataset, **SIDES, train_dataset=dataset, options=QUIET)


def verdicts(ask, dataset):
    return {one.subject: one.answer for one in find(examined(ask, dataset))}


def test_an_oracle_makes_no_error(dataset):
    def oracle(_observations, rows, _draw):
        return repeated(dataset.actions[rows])  # in an episode all actions are alike

    examination = examined(oracle, dataset)
    assert examination.errors["policy"].overall == 0
    assert examination.errors[STILL].overall > 0.1
    assert examination.compared[STILL] == (0, 0, 0)
    answers = {one.subject: one.answer for one in find(examination)}
    assert answers["skill"] == "better"
    assert answers["cameras"] == answers["shortcut"] == "unclear"


def test_who_looks_listens_and_feels_is_praised(dataset):
    assert verdicts(attentive, dataset) == {
        "skill": "better",
        "cameras": "relies",
        "words": "relies",
        "shortcut": "both",
        "saturation": "fits",
    }
    findings = find(examined(attentive, dataset))
    assert {one.tone for one in findings} == {"good"}
    assert "wrist 1.00" in findings[1].sentence


def test_who_only_feels_takes_a_shortcut(dataset):
    found = verdicts(blind, dataset)
    assert found["cameras"] == found["words"] == "ignores"
    assert found["shortcut"] == "state only"
    assert found["skill"] == "worse"  # it is the baseline that holds still
    assert find(examined(blind, dataset))[3].tone == "bad"
    examination = examined(blind, dataset)
    assert examination.compared[STILL] == (1, 1, 1)
    assert math.isnan(examination.kept_blind.value)


def test_who_does_not_listen_is_told(dataset):
    assert verdicts(deaf, dataset)["words"] == "ignores"


def test_who_sleeps_uses_neither(dataset):
    assert verdicts(asleep, dataset)["shortcut"] == "neither"


def test_one_instruction_cannot_be_swapped(tmp_path):
    assert verdicts(attentive, write_lessons(tmp_path / "data", tasks=("go left",)))["words"] == "untestable"


def test_plans_at_the_bounds_are_told(dataset):
    def at_the_end(observations, _rows, _draw):
        return repeated([TAG.action_scaling.restore(np.ones(6))] * len(observations))

    found = find(examined(at_the_end, dataset))[-1]
    assert found.answer == "saturated"
    assert "plans at its bounds" in found.sentence
    assert "shoulder_pan 100.0" in found.sentence


def test_data_beyond_the_range_are_told(dataset):
    narrow = json.loads(json.dumps(TAG.document))
    narrow["action_stats"] |= {"q01": [0.0] * 6, "q99": [1.0] * 6, "min": [0.0] * 6, "max": [1.0] * 6}
    found = find(examined(attentive, dataset, TagStats.read(TAG.tag, narrow, "q01_q99")))[-1]
    assert found.answer == "saturated"
    assert "recorded actions beyond what it can say" in found.sentence


def test_an_action_without_a_rest_has_one_baseline(dataset):
    velocity = TagStats.read(TAG.tag, {**TAG.document, "control_mode": "joint velocity"}, TAG.mode)
    assert list(examined(attentive, dataset, velocity).compared) == [NEAREST]


def test_blank_cameras_keep_what_the_state_knows(dataset):
    examination = examined(attentive, dataset)
    kept = examination.kept_blind
    assert kept.low <= kept.value <= kept.high < 1
    assert kept.value == pytest.approx(
        1 - (mild_error(examination) - 1) / (1 / examination.compared[STILL].value - 1), rel=1e-6
    )


def mild_error(examination):
    return min(examination.effects[f"all cameras {shade}"].ratio.value for shade in ("grey", "black"))


def test_unanswered_frames_are_counted_and_left_out(dataset):
    def sometimes(observations, rows, draw):
        plans = attentive(observations, rows, draw)
        plans[(rows % 2 == 0) & (draw == 1)] = np.nan
        return plans

    examination = examined(sometimes, dataset)
    assert examination.num_unanswered > 0
    assert (examination.target.rows % 2 == 1).all()
    assert examination.num_unanswered + len(examination.target.rows) == 40


def test_both_sides_may_not_share_an_episode(dataset):
    sides = {"held_out_episodes": [1, 2, 3], "train_episodes": [3, 4]}
    with pytest.raises(ValueError, match=r"both sides have \[3\]"):
        examine(attentive, TAG, dataset, **sides, train_dataset=LeRobotDataset(dataset.root), options=QUIET)


def test_data_of_another_robot_are_refused(dataset):
    wide = json.loads(json.dumps(TAG.document))
    wide["state_stats"] = {name: [*values, 1.0] for name, values in wide["state_stats"].items() if name != "names"}
    wide["state_stats"] = {name: values for name, values in wide["state_stats"].items() if name != "mask"}
    with pytest.raises(ValueError, match=r"of \(7, 6\) dimensions, .* of \(6, 6\)"):
        examined(attentive, dataset, TagStats.read(TAG.tag, wide, TAG.mode))


def test_noise_belongs_to_the_frame(policy, dataset):
    tag = policy.processor.tag(None)
    ask = ask_checkpoint(policy, tag, "continuous", seed=3)
    rows = np.array([5, 50, 115])
    observations = [observation_at(dataset, int(row), dataset.cameras) for row in rows]
    together = ask(observations, rows, 0)
    assert together.shape == (3, HORIZON, 6)
    alone = [ask([observation], np.array([row]), 0)[0] for observation, row in zip(observations, rows, strict=True)]
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert np.abs(ask(observations, rows, 1) - together).max() > 0.1
    assert np.abs(ask_checkpoint(policy, tag, "continuous", seed=4)(observations, rows, 0) - together).max() > 0.1


def test_words_that_are_no_action_are_no_answer(dataset):
    class Speaker:
        def new_session(self, seed):
            return seed

        def act(self, observations, _tag, *, mode, num_action_steps, session):
            assert mode == "discrete"
            assert len(observations) == len(session) == 1
            if observations[0].instruction == "go left":
                raise ActionDecodeError("gibberish")
            return [ActionChunk(actions=np.zeros((num_action_steps, 6), np.float32))]

    rows = np.array([0, 10])  # go left, go right
    observations = [observation_at(dataset, int(row), dataset.cameras) for row in rows]
    plans = ask_checkpoint(Speaker(), TAG, "discrete", seed=0)(observations, rows, 0)
    assert np.isnan(plans[0]).all()
    assert not plans[1].any()


@pytest.fixture(scope="module")
def written(policy, dataset, tmp_path_factory):
    """A report on a random policy, with the curves of a run."""
    run = tmp_path_factory.mktemp("run<i>")
    lines = [{"step": step, "stage": "act", "loss": 2.0 / step, "learning_rate": 1e-4} for step in range(1, 1000)]
    lines.append({"step": 1000, "stage": "act", "loss": float("nan"), "is_best": True})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 10')
    path = tmp_path_factory.mktemp("out") / "deep" / "report.html"
    options = Options(num_frames=6, show_progress=False)
    write_training_report(policy, dataset, output=path, **SIDES, run_folder=run, options=options)
    return path


class Addresses(HTMLParser):
    """What would make a browser fetch something."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found += [tag] * (tag in ("link", "script", "img", "iframe"))
        self.found += [value for name, value in attrs if name in ("src", "href", "poster", "action", "data")]


def test_the_page_is_whole_and_needs_no_network(written):
    page = written.read_text()
    assert not Addresses(page).found
    assert "$" not in page
    assert not re.findall(r'd="[^"]*(?:nan|inf)', page)
    assert "2 → nan" in page  # a loss that was lost is said to be
    body = page[page.index("<main>") :]
    for tag in ("div", "section", "figure", "span", "dl", "table", "tr", "td", "th", "p", "b", "svg", "i"):
        assert len(re.findall(rf"<{tag}[ >]", body)) == len(re.findall(rf"</{tag}>", body)), tag
    assert all(title in page for title in TITLES.values())


def test_every_answer_has_its_words():
    assert TONES.keys() <= PILLS.keys()
    assert {*SHORTCUTS, *CAMERAS, *WORDS} <= PILLS.keys()
    assert set(USED.values()) <= SHORTCUTS.keys()


def test_the_json_has_the_numbers(written):
    report = json.loads(written.with_suffix(".json").read_text())
    assert report["num_frames"] == 6
    assert report["joints"][-1] == "gripper"
    assert report["findings"].keys() == TITLES.keys()
    assert np.array(report["errors"]["policy"]["by_step"]).shape == (HORIZON, 6)
    ratio = report["effects"]["all cameras grey"]["error_ratio"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert len(report["saturation"]["action"]["predicted_at_bound"]) == 6


def test_the_same_seed_gives_the_same_report(written, policy, dataset, tmp_path):
    options = Options(num_frames=6, show_progress=False)
    again = tmp_path / "again.html"
    write_training_report(policy, dataset, output=again, **SIDES, options=options)
    assert again.with_suffix(".json").read_text() == written.with_suffix(".json").read_text()
    assert "How it learned" not in again.read_text()
    write_training_report(policy, dataset, output=again, **SIDES, seed=1, options=options)
    assert again.with_suffix(".json").read_text() != written.with_suffix(".json").read_text()


def test_curves_are_all_numbers_of_the_log(written, tmp_path):
    assert {"loss", "learning rate"} <= set(
        re.findall(r"<b>(loss|learning rate|is best|stage)</b>", written.read_text())
    )
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "a": 2, "stage": "x", "b": true}\n{"step": 3, "a": 4.5}\n')
    curves = read_curves(tmp_path)
    assert curves.keys() == {"a"}
    assert [part.tolist() for part in curves["a"]] == [[1, 3], [2, 4.5]]


def test_long_curves_are_thinned_to_means():
    values = np.arange(1000.0)
    assert len(thin(values)) == MOST_POINTS
    assert thin(values)[0] == pytest.approx(1.5)
    assert thin(values[:7]).tolist() == values[:7].tolist()


@pytest.mark.parametrize(
    ("text", "complaint"), [(None, "no metrics.jsonl"), ("{}\n", "without a step"), ("what\n", "is not JSON")]
)
def test_a_folder_that_is_no_run_is_refused_before_anything_is_asked(dataset, tmp_path, text, complaint):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    never_asked = SimpleNamespace()
    with pytest.raises(ValueError, match=complaint):
        write_training_report(never_asked, dataset, output=tmp_path / "a.html", **SIDES, run_folder=tmp_path)
    with pytest.raises(ValueError, match=r"must end in \.html"):
        write_training_report(never_asked, dataset, output=tmp_path / "a.json", **SIDES)
    assert not list(tmp_path.glob("a.*"))


def test_numbers_that_are_none_are_null():
    assert jsonable({"a": (np.array([1.0, np.nan]), math.inf), "b": 2}) == {"a": [[1.0, None], None], "b": 2}
    assert json.dumps(jsonable({"a": np.arange(2)})) == '{"a": [0, 1]}'


def test_an_unknown_ratio_is_said_to_be_unknown(dataset):
    interval = examined(blind, dataset).kept_blind
    assert interval_words(interval) == "an unknown number of"
