"""What a policy thought in an episode, in its film and in the report."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from small_codec import small_codec
from thinker import tiny_thinker
from worlds import LineWorld, ListeningWalker, open_walker

from molmoact2.depth.codec import DepthScale, save_codec
from molmoact2.evaluation.benchmark import Benchmark, run_benchmark
from molmoact2.evaluation.depth_tile import HEIGHT, STRIP, thought_tile
from molmoact2.evaluation.depth_truth import EpisodeTruth, judge_by
from molmoact2.evaluation.film import SHEET_COLUMNS, THOUGHT, Film, read_footage
from molmoact2.evaluation.policies import PolicyChoice, PolicySource
from molmoact2.evaluation.report import stage_bar, write_report
from molmoact2.evaluation.rollout import run_episode
from molmoact2.evaluation.summary import Tempo
from molmoact2.types import DepthReasoning

PROTOCOL = {"policy": "walker", "environment": "line", "embodiment": "so101_tabletop"}
CODEC = small_codec()


class ThinkingWalker(ListeningWalker):
    """Renews one cell more at every look, and thinks of another code."""

    looks = 0

    def act(self, observation, /):
        self.looks += 1
        depth = DepthReasoning(
            codes=np.full(16, self.looks),
            changed=np.arange(16) < self.looks,
            gates=np.linspace(0, 1, 3, dtype=np.float32),
            decoder=CODEC.picture,
        )
        return replace(super().act(observation), depth=depth)


class DeepLineWorld(LineWorld):
    """All of it is half a metre away."""

    def observe_depth(self, camera):
        assert camera == "front"
        return np.full(self.image_size, 0.5, np.float32)


def thought_of(look):
    return DepthReasoning(codes=np.full(16, look), changed=np.arange(16) < look)


def open_thinker(_environment):
    return PolicySource(start=ThinkingWalker, num_action_steps=3)


def film_of(policy, environment, path, **options):
    film = Film(environment, **options)
    run_episode(environment, policy, task="left", seed=1, num_action_steps=3, observer=film)
    film.save(path)
    return read_footage(path)


def tile_of(sheet, index):
    row, column = divmod(index, SHEET_COLUMNS)
    left, top = column * HEIGHT, row * (HEIGHT + STRIP)
    return np.asarray(sheet)[top : top + HEIGHT + STRIP, left : left + HEIGHT].astype(int)


def opened(content, path):
    path.write_bytes(content)
    return Image.open(path)


def test_a_film_keeps_what_was_thought_at_every_plan(tmp_path):
    footage = film_of(ThinkingWalker(1), LineWorld(), tmp_path / "thinking")
    assert list(footage.sheets) == ["front", "wrist", THOUGHT]
    sheet = opened(footage.sheets[THOUGHT], tmp_path / "sheet.jpg")
    assert sheet.size == (SHEET_COLUMNS * HEIGHT, -(-len(footage.steps) // SHEET_COLUMNS) * (HEIGHT + STRIP))
    image, walker = np.zeros((16, 16, 3), np.uint8), ThinkingWalker(1)
    observed = LineWorld()
    observed.reset(seed=1, task="left")
    for plan in range(len(footage.steps)):
        expected = thought_tile(walker.act(observed.observe()).depth, image)
        others = [np.abs(tile_of(sheet, plan) - expected).mean()]
        assert others[0] < 6, plan


def test_a_film_judges_thoughts_where_the_truth_is_known(tmp_path):
    world = DeepLineWorld()
    errors = []

    def judge(camera, thought):
        errors.append(judge_by(world, CODEC)(camera, thought))
        return errors[-1]

    footage = film_of(ThinkingWalker(1), world, tmp_path / "judged", judge=judge)
    depth = np.full((1, 16, 16), 0.5, np.float32)
    truth = EpisodeTruth(codec=CODEC, depth=depth)
    assert errors == [truth.of(0, thought_of(look + 1).codes).error_mm for look in range(len(footage.steps))]
    plain = film_of(ThinkingWalker(1), LineWorld(), tmp_path / "plain")
    sheets = [opened(one.sheets[THOUGHT], tmp_path / "sheet.jpg").copy() for one in (footage, plain)]
    assert np.abs(tile_of(sheets[0], 0) - tile_of(sheets[1], 0))[HEIGHT:].max() > 100


@pytest.mark.parametrize(
    ("world", "codec"),
    [
        (LineWorld(), CODEC),
        (DeepLineWorld(), None),
        (DeepLineWorld(), small_codec(unit="inverse")),
        (DeepLineWorld(), small_codec(DepthScale(kind="episode"))),
    ],
    ids=["no depth", "no codec", "relative depth", "scale of an episode that is not over"],
)
def test_where_the_truth_cannot_be_known_nobody_judges(world, codec):
    assert judge_by(world, codec) is None


def test_a_checkpoint_with_a_codec_is_judged_in_a_simulator_that_knows_depth(tmp_path):
    folder = tiny_thinker(tmp_path / "thinker")
    choice = PolicyChoice(name=str(folder), environment="line", think=True)
    assert choice.open(DeepLineWorld()).judge is None
    save_codec(CODEC, folder / "depth_codec")
    judge = choice.open(DeepLineWorld()).judge
    world = DeepLineWorld()
    assert judge is not None
    assert judge("front", thought_of(3)) == judge_by(world, CODEC)("front", thought_of(3))


def test_the_stages_of_a_plan_that_thinks_have_colours_of_their_own():
    stages = dict.fromkeys(("preprocess", "vision", "prefill", "depth", "flow", "decode"), 0.1)
    tempo = Tempo(control_hz=15, num_action_steps=8, plan_seconds=0.7, plan_seconds_p95=0.8, stage_seconds=stages)
    legend = stage_bar(tempo).partition("<ul")[2]
    assert len(set(re.findall(r"--stage:[^\"]+", legend))) == 7


def page_of(tmp_path, open_policy):
    benchmark = Benchmark(
        open_environment=LineWorld, open_policy=open_policy, tasks=("left",), num_episodes=2, num_films=1
    )
    *_, _ = run_benchmark(benchmark, tmp_path, PROTOCOL)
    return write_report(tmp_path).read_text()


def test_the_report_shows_the_depth_map_beside_the_cameras(tmp_path):
    thinking, plain = page_of(tmp_path / "thinking", open_thinker), page_of(tmp_path / "plain", open_walker)
    assert f"<figcaption>{THOUGHT}</figcaption>" in thinking
    assert 'aria-label="what it thought of depth"' in thinking
    assert "The bars are the gates" in thinking
    assert [len(re.findall('class="view"', page)) for page in (thinking, plain)] == [3, 2]
    assert not re.findall(r"depth|gates|thought", re.sub(r"base64,[A-Za-z0-9+/=]+", "", plain))
