"""The check of datasets on disk, what is done with damaged ones, and how findings become a grade."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmoact2.data import DatasetSchema, DatasetWriter, Episode
from molmoact2.data.quality.checking import RULES, check_dataset, check_material
from molmoact2.data.quality.findings import Place, Severity, grade_of, weighed
from molmoact2.data.quality.language import near_pairs
from molmoact2.data.quality.opening import dimension_names, evenly
from molmoact2.data.quality.repetition import similar

OURS = Path(__file__).parents[3] / "runs/nano-so101/data"
BOTTLE = Path(__file__).parents[4] / "shared/data/g1_bottle"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """12 short episodes with two cameras, of which the second does not move from episode 6 on."""
    root = tmp_path_factory.mktemp("recorded") / "toys"
    schema = DatasetSchema(
        fps=10,
        robot_type="toy",
        state_names=("a", "b"),
        action_names=("a", "b"),
        image_sizes={"eye": (32, 48), "ear": (32, 48)},
    )
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:32, :48]
    with DatasetWriter(root, schema) as writer:
        for number in range(12):
            begin = rng.uniform(-1, 1, 2)
            path = np.linspace(begin, begin + rng.choice([-1, 1], 2), 22).astype(np.float32)
            spots = [150 * np.exp(-((columns - 2 * step) ** 2 + (rows - 14) ** 2) / 20) for step in range(20)]
            eye = np.stack([(60 + rows + spot) for spot in spots]).astype(np.uint8)[..., None].repeat(3, -1)
            ear = eye[:, ::-1].copy()
            ear[:] = ear[:1] if number >= 6 else ear
            images = {"eye": eye, "ear": ear}
            writer.add_episode(Episode(images=images, state=path[:-2], action=path[2:], task=f"do number {number % 3}"))
    return root


def rules_of(report) -> set[str]:
    return {finding.rule for finding in report.findings}


def test_a_dataset_on_disk(recorded):
    report = check_dataset(recorded)
    assert rules_of(report) == {"unknown_robot", "few_demonstrations", "frozen_camera"}
    (frozen,) = [finding for finding in report.findings if finding.rule == "frozen_camera"]
    assert {place.episode for place in frozen.places} == set(range(6, 12))
    assert {place.camera for place in frozen.places} == {"ear"}
    assert report.grade == "D"
    assert report.facts["frames"] == 240


def test_without_images_the_picture_rules_are_named_as_not_run(recorded):
    report = check_dataset(recorded, images=False)
    needing = {rule.name for rule in RULES if "images" in rule.needs}
    assert {name for name, why in report.not_run.items() if "images" in why} == needing
    assert report.grade == "A"


def test_missing_and_cut_videos(recorded, tmp_path):
    root = Path(shutil.copytree(recorded, tmp_path / "copy"))
    video = next((root / "videos").rglob("*ear*/**/*.mp4"))
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 3])
    assert "unreadable_video" in rules_of(check_dataset(root))
    video.unlink()
    report = check_dataset(root)
    assert "missing_video" in rules_of(report)
    assert {p.episode for f in report.findings if f.rule == "missing_video" for p in f.places} == set(range(12))


def test_a_dataset_that_cannot_be_opened_is_graded_f(recorded, tmp_path):
    root = Path(shutil.copytree(recorded, tmp_path / "copy"))
    (root / "meta/info.json").write_text("{")
    report = check_dataset(root)
    assert (report.grade, rules_of(report)) == ("F", {"unreadable"})
    assert "info.json" in report.findings[0].measured
    assert set(report.not_run) == {rule.name for rule in RULES}
    assert check_dataset(tmp_path / "nothing").grade == "F"


def test_an_empty_dataset(tmp_path, recorded):
    info = json.loads((recorded / "meta/info.json").read_text()) | {"total_episodes": 0, "total_frames": 0}
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    assert "no finished episode" in check_dataset(tmp_path).findings[0].measured


def test_an_unknown_embodiment_is_the_users_mistake(recorded):
    with pytest.raises(ValueError, match="Did you mean 'libero'"):
        check_dataset(recorded, embodiment="liberos")


def test_the_report_is_json(recorded):
    document = check_dataset(recorded).to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["counts"] == {"error": 1, "warning": 0, "note": 2}
    assert document["findings"][0]["places"][0] == {
        "episode": 6,
        "first_frame": 0,
        "last_frame": 19,
        "camera": "ear",
    }


@pytest.mark.parametrize(
    ("errors", "warnings", "grade"),
    [(0, 0, "A"), (0, 1, "B"), (0, 2, "B"), (0, 3, "C"), (1, 0, "D"), (1, 9, "D"), (2, 0, "F")],
)
def test_grades(errors, warnings, grade):
    assert grade_of(errors, warnings) == grade


def test_a_warning_about_few_episodes_is_a_note():
    places = (Place(episode=3), Place(episode=3, camera="front"))
    assert weighed(Severity.WARNING, places, 100) is Severity.NOTE
    assert weighed(Severity.WARNING, places, 99) is Severity.WARNING
    assert weighed(Severity.WARNING, (), 1000) is Severity.WARNING
    assert weighed(Severity.WARNING, (*places, Place(camera="front")), 1000) is Severity.WARNING
    assert weighed(Severity.ERROR, places, 1000) is Severity.ERROR


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ("a", "b")),
        ([["a", "b"]], ("a", "b")),
        ({"motors": ["a", "b"]}, ("a", "b")),
        (None, ()),
        (["a"], ()),
    ],
)
def test_names_in_every_form_that_recorders_write(names, expected):
    assert dimension_names({"shape": [2], "names": names}) == expected


@given(st.integers(1, 500), st.integers(1, 20))
def test_even_samples_have_both_ends(count, most):
    chosen = evenly(count, most)
    assert len(chosen) == min(count, most)
    assert chosen[0] == 0
    assert most == 1 or chosen[-1] == count - 1


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 25))
def test_similar_rows_are_those_of_the_plain_search(seed, count):
    rows = np.random.default_rng(seed).integers(0, 3, (count, 2, 1)).astype(np.float32)
    pairs = {tuple(sorted(pair)) for pair in similar(rows, 1.0)}
    plain = {(a, b) for a in range(count) for b in range(a + 1, count) if np.abs(rows[a] - rows[b]).max() <= 1}
    assert pairs == plain


def test_spellings_are_told_from_other_tasks():
    different = ["pick up the red cube", "pick up the blue cube", "push it left", "push it right", "press 1", "press 2"]
    assert near_pairs(different) == []
    assert len(near_pairs(["open the drawer", "Open the drawer!", "open the drawers", "close the drawer"])) == 2


def test_a_large_dataset_is_checked_in_seconds(clean):
    material = clean()
    begin = time.perf_counter()
    check_material(material)
    assert time.perf_counter() - begin < 5, "10,000 frames take about 0.1 s"


@pytest.mark.skipif(not OURS.exists(), reason="our recordings are not in this checkout")
def test_our_own_recordings_are_clean():
    report = check_dataset(OURS)
    assert report.grade == "A"
    assert rules_of(report) == {"short_episode", "strange_episode"}


@pytest.mark.skipif(not BOTTLE.exists(), reason="needs the shared data")
def test_a_real_dataset_of_the_older_format():
    report = check_dataset(BOTTLE)
    assert {"missing_video", "one_instruction", "unknown_robot"} <= rules_of(report)
    assert report.count(Severity.ERROR) == 1
