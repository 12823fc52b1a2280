"""Each thing that the guard watches: what it does about it, and what it says."""

from dataclasses import replace

import numpy as np
import pytest

from molmoact2.control.guard import Guard, Mode, Verdict
from molmoact2.control.limits import MotionLimits
from molmoact2.control.robot import Frame, Reading
from molmoact2.embodiments import EMBODIMENTS, SO101_TABLETOP

LIMITS = MotionLimits.of(SO101_TABLETOP)
FREE = replace(LIMITS, workspace=None)
POSE = np.array((0.0, -20.0, 30.0, 60.0, 0.0, 40.0))
DT = 1 / 15
GRIPPER = 5


def by(*change: float) -> np.ndarray:
    """A difference of two poses."""
    return np.array(change, dtype=np.float64)


class Rig:
    """A guard with an arm that does at once what it is told, unless a test says otherwise."""

    def __init__(self, limits: MotionLimits = FREE, mode: Mode = Mode.FULL, pose: np.ndarray = POSE) -> None:
        self.guard = Guard(limits, mode=mode)
        self.now = 100.0
        self.pose = np.array(pose, dtype=np.float32)
        self.verdicts: list[Verdict] = []
        self.tick(None)

    def tick(self, target, *, state=None, frames=None, age_s: float = 0.0, dt: float = DT, **reading) -> Verdict:
        self.now += dt
        state = self.pose if state is None else np.asarray(state, dtype=np.float32)
        felt = Reading(time_s=self.now - age_s, state=state, **reading)
        verdict = self.guard.admit(target, felt, self.now, frames=frames or {})
        self.pose = self.pose if verdict.command is None else verdict.command
        self.verdicts.append(verdict)
        return verdict

    def kinds(self) -> set[str]:
        return {fault.kind for fault in self.verdicts[-1].faults}

    def wave(self, ticks: int = 10, **options) -> Verdict:
        """Nominal motion of the shoulder, 3 degrees per tick."""
        for _ in range(ticks):
            step = np.array((3.0, 0, 0, 0, 0, 0)) * (1 if int(self.now) % 2 else -1)
            verdict = self.tick(self.guard.state().last_command + step, **options)
        return verdict


def assert_holds_at(rig: Rig, pose, ticks: int = 20, target=None):
    """At rest at `pose` within the stopping time, and then exactly still."""
    for _ in range(3):
        rig.tick(target)
    still = rig.verdicts[-1].command
    for _ in range(ticks):
        verdict = rig.tick(target)
        assert verdict.is_holding
        np.testing.assert_array_equal(verdict.command, still)
    np.testing.assert_allclose(still, pose, atol=45, err_msg="it did not stop where it was")


def test_a_good_target_is_followed_exactly_and_without_a_word():
    rig = Rig()
    path = POSE + by(20.0, 10, -10, 5, 8, 20) * np.linspace(0, 1, 40)[:, None]
    for target in path:
        verdict = rig.tick(target)
        np.testing.assert_allclose(verdict.command, target, atol=1e-5)
        assert (verdict.faults, verdict.news) == ((), ())
        assert not any((verdict.is_holding, verdict.wants_plan, verdict.needs_human))
    assert verdict.command.dtype == np.float32


@pytest.mark.parametrize(
    ("target", "kind", "words"),
    [
        (np.full(6, np.nan), "target", "not 6 finite numbers"),
        (np.array([np.inf, 0, 0, 0, 0, 0]), "target", "inf"),
        (np.zeros(7), "target", r"shape \(7,\)"),
        (np.zeros((1, 6)), "target", r"shape \(1, 6\)"),
        (np.zeros(0), "target", "shape"),
        (POSE + by(0, 0, 0, 60.0, 0, 0), "target", "wrist_flex at 120 deg is 25 beyond its range -95 to 95: refused"),
        (POSE + by(0, 1e200, 0, 0, 0, 0), "target", "refused"),
        (POSE + by(26.0, 0, 0, 0, 0, 0), "jump", "shoulder_pan at 26 deg is a jump of 26, allowed 25: refused"),
    ],
)
def test_a_bad_target_is_refused_and_the_arm_holds(target, kind, words):
    rig = Rig()
    verdict = rig.tick(target)
    assert [fault.kind for fault in verdict.faults] == [kind]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(verdict.reasons[0])
    assert verdict.is_holding
    assert verdict.wants_plan
    np.testing.assert_array_equal(verdict.command, POSE.astype(np.float32))
    assert not verdict.needs_human


def test_a_target_a_little_beyond_the_range_means_its_end():
    pose = POSE * (1, 1, 1, 0, 1, 1) + by(0, 0, 0, 93.0, 0, 0)
    rig = Rig(pose=pose)
    for _ in range(5):
        verdict = rig.tick(pose + by(0, 0, 0, 3.0, 0, 0))
    assert verdict.command[3] == 95.0
    assert rig.kinds() == {"range"}
    assert "the arm goes to the end of the range" in verdict.reasons[0]
    assert not verdict.is_holding


def test_a_joint_outside_its_range_may_only_come_back():
    pose = POSE + by(0, 0, 0, 40.0, 0, 0)
    rig = Rig(pose=pose)
    for target in (pose, pose + by(0, 0, 0, 2.0, 0, 0), pose - by(0, 0, 0, 10.0, 0, 0)):
        before = rig.pose[3]
        assert rig.tick(target).command[3] <= before
    for _ in range(10):
        rig.tick(POSE + by(0, 0, 0, 30.0, 0, 0))
    np.testing.assert_allclose(rig.pose[3], 90.0, atol=1e-4)


def test_the_first_target_is_compared_with_where_the_arm_is_and_later_ones_with_the_last():
    rig = Rig()
    far = POSE + by(24.0, 0, 0, 0, 0, 0)
    assert not rig.tick(far).is_holding
    assert not rig.tick(far + by(24.0, 0, 0, 0, 0, 0)).is_holding, "the arm is still far behind, the target goes on"
    assert rig.tick(far - by(60.0, 0, 0, 0, 0, 0)).is_holding
    assert rig.kinds() == {"jump"}


def test_no_target_holds_and_is_said_after_a_while():
    rig = Rig()
    rig.wave()
    assert rig.tick(None).is_holding
    assert not rig.kinds()
    assert_holds_at(rig, rig.pose)
    assert rig.kinds() == {"no target"}
    assert not rig.verdicts[-1].needs_human
    assert not rig.tick(rig.pose + 1).is_holding, "it goes on when there is something to do"


@pytest.mark.parametrize(
    ("felt", "words"),
    [
        ({"age_s": 0.5}, "read 0.50 s ago"),
        ({"age_s": -5.0}, "read -5.00 s ago"),
        ({"age_s": np.nan}, "nan"),
        ({"state": POSE * np.nan}, "cannot be read"),
        ({"state": POSE[:5]}, "not 6 finite numbers"),
        ({"effort": np.zeros(3, dtype=np.float32)}, "cannot be read"),
    ],
)
def test_joints_that_cannot_be_believed_hold_the_arm(felt, words):
    rig = Rig()
    rig.wave()
    verdict = rig.tick(rig.pose + 1, **felt)
    assert verdict.is_holding
    assert rig.kinds() == {"reading"}
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(verdict.reasons[0])
    assert np.isfinite(verdict.command).all()
    assert not rig.tick(rig.pose + 1).is_holding


def test_before_the_joints_were_read_nothing_is_commanded():
    guard = Guard(FREE, mode=Mode.FULL)
    for reading in (None, Reading(time_s=0.0, state=np.full(6, np.nan, dtype=np.float32))):
        verdict = guard.admit(POSE, reading, 0.0)
        assert verdict.command is None
        assert verdict.is_holding
    assert guard.stopping_time_s == 0.0


def test_joints_that_read_the_same_while_the_arm_is_moved_need_a_person():
    rig = Rig()
    stuck = rig.pose.copy()
    for _ in range(20):
        rig.tick(rig.guard.state().last_command + by(1.0, 0, 0, 0, 0, 0), state=stuck)
    assert "frozen joints" in rig.guard.state().num_findings
    assert rig.verdicts[-1].needs_human
    assert abs(rig.pose[0] - stuck[0]) < 25
    with pytest.raises(ValueError, match="cause is still there"):
        rig.guard.clear(by="Ada")


def test_an_arm_that_rests_may_read_the_same():
    rig = Rig()
    for _ in range(100):
        assert not rig.tick(rig.pose).faults


def frames(image: np.ndarray, time_s: float) -> dict[str, Frame]:
    return {"front": Frame(image=image, time_s=time_s)}


IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def test_an_old_image_holds_the_arm_until_there_is_a_new_one():
    rig = Rig()
    assert not rig.tick(rig.pose + 1, frames=frames(IMAGE, rig.now)).is_holding
    verdict = rig.tick(rig.pose + 1, frames=frames(IMAGE, rig.now - 1.5))
    assert verdict.is_holding
    assert "camera front is 1.57 s old, allowed 1 s" in verdict.reasons[0]
    assert not rig.tick(rig.pose + 1, frames=frames(IMAGE + 1, rig.now)).is_holding


def test_a_camera_that_shows_the_same_image_while_the_arm_moves_needs_a_person():
    rig = Rig()
    for _ in range(12):
        verdict = rig.tick(rig.pose + by(2, 0, 0, 0, 0, 0), frames=frames(IMAGE.copy(), rig.now))
    assert verdict.needs_human
    assert "Camera front has shown exactly the same image 12 times while the arm moved" in verdict.reasons[0]
    with pytest.raises(ValueError, match="still there"):
        rig.guard.clear(by="Ada")
    rig.tick(None, frames=frames(IMAGE + 1, rig.now))
    assert "Camera front" in rig.guard.clear(by="Ada")
    assert not rig.tick(rig.pose + 1, frames=frames(IMAGE + 2, rig.now)).is_holding


def test_a_camera_that_was_there_is_missed():
    rig = Rig()
    rig.tick(rig.pose + 1, frames=frames(IMAGE, rig.now))
    assert not any(rig.tick(rig.pose + 0.1).is_holding for _ in range(13))
    rig.tick(rig.pose + 0.1)
    assert not rig.tick(rig.pose + 0.1, frames=frames(IMAGE + 1, rig.now)).is_holding
    for _ in range(16):
        verdict = rig.tick(rig.pose + 0.1)
    assert verdict.is_holding
    assert rig.kinds() == {"camera"}


@pytest.mark.parametrize("moves", [True, False])
def test_a_camera_is_fine_while_it_changes_or_the_arm_rests(moves):
    rig = Rig()
    for i in range(40):
        image = IMAGE + i if moves else IMAGE
        verdict = rig.tick(rig.pose + by(2.0 * moves, 0, 0, 0, 0, 0), frames=frames(image, rig.now))
        assert not verdict.is_holding


def test_an_arm_that_is_kept_from_moving_stops_pushing():
    rig = Rig()
    wall = rig.pose[0] + 4
    told = []
    for _ in range(30):
        state = np.minimum(rig.pose, np.where(np.arange(6) == 0, wall, 1e9))
        state[1] += np.float32(0.01) * (rig.now % 1)
        told.append(rig.tick(rig.guard.state().last_command + by(2.0, 0, 0, 0, 0, 0), state=state).command[0])
    assert rig.verdicts[-1].needs_human
    assert "tracking" in rig.guard.state().num_findings
    assert max(told) < wall + 15 + 2.0 * FREE.tracking_s / DT + 4
    assert abs(told[-1] - wall) < 0.1, "it holds where it is, not where it was told to be"
    assert rig.guard.clear(by="Ada") is not None
    assert not rig.tick(rig.pose).is_holding


def test_a_gripper_may_stay_open_on_what_it_holds():
    rig = Rig()
    for closed in np.linspace(40, 5, 12).tolist() + [5.0] * 30:
        target = np.append(POSE[:5], closed)
        verdict = rig.tick(target, state=np.append(POSE[:5], max(closed, 25.0)))
        assert not verdict.is_holding


def test_a_gripper_that_pushes_closes_no_further_but_opens():
    rig = Rig()
    effort = np.array((0, 0, 0, 0, 0, -0.8), dtype=np.float32)
    for i in range(20):
        verdict = rig.tick(np.append(POSE[:5], 40.0 - i), effort=effort)
    assert verdict.command[GRIPPER] == pytest.approx(37.5, abs=1.0)
    assert rig.kinds() == {"grip"}
    assert not verdict.is_holding
    verdict = rig.tick(np.append(POSE[:5], 45.0), effort=effort)
    assert verdict.command[GRIPPER] > 37
    for i in range(20):
        verdict = rig.tick(np.append(POSE[:5], 40.0 - i), effort=effort * 0)
    assert verdict.command[GRIPPER] == pytest.approx(21.0)


@pytest.mark.parametrize(
    ("felt", "kind", "words"),
    [
        ({"effort": np.array((0, 0.97, 0, 0, 0, 1), dtype=np.float32)}, "overload", "shoulder_lift works with 0.97 of"),
        ({"current_a": np.array((0, 0, -3, 0, 0, 9), dtype=np.float32)}, "overload", "elbow_flex works with 3.00 A"),
    ],
)
def test_a_motor_that_works_too_hard_for_long_rests(felt, kind, words):
    rig = Rig(replace(FREE, current_a=2.0))
    for _ in range(5):
        assert not rig.tick(rig.pose + 1, **felt).is_holding, "a moment is allowed"
    rig.wave(10, **felt)
    assert rig.verdicts[-1].is_holding
    assert kind in rig.kinds()
    assert words in rig.verdicts[-1].reasons[0]
    assert not rig.tick(rig.pose + 1).is_holding


@pytest.mark.parametrize(("degrees", "kind", "human"), [(50, None, False), (60, "warm", False), (66, "hot", True)])
def test_motors_that_grow_hot(degrees, kind, human):
    rig = Rig()
    temperature_c = np.array((30, 30, 30, degrees, np.nan, 30), dtype=np.float32)
    verdict = rig.tick(rig.pose + 1, temperature_c=temperature_c)
    assert rig.kinds() == ({kind} if kind else set())
    assert verdict.needs_human == human
    assert verdict.is_holding == human


def test_what_is_not_reported_is_not_judged():
    rig = Rig()
    nothing = np.full(6, np.nan, dtype=np.float32)
    for _ in range(20):
        assert not rig.tick(rig.pose + 0.1, effort=nothing, current_a=nothing, temperature_c=nothing).is_holding


def test_repeated_faults_need_a_person_and_a_name_to_clear():
    rig = Rig()
    for i in range(FREE.faults_until_human):
        assert not rig.guard.state().needs_human
        rig.tick(rig.pose * np.nan)
        rig.tick(rig.pose) if i < FREE.faults_until_human - 1 else None
    assert rig.verdicts[-1].needs_human
    assert "5 faults within 60 s" in rig.guard.state().latched
    assert any("A person has to look" in note for note in rig.verdicts[-1].news)
    for _ in range(20):
        verdict = rig.tick(rig.pose + 1)
        assert verdict.is_holding
        assert verdict.wants_plan
    for nobody in ("", "  "):
        with pytest.raises(ValueError, match="say who"):
            rig.guard.clear(by=nobody)
    rig.guard.clear(by="Ada")
    assert not rig.tick(rig.pose + 1).is_holding
    assert rig.guard.clear(by="Ada") is None, "there was nothing to clear"


def test_faults_that_are_long_past_do_not_count():
    rig = Rig()
    for _ in range(3 * FREE.faults_until_human):
        rig.tick(rig.pose * np.nan)
        rig.tick(rig.pose, dt=20.0)
    assert not rig.guard.state().needs_human


def test_one_long_fault_counts_once():
    rig = Rig()
    for _ in range(50):
        rig.tick(rig.pose, age_s=3.0)
    assert not rig.guard.state().needs_human


def test_the_same_is_not_said_at_every_tick():
    rig = Rig()
    news = [rig.tick(rig.pose, age_s=3.0).news for _ in range(160)]
    assert sum(map(len, news)) == 3, "once every 5 s in 10.7 s"
    assert len(rig.verdicts[-1].reasons) == 1, "though it is known all the time"


def test_a_clock_that_does_not_go_forward_moves_nothing():
    rig = Rig()
    rig.wave()
    before = rig.pose
    for dt in (0.0, -3.0):
        verdict = rig.tick(rig.pose + 3, dt=dt)
        assert rig.kinds() == {"clock"}
        np.testing.assert_array_equal(verdict.command, before)
    assert not rig.tick(rig.pose).is_holding


# Modes


def test_in_shadow_nothing_is_commanded_but_everything_is_said():
    rig = Rig(mode=Mode.SHADOW)
    for i in range(10):
        verdict = rig.tick(POSE + by(3.0 * i, 0, 0, 0, 0, 0))
        assert verdict.command is None
    np.testing.assert_allclose(verdict.proposal[0], 27.0, atol=1e-4)
    assert rig.tick(POSE + 80).is_holding
    assert rig.kinds() == {"target"}
    for _ in range(3 * FREE.faults_until_human):
        rig.tick(POSE * np.nan)
        rig.tick(POSE, temperature_c=np.full(6, 99, dtype=np.float32))
    assert not rig.guard.state().needs_human, "nothing was moved, so nobody has to look"


def test_leaving_shadow_begins_where_the_arm_is():
    rig = Rig(mode=Mode.SHADOW)
    for i in range(10):
        rig.tick(POSE + by(3.0 * i, 0, 0, 0, 0, 0))
    elsewhere = POSE + by(0, 5, 0, 0, 0, 0)
    rig.guard.switch(Mode.FULL)
    verdict = rig.tick(elsewhere, state=elsewhere)
    np.testing.assert_allclose(verdict.command, elsewhere, atol=1e-4)


def test_hold_stops_and_stays_whatever_is_wanted():
    rig = Rig()
    rig.wave()
    rig.guard.switch(Mode.HOLD)
    assert_holds_at(rig, rig.pose, target=rig.pose + by(40, 0, 0, 0, 0, 0))
    assert not rig.kinds(), "a target that nobody follows is not judged"
    rig.guard.switch(Mode.FULL)
    before = rig.pose
    verdict = rig.tick(rig.pose + 10)
    assert not verdict.is_holding
    assert np.abs(verdict.command - before).max() <= 4000 * DT**2 + 1e-3


def test_slow_moves_at_a_fraction_of_the_speed_and_changes_smoothly():
    rig = Rig()
    speeds = []
    for mode in (Mode.FULL, Mode.SLOW, Mode.FULL):
        rig.guard.switch(mode)
        for _ in range(10):
            before = rig.pose.astype(float)
            rig.tick(rig.guard.motion.aim + by(0, 0, 0, 0, 15.0, 0) * (1 if rig.pose[4] < 0 else -1))
            speeds.append(np.abs(rig.pose - before)[4] / DT)
    assert max(speeds[15:20]) <= 300 * 0.25 + 1e-3
    assert max(speeds[:10]) > 200


def test_an_arm_that_was_moved_by_hand_while_holding_goes_on_from_there():
    rig = Rig(mode=Mode.HOLD)
    moved = POSE + by(60.0, 0.5, 0, 0, 0, 0)
    rig.guard.switch(Mode.FULL)
    verdict = rig.tick(moved + by(1, 0, 0, 0, 0, 0), state=moved)
    assert not verdict.is_holding
    np.testing.assert_allclose(verdict.command, POSE + by(61.0, 0, 0, 0, 0, 0), atol=0.6)


def test_restarting_begins_at_the_measured_pose():
    rig = Rig()
    rig.wave()
    rig.guard.restart()
    verdict = rig.tick(None, state=POSE + 3)
    np.testing.assert_allclose(verdict.command, POSE + 3, atol=1e-5)


# The table


def fingertips_m(pose) -> np.ndarray:
    return LIMITS.workspace.chain.positions_m(np.asarray(pose, dtype=np.float64)[None])[0, :2]


@pytest.mark.parametrize("speed", [0.5, 2.0, 6.0, 15.0])
@pytest.mark.parametrize("mode", [Mode.FULL, Mode.SLOW])
def test_the_fingertips_stop_above_the_table(speed, mode):
    rig = Rig(LIMITS, mode)
    target = POSE.copy()
    for _ in range(60):
        target = target + by(0, speed, 0, 0, 0, 0)
        target[1] = min(target[1], rig.pose[1] + 20)
        rig.tick(target)
        assert fingertips_m(rig.pose)[:, 2].min() >= -1e-4
    assert "workspace" in rig.guard.state().num_findings
    assert "fingertip could not stop before" in " ".join(rig.verdicts[-1].reasons)
    assert fingertips_m(rig.pose)[:, 2].min() < 0.03, "it comes near"


def test_at_the_table_the_gripper_still_closes_and_the_arm_still_rises():
    rig = Rig(LIMITS)
    low = POSE + by(0, 40.0, 0, 0, 0, 0)
    for _ in range(40):
        rig.tick(low if abs(low[1] - rig.pose[1]) < 24 else rig.pose + by(0, 3.0, 0, 0, 0, 0))
    height = fingertips_m(rig.pose)[:, 2].min()
    for _ in range(10):
        verdict = rig.tick(np.append(rig.pose[:1], np.append([rig.pose[1] + 2], np.append(rig.pose[2:5], 45.0))))
    assert verdict.command[GRIPPER] == pytest.approx(45.0, abs=1.0)
    for _ in range(10):
        rig.tick(rig.pose - by(0, 2.0, 0, 0, 0, 0))
    assert fingertips_m(rig.pose)[:, 2].min() > height + 0.01


def test_an_arm_below_the_table_may_only_rise():
    below = POSE + by(0, 40.0, 0, 0, 0, 0)
    assert fingertips_m(below)[:, 2].min() < -0.02
    rig = Rig(LIMITS, pose=below)
    for _ in range(5):
        rig.tick(rig.pose + by(0, 2.0, 0, 0, 0, 0))
    np.testing.assert_allclose(rig.pose, below, atol=1e-4)
    for _ in range(10):
        verdict = rig.tick(rig.pose - by(0, 2.0, 0, 0, 0, 0))
    assert not verdict.is_holding
    assert rig.pose[1] < below[1] - 15


# Limits of robots


@pytest.mark.parametrize("tag", ["so101_tabletop", "so100_so101_molmoact2", "yam_dual_molmoact2", "franka_droid"])
def test_every_robot_with_joint_poses_has_limits(tag):
    limits = MotionLimits.of(EMBODIMENTS[tag])
    assert limits.names == EMBODIMENTS[tag].action_names
    grippers = [name for name, closing in zip(limits.names, limits.closing, strict=True) if closing]
    assert grippers == [name for name in limits.names if "gripper" in name]
    assert set(limits.closing) - {0.0} == {1.0 if tag == "franka_droid" else -1.0}
    middle = np.mean(limits.ranges, axis=1)
    guard = Guard(limits, mode=Mode.FULL)
    for i in range(20):
        verdict = guard.admit(middle, Reading(time_s=i / 10, state=middle.astype(np.float32)), i / 10)
        assert not verdict.faults
    np.testing.assert_allclose(verdict.command, middle, atol=1e-6)


@pytest.mark.parametrize("tag", ["libero", "widowx_bridge"])
def test_robots_that_are_told_differences_have_none(tag):
    with pytest.raises(ValueError, match="delta end-effector pose"):
        MotionLimits.of(EMBODIMENTS[tag])


def test_ranges_and_workspace_may_be_given():
    ranges = tuple((-10.0, 10.0 + i) for i in range(6))
    limits = MotionLimits.of(SO101_TABLETOP, ranges=ranges)
    assert limits.ranges == ranges
    assert limits.workspace is LIMITS.workspace


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"jump": (1.0,)}, "6 dimensions need as many numbers in jump"),
        ({"ranges": ((0.0, 0.0),) * 6}, "finite lowest"),
        ({"ranges": ((0.0, np.inf),) * 6}, "finite lowest"),
        ({"speed_per_s": (0.0,) * 6}, "positive"),
        ({"acceleration_per_s2": (np.nan,) * 6}, "positive"),
        ({"slow_share": 1.5}, "slow_share"),
        ({"jump": (0.0,) * 6}, "jump"),
    ],
)
def test_limits_that_make_no_sense_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(LIMITS, **change)
