"""A test per rule: the planted defect is found where it was planted, and clean data have no such finding."""

from dataclasses import replace

import numpy as np
import pytest

from molmoact2.data.quality.checking import RULES, check_material
from molmoact2.data.quality.findings import Finding, Severity, findings_of
from molmoact2.data.quality.material import make_vector
from molmoact2.embodiments import EMBODIMENTS, SO101_TABLETOP

L = 45
"""Frames of every episode of the made-up data."""
JOINTS = SO101_TABLETOP.state_names


BY_NAME = {rule.name: rule for rule in RULES}


def found(material, rule) -> list[Finding]:
    return findings_of(BY_NAME[rule], material)


def episodes(findings) -> set[int]:
    return {place.episode for finding in findings for place in finding.places}


def dimensions(findings) -> set[str]:
    return {place.dimension for finding in findings for place in finding.places}


def test_clean_data_pass_every_rule(clean_report):
    assert clean_report.findings == ()
    assert clean_report.grade == "A"
    assert set(clean_report.passed) == {rule.name for rule in RULES}
    assert not clean_report.not_run


def test_every_rule_says_what_to_do():
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.why.endswith(".") and rule.fix.endswith((".", "?")) and rule.title for rule in RULES)


def test_every_rule_has_a_test_here():
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {rule.name for rule in RULES} <= tests


# schema


def test_unknown_robot(clean):
    report = check_material(clean(embodiment=None))
    assert [finding.rule for finding in report.findings] == ["unknown_robot"]
    assert set(report.not_run) == {rule.name for rule in RULES if "embodiment" in rule.needs}
    assert report.grade == "A"


def test_wrong_width(clean, values):
    state, action = values
    material = clean(
        state_values=np.hstack([state, state[:, :1]]), state_names=(*JOINTS, "extra"), action_values=action
    )
    (finding,) = found(material, "wrong_width")
    assert "state has 7 dimensions, the robot has 6" in finding.measured
    assert {f.rule for f in check_material(material).findings} == {"wrong_width", "renamed"}


def test_nameless(clean):
    assert found(clean(has_names=False, state_names=(), action_names=()), "nameless")


def test_renamed(clean):
    names = (*JOINTS[:5], "jaw")
    findings = found(clean(state_names=names, action_names=names), "renamed")
    assert dimensions(findings) == {"state jaw", "action jaw"}
    lerobot = tuple(f"{name}.pos" for name in JOINTS)
    assert not check_material(clean(state_names=lerobot, action_names=lerobot)).findings


def test_reordered(clean, values):
    order = [1, 0, 2, 3, 4, 5]
    names = tuple(JOINTS[index] for index in order)
    state, action = values
    material = clean(
        state_values=state[:, order], action_values=action[:, order], state_names=names, action_names=names
    )
    assert [finding.severity for finding in found(material, "reordered")] == [Severity.ERROR] * 2


def test_no_camera(clean):
    assert found(clean(cameras=(), samples=(), video_lengths=(), has_images=False), "no_camera")


def test_missing_camera(clean):
    material = clean()
    samples = tuple(sample for sample in material.samples if sample.camera == "front")
    (finding,) = found(replace(material, cameras=("front",), samples=samples), "missing_camera")
    assert [place.camera for place in finding.places] == ["wrist"]


def test_other_rate(clean):
    material = clean(fps=30.0, timestamps=clean().timestamps / 2)
    (finding,) = found(material, "other_rate")
    assert "30 frames per second, the robot is controlled at 15 Hz" in finding.measured


def test_missing_video(clean):
    findings = found(clean(missing_videos={"videos/a.mp4": (3, 4), "videos/b.mp4": (4, 7)}), "missing_video")
    assert episodes(findings) == {3, 4, 7}


# time


def test_time_goes_back(clean):
    times = clean().timestamps.copy()
    times[7 * L + 10] = times[7 * L + 9]
    (finding,) = found(clean(timestamps=times), "time_goes_back")
    (place,) = finding.places
    assert (place.episode, place.first_frame, place.last_frame) == (7, 9, 10)


def test_wrong_rate(clean):
    (finding,) = found(clean(timestamps=clean().timestamps * 1.5), "wrong_rate")
    assert "0.1000 s, fps says 0.0667 s" in finding.measured


def test_time_gap(clean):
    times = clean().timestamps.copy()
    for episode in (5, 6, 9):
        times[episode * L + 20 : (episode + 1) * L] += 3 / 15
    findings = found(clean(timestamps=times), "time_gap")
    assert episodes(findings) == {5, 6, 9}
    assert {place.first_frame for place in findings[0].places} == {19}
    assert findings[0].severity is Severity.WARNING
    assert not found(clean(timestamps=times), "time_goes_back")


def test_late_start(clean):
    times = clean().timestamps.copy()
    times[2 * L : 3 * L] += 0.5
    assert episodes(found(clean(timestamps=times), "late_start")) == {2}


def spoiled_lengths(material, episode, **lengths):
    parts = material.video_lengths
    return tuple(replace(p, **lengths) if (p.episode, p.camera) == (episode, "wrist") else p for p in parts)


@pytest.mark.parametrize("lengths", [{"stored_frames": L - 3}, {"promised_frames": L - 3}])
def test_short_video(clean, lengths):
    material = clean()
    findings = found(replace(material, video_lengths=spoiled_lengths(material, 8, **lengths)), "short_video")
    assert episodes(findings) == {8}
    assert {place.camera for place in findings[0].places} == {"wrist"}


def test_long_video(clean):
    material = clean()
    lengths = spoiled_lengths(material, 8, promised_frames=L + 4, stored_frames=np.nan)
    findings = found(replace(material, video_lengths=lengths), "long_video")
    assert episodes(findings) == {8}
    shared_file = spoiled_lengths(material, 8, stored_frames=10 * L)
    assert not found(replace(material, video_lengths=shared_file), "long_video")


def test_short_episode(clean):
    starts = np.sort(np.append(clean().starts, [0 * L + 8, 3 * L + 5, 6 * L + 9]))
    material = clean(starts=starts, instructions=("put the red cube on the plate",) * len(starts))
    assert {0, 4, 8} <= episodes(found(material, "short_episode"))


# values


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(clean, values, bad):
    state, action = values
    action[4 * L + 3, 2] = bad
    material = clean(state_values=state, action_values=action)
    (finding,) = check_material(material).findings
    assert (finding.rule, finding.severity) == ("not_finite", Severity.ERROR)
    (place,) = finding.places
    assert (place.episode, place.first_frame, place.dimension) == (4, 3, "action elbow_flex")


@pytest.mark.parametrize(
    ("columns", "factor", "words"),
    [(slice(0, 5), np.pi / 180, "radians"), (slice(5, 6), 0.01, "a fraction from 0 to 1")],
)
def test_wrong_unit(clean, values, columns, factor, words):
    for array in values:
        array[:, columns] *= factor
    report = check_material(clean(state_values=values[0], action_values=values[1]))
    findings = [finding for finding in report.findings if finding.rule == "wrong_unit"]
    others = {finding.rule for finding in report.findings} - {"wrong_unit"}
    assert others <= {"idle_episode", "idle_time"}, "in the wrong unit, motions look slow"
    assert all(words in finding.measured for finding in findings)
    assert dimensions(findings) == {f"{kind} {name}" for kind in ("state", "action") for name in JOINTS[columns]}


def test_degrees_and_percent_where_radians_and_fractions_are_expected(clean, values):
    robot = EMBODIMENTS["franka_droid"]
    wide = [np.hstack([array[:, :5], array[:, :2], array[:, 5:]]) for array in values]
    names = robot.state_names
    spoiled = clean(
        embodiment=robot, state_values=wide[0], action_values=wide[1], state_names=names, action_names=names
    )
    assert dimensions(found(spoiled, "wrong_unit")) == {
        f"{kind} {name}" for kind in ("state", "action") for name in names
    }
    scale = np.array([*[np.pi / 180] * 7, 0.01])
    fine = clean(
        embodiment=robot,
        state_values=wide[0] * scale,
        action_values=wide[1] * scale,
        state_names=names,
        action_names=names,
    )
    assert not found(fine, "wrong_unit")


def test_outside_limits(clean, values):
    state, action = values
    state[10 * L : 13 * L, 5] += 80
    findings = found(clean(state_values=state, action_values=action), "outside_limits")
    assert episodes(findings) == {10, 11, 12}
    assert dimensions(findings) == {"state gripper"}


def test_gripper_sign(clean, values):
    for array in values:
        array[:, 5] *= -1
    findings = found(clean(state_values=values[0], action_values=values[1]), "gripper_sign")
    assert dimensions(findings) == {"state gripper", "action gripper"}


def test_joint_frame(clean, values):
    robot = EMBODIMENTS["so100_so101_molmoact2"]
    material = clean(embodiment=robot)
    assert found(material, "joint_frame")
    for array in values:
        array[:, 1], array[:, 2] = 90 - array[:, 1], array[:, 2] + 90
    assert not found(clean(embodiment=robot, state_values=values[0], action_values=values[1]), "joint_frame")


# motion


def test_jump(clean, values):
    state, action = values
    for episode in (3, 4, 5):
        state[episode * L + 20, 0] += 60
    findings = found(clean(state_values=state, action_values=action), "jump")
    assert episodes(findings) == {3, 4, 5}
    assert dimensions(findings) == {"state shoulder_pan"}
    assert {place.first_frame for finding in findings for place in finding.places} == {19, 20}


def test_a_gripper_that_opens_and_closes_at_once_is_no_jump(clean, values):
    for array in values:
        array[:, 5] = np.where(array[:, 5] > 40, 45.0, 15.0)
    assert not found(clean(state_values=values[0], action_values=values[1]), "jump")


def test_frozen_state(clean, values):
    state, action = values
    state[20 * L : 24 * L, 3] = state[20 * L, 3]
    findings = found(clean(state_values=state, action_values=action), "frozen_state")
    assert episodes(findings) <= {20, 21, 22, 23}
    assert len(episodes(findings)) >= 3
    assert dimensions(findings) == {"state wrist_flex"}


def test_idle_episode(clean, values):
    for array in values:
        for episode in (30, 31, 32):
            array[episode * L : (episode + 1) * L] = array[episode * L]
    findings = found(clean(state_values=values[0], action_values=values[1]), "idle_episode")
    assert episodes(findings) == {30, 31, 32}


def test_idle_time(clean, values):
    for array in values:
        held = array.reshape(-1, L, 6)
        held[:, 25:] = held[:, 25:26]
    (finding,) = found(clean(state_values=values[0], action_values=values[1]), "idle_time")
    share = float(finding.measured.split("%")[0])
    assert 35 <= share <= 45


# actions and states together


def test_opposite_action(clean, values):
    state, action = values
    action[:, 4] *= -1
    findings = found(clean(state_values=state, action_values=action), "opposite_action")
    assert dimensions(findings) == {"action wrist_roll"}


def test_an_inverted_gripper_is_found(clean, values):
    state, action = values
    action[:, 5] = 80 - action[:, 5]
    findings = found(clean(state_values=state, action_values=action), "opposite_action")
    assert dimensions(findings) == {"action gripper"}


def test_loose_action(clean, values):
    state, action = values
    action[:, 0] = np.random.default_rng(0).permutation(action[:, 0].reshape(-1, L)).reshape(-1)
    assert dimensions(found(clean(state_values=state, action_values=action), "loose_action")) == {"action shoulder_pan"}


def test_other_scale(clean, values):
    state, action = values
    state[:, 2] *= np.pi / 180
    assert dimensions(found(clean(state_values=state, action_values=action), "other_scale")) == {"action elbow_flex"}


def test_late_state(clean, values):
    state, action = values
    for episode in range(len(state) // L):
        rows = state[episode * L : (episode + 1) * L]
        rows[10:] = rows[:-10].copy()
        rows[:10] = rows[10]
    (finding,) = found(clean(state_values=state, action_values=action), "late_state")
    assert "0.80 s later" in finding.measured


def test_copied_action(clean, values):
    state, _ = values
    assert found(clean(state_values=state, action_values=state.copy()), "copied_action")


def test_actions_that_are_changes_need_not_be_where_the_state_is(clean, values):
    robot = replace(SO101_TABLETOP, control_mode="delta end-effector pose", action_limits=None)
    report = check_material(clean(embodiment=robot, action_values=np.diff(values[0], axis=0, append=0) / 50))
    assert {"opposite_action", "loose_action", "other_scale", "late_state", "copied_action"} <= set(report.not_run)


# normalisation


def test_constant(clean, values):
    for array in values:
        array[:, 4] = 12.5
    findings = found(clean(state_values=values[0], action_values=values[1]), "constant")
    assert dimensions(findings) == {"state wrist_roll", "action wrist_roll"}


def test_nearly_constant(clean, values):
    state, action = values
    state[:, 4], action[:, 4] = 12.5, 12.5
    state[: L // 2, 4], action[: L // 2, 4] = 60, 60
    findings = found(clean(state_values=state, action_values=action), "nearly_constant")
    assert dimensions(findings) == {"state wrist_roll", "action wrist_roll"}


def test_long_tail(clean, values):
    state, action = values
    state[50 * L + 5, 1] = -2000
    findings = found(clean(state_values=state, action_values=action), "long_tail")
    assert (episodes(findings), dimensions(findings)) == ({50}, {"state shoulder_lift"})


def test_strange_episode(clean, values):
    state, action = values
    state[60 * L : 61 * L, 0] += 150
    findings = found(clean(state_values=state, action_values=action), "strange_episode")
    assert (episodes(findings), dimensions(findings)) == ({60}, {"state shoulder_pan"})


# repetition and amount


def test_copy(clean, values):
    for array in values:
        array[70 * L : 71 * L] = array[7 * L : 8 * L]
        array[90 * L : 91 * L] = array[7 * L : 8 * L]
    material = clean(state_values=values[0], action_values=values[1])
    (finding,) = found(material, "copy")
    assert episodes([finding]) == {70, 90}
    assert "70 of 7" in finding.measured
    assert not found(material, "near_copy")


def test_near_copy(clean, values):
    state, action = values
    rng = np.random.default_rng(0)
    action[70 * L : 71 * L] = action[7 * L : 8 * L] + rng.uniform(-0.1, 0.1, (L, 6))
    material = clean(state_values=state, action_values=action)
    assert episodes(found(material, "near_copy")) == {70}
    assert not found(material, "copy")


def few(clean, values, count):
    state, action = (array[: count * L] for array in values)
    material = clean(state_values=state, action_values=action)
    return replace(
        material,
        timestamps=material.timestamps[: count * L],
        starts=material.starts[:count],
        instructions=material.instructions[:count],
        video_lengths=(),
    )


def test_few_demonstrations(clean, values):
    report = check_material(few(clean, values, 60))
    assert [finding.rule for finding in report.findings] == ["few_demonstrations"]
    assert report.grade == "A"


def test_very_few_demonstrations(clean, values):
    assert found(few(clean, values, 5), "very_few_demonstrations")


# language


def told(clean, **changed):
    texts = list(clean().instructions)
    for episode, text in changed.items():
        texts[int(episode[1:])] = text
    return clean(instructions=tuple(texts))


@pytest.mark.parametrize("text", ["", "  ", "...", "TODO", "<ALL FROZEN FRAMES>"])
def test_no_instruction(clean, text):
    findings = found(told(clean, _6=text, _9=text), "no_instruction")
    assert episodes(findings) == {6, 9}
    assert findings[0].severity is Severity.ERROR


def test_one_word(clean):
    assert episodes(found(told(clean, _6="cube", _7="Cube!", _8="cube"), "one_word")) == {6, 7, 8}


@pytest.mark.parametrize(
    "text", ["Put the red cube on the plate.", "put the red cubes on the plate", "put teh red cube on the plate"]
)
def test_spelling(clean, text):
    findings = found(told(clean, _12=text), "spelling")
    assert episodes(findings) == {12}


def test_one_instruction(clean):
    assert found(clean(instructions=("put it there",) * 220), "one_instruction")


def test_rare_instruction(clean):
    findings = found(told(clean, _100="wave at the camera"), "rare_instruction")
    assert episodes(findings) == {100}


# pictures


def seen(material, change):
    """The material with `change` applied to the images of the wrist camera."""
    samples = tuple(
        replace(sample, images=change(sample.images)) if sample.camera == "wrist" else sample
        for sample in material.samples
    )
    return replace(material, samples=samples)


def test_unreadable_video(clean):
    material = clean()
    broken = replace(material.samples[0], problem="videos/x.mp4: it is cut off", camera="")
    findings = found(replace(material, samples=(broken, *material.samples[1:])), "unreadable_video")
    assert episodes(findings) == {0}
    assert "videos/x.mp4" in findings[0].measured


@pytest.mark.parametrize(("level", "words"), [(0, "black"), (200, "of one grey level, 200")])
def test_blank_camera(clean, level, words):
    report = check_material(seen(clean(), lambda images: np.full_like(images, level)))
    assert [finding.rule for finding in report.findings] == ["blank_camera"]
    assert words in report.findings[0].measured
    assert report.findings[0].measured.startswith("wrist: 15 of 15")


def test_frozen_camera(clean):
    report = check_material(seen(clean(), lambda images: images[:1].repeat(len(images), 0)))
    (finding,) = report.findings
    assert (finding.rule, finding.severity) == ("frozen_camera", Severity.ERROR)
    assert {(place.first_frame, place.last_frame, place.camera) for place in finding.places} == {(0, 44, "wrist")}


def test_a_camera_that_freezes_half_way_is_found(clean):
    def freeze(images):
        return np.concatenate([images[:2], images[2:3].repeat(len(images) - 2, 0)])

    findings = found(seen(clean(), freeze), "frozen_camera")
    assert {(place.first_frame, place.last_frame) for place in findings[0].places} == {(22, 44)}


def test_an_image_that_stands_still_with_the_robot_is_fine(clean, values):
    for array in values:
        array[: 3 * L] = array[::L][:3].repeat(L, 0)
    material = clean(state_values=values[0], action_values=values[1])
    assert not found(seen(material, lambda images: images[:1].repeat(len(images), 0)), "frozen_camera")


def test_twin_cameras(clean):
    material = clean()
    front = {sample.episode: sample for sample in material.samples if sample.camera == "front"}
    samples = tuple(replace(front[sample.episode], camera=sample.camera) for sample in material.samples)
    (finding,) = found(replace(material, samples=samples), "twin_cameras")
    assert {place.camera for place in finding.places} == {"front", "wrist"}


def test_names_decide_units():
    vector = make_vector("state", np.zeros((2, 2)), ("main_gripper.pos", "other"), SO101_TABLETOP)
    assert vector.units == ("percent", "")
    assert vector.limits[0].tolist() == [0, 100]
    assert np.isnan(vector.limits[1]).all()
