"""Gates and spans: what is kept, what each rule drops, and that nothing is dropped silently."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from molmoact2.data import LeRobotDataset
from molmoact2.data.curation.curate import curate
from molmoact2.data.curation.gates import Curation
from molmoact2.data.curation.idle import Span
from molmoact2.data.curation.rewards import ModelRewards, RecordedRewards, sampled_episodes
from molmoact2.data.curation.selection import Dropped, Selection, remainder, require_complete

L = 40


@pytest.fixture
def copy(toys, tmp_path):
    """A copy of the toys, to be spoiled."""
    return Path(shutil.copytree(toys, tmp_path / "toys"))


def by_rule(selection) -> dict[str, set[int]]:
    return {part.rule: {span.episode for span in part.spans} for part in selection.dropped}


def test_each_episode_rule_drops_its_episode(toys):
    selection = curate(toys, Curation())
    assert by_rule(selection) == {"no success": {3}, "no instruction": {4}, "short": {2}}
    assert selection.episodes == (0, 1, 5, 6, 7)
    assert selection.spans == tuple(Span(episode, 0, L - 1) for episode in (0, 1, 5, 6, 7))
    assert "todo" in next(part.reason for part in selection.dropped if part.rule == "no instruction")


def test_pauses_are_cut_out(toys):
    selection = curate(toys, Curation(drops_idle=True))
    spans = [span for span in selection.spans if span.episode == 1]
    assert len(spans) == 2
    assert (spans[0].first, spans[-1].last) == (0, L - 1)
    assert 10 <= spans[0].last + 1 <= 13 < 24 <= spans[1].first <= 28
    assert by_rule(selection)["idle"] == {1}
    assert [span for span in selection.spans if span.episode == 5] == [Span(5, 0, L - 1)]


@pytest.mark.parametrize("curation", [Curation(), Curation(drops_idle=True), Curation(licences=("mit",))])
def test_every_frame_is_kept_or_dropped_once(toys, curation):
    selection = curate(toys, curation)
    marks = [np.zeros(length, int) for length in selection.lengths]
    for span in [*selection.spans, *(span for part in selection.dropped for span in part.spans)]:
        marks[span.episode][span.first : span.last + 1] += 1
    assert all((mark == 1).all() for mark in marks)


def test_frames_that_are_lost_or_counted_twice_are_an_error():
    part = Dropped(rule="x", reason="y", spans=(Span(0, 0, 4),))
    selection = Selection(source="s", fps=10, lengths=(10,), spans=(Span(0, 4, 9),), dropped=(part,))
    with pytest.raises(ValueError, match="11 frames are accounted for, the dataset has 10"):
        require_complete(selection)
    require_complete(replace(selection, spans=(Span(0, 5, 9),)))


def test_the_rest_of_episodes():
    kept = [Span(0, 2, 3), Span(0, 6, 9), Span(2, 0, 4)]
    assert remainder({0: 10, 1: 3, 2: 6}, kept) == (Span(0, 0, 1), Span(0, 4, 5), Span(1, 0, 2), Span(2, 5, 5))


@pytest.mark.parametrize("name", ["eval_toys", "toys-eval", "eval", "toys_evaluation", "so101.eval2"])
def test_evaluation_sets_are_dropped_by_name(toys, tmp_path, name):
    selection = curate(shutil.copytree(toys, tmp_path / name), Curation())
    assert set(by_rule(selection)) == {"evaluation set"}
    assert not selection.spans


@pytest.mark.parametrize("name", ["medieval_castle", "retrieval", "evalyn", "toys"])
def test_names_that_only_look_like_evaluations_stay(toys, tmp_path, name):
    assert curate(shutil.copytree(toys, tmp_path / name), Curation()).spans


def test_licences(copy):
    (dropped,) = curate(copy, Curation(licences=("apache-2.0",))).dropped
    assert (dropped.rule, dropped.num_frames) == ("licence", 7 * L + 6)
    assert "not stated" in dropped.reason
    (copy / "README.md").write_text("---\nlicense: Apache-2.0\ntags: [x]\n---\n# Toys\n")
    assert curate(copy, Curation(licences=("apache-2.0",))).spans
    assert "the licence is apache-2.0" in curate(copy, Curation(licences=("mit",))).dropped[0].reason


def test_another_robots_schema_is_dropped(toys):
    (dropped,) = curate(toys, Curation(), embodiment="libero").dropped
    assert dropped.rule == "schema"
    assert "1 dimensions, the robot has 8" in dropped.reason
    with pytest.raises(ValueError, match="Unknown embodiment"):
        curate(toys, Curation(), embodiment="x")


def test_episodes_with_nan_are_dropped(copy):
    path = next((copy / "data").rglob("*.parquet"))
    table = pq.read_table(path)
    pose = np.array(table["pose"].to_pylist(), np.float32)
    pose[5, 1] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(pose.reshape(-1)), 2)
    pq.write_table(table.set_column(table.column_names.index("pose"), "pose", column), path)
    assert by_rule(curate(copy, Curation()))["not finite"] == {0}


def test_episodes_without_video_are_dropped(copy):
    next((copy / "videos").rglob("*.mp4")).unlink()
    selection = curate(copy, Curation())
    assert by_rule(selection) == {"missing video": set(range(8))}


class Brightness:
    """A reward model for tests: brighter is better."""

    def __init__(self):
        self.asked = []

    def score(self, frames, instruction):
        self.asked.append((frames.shape, instruction))
        return float(frames[-1].mean()) / 255


def test_the_reward_of_the_last_three_sampled_episodes_decides(toys):
    model = Brightness()
    curation = Curation(rewards=ModelRewards(model=model, num_frames=5), least_reward=0.9)
    (dropped,) = curate(toys, curation).dropped
    assert dropped.rule == "reward"
    assert dropped.reason.startswith("the mean reward is 0.7")
    assert [shape for shape, _ in model.asked] == [(5, 16, 16, 3)] * 3
    assert curate(toys, replace(curation, least_reward=0.7)).spans


def test_which_episodes_are_judged():
    assert sampled_episodes(100, num_samples=5, num_judged=3) == [50, 74, 99]
    assert sampled_episodes(2, num_samples=8, num_judged=3) == [0, 1]


@pytest.mark.parametrize("score", [1.5, float("nan"), "good", None, True])
def test_a_score_that_is_none_is_refused(toys, score):
    model = Brightness()
    model.score = lambda *_: score
    with pytest.raises(ValueError, match="number from 0 to 1"):
        curate(toys, Curation(rewards=ModelRewards(model=model)))


def test_recorded_scores(toys, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({"toys": {"5": 0.2, "6": 0.3, "7": 0.4}}))
    rewards = RecordedRewards.read(path)
    assert "0.30 (0.20, 0.30, 0.40)" in curate(toys, Curation(rewards=rewards)).dropped[0].reason
    assert curate(toys, Curation(rewards=rewards, least_reward=0.3)).spans
    with pytest.raises(ValueError, match="no score for episode 3"):
        rewards.reward(LeRobotDataset(toys), 3)
    path.write_text(json.dumps({"tyos": {"0": 1}}))
    with pytest.raises(ValueError, match="Did you mean 'tyos'"):
        curate(toys, Curation(rewards=RecordedRewards.read(path)))


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"toys": 1}', '{"toys": {"a": 1}}', '{"toys": {"0": 2}}', '{"toys": {"0": null}}']
)
def test_files_that_are_no_scores_are_refused(tmp_path, content):
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"scores\.json"):
        RecordedRewards.read(path)


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"least_reward": 2.0}, {"num_judged": 0}, {"num_judged": 9}, {"dropped_names": "("}):
        with pytest.raises(ValueError, match=r"\w+"):
            Curation(**wrong)
