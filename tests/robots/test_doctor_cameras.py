"""The doctor on cameras: each illness is found, and healthy ones are left in peace."""

from dataclasses import replace

import numpy as np
import pytest
from patients import CARD, OLD_CARD, PATIENT, YAM_CARD, said, sample_for, severities, view, views

from molmoact2.robots.doctor.sample import View, Watch

CHECKS = (
    *("camera names", "image size", "frame rate", "dead views", "frozen views"),
    *("same view twice", "swapped views", "colour order"),
)
STILL = sample_for(CARD, states=np.tile(PATIENT.states[0], (30, 1)), actions=None)


def shown(**changes: View) -> dict[str, View]:
    return views() | changes


def frozen(name: str = "front", frames: int = 30) -> View:
    watch = Watch(name)
    for index in range(frames):
        watch.add(view(name, number=1, frames=1).picture, index / 15)
    return watch.view()


def exchanged() -> dict[str, View]:
    front, wrist = views().values()
    return {"front": replace(wrist, name="front"), "wrist": replace(front, name="wrist")}


def blue_first() -> dict[str, View]:
    return {
        name: replace(each, thumbnails=each.thumbnails[..., ::-1], picture=each.picture[..., ::-1])
        for name, each in views().items()
    }


@pytest.mark.parametrize("check", CHECKS)
def test_healthy_cameras_are_left_in_peace(check: str):
    assert severities(check) == {"ok"}
    assert severities(check, reference=PATIENT) == {"ok"}


def test_missing_camera_and_the_one_that_could_be_it():
    ill = replace(PATIENT, views={"front": views()["front"], "hand": replace(views()["wrist"], name="hand")})
    assert severities("camera names", ill) == {"problem"}
    assert "misses wrist" in said("camera names", ill)
    assert "rename 'hand' to 'wrist'" in said("camera names", ill)


def test_no_cameras_at_all():
    assert "connect it" in said("camera names", replace(PATIENT, views={}))


def test_camera_that_nobody_asked_for():
    ill = replace(PATIENT, views=shown(top=view("top", number=3)))
    assert severities("camera names", ill) == {"warning"}


def test_names_are_known_by_their_aliases():
    shots = {"camera_front": 1, "left_cam": 2, "observation.images.right": 3}
    arms = sample_for(YAM_CARD, views={name: view(name, number=number) for name, number in shots.items()})
    assert severities("camera names", arms, YAM_CARD) == {"ok"}
    assert "camera_front is top" in said("camera names", arms, YAM_CARD)


def test_order_of_unnamed_cameras_is_for_a_human():
    assert severities("camera names", sample_for(OLD_CARD), OLD_CARD) == {"unchecked"}


def test_small_upright_and_changing_sizes():
    small, upright = Watch("front"), Watch("front")
    small.add(np.zeros((90, 160, 3), np.uint8), 0.0)
    upright.add(np.zeros((640, 480, 3), np.uint8), 0.0)
    assert severities("image size", replace(PATIENT, views=shown(front=small.view()))) == {"ok", "warning"}
    assert "higher than wide" in said("image size", replace(PATIENT, views=shown(front=upright.view())))
    small.add(np.zeros((480, 640, 3), np.uint8), 1.0)
    ill = replace(PATIENT, views=shown(front=small.view()))
    assert severities("image size", ill) == {"ok", "problem"}
    assert "160 x 90, 640 x 480 by turns" in said("image size", ill)


def test_other_proportions_than_the_recording():
    wide = Watch("front")
    wide.add(np.zeros((360, 640, 3), np.uint8), 0.0)
    ill = replace(PATIENT, views=shown(front=wide.view()))
    assert severities("image size", ill) == {"ok"}
    assert severities("image size", ill, reference=PATIENT) == {"ok", "warning"}


def test_slow_uneven_and_late_cameras():
    slow = replace(PATIENT, views=shown(front=view("front", number=1, rate_hz=10)))
    assert "10.0 new frames a second" in said("frame rate", slow)
    assert severities("frame rate", slow) == {"ok", "warning"}
    front = views()["front"]
    gap = replace(front, times_s=front.times_s + np.where(np.arange(30) > 12, 0.5, 0.0))
    assert "frames get lost" in said("frame rate", replace(PATIENT, views=shown(front=gap)))
    late = view("front", number=1, age_s=0.4)
    assert "400 ms old" in said("frame rate", replace(PATIENT, views=shown(front=late)))
    assert severities("frame rate", replace(slow, kind="simulated")) == {"ok"}


def test_dead_camera():
    watch = Watch("front")
    watch.add(np.full((240, 320, 3), 3, np.uint8), 0.0)
    ill = replace(PATIENT, views=shown(front=watch.view()))
    assert severities("dead views", ill) == {"ok", "problem"}
    assert "about 3 of 255" in said("dead views", ill)


def test_frozen_camera():
    ill = replace(PATIENT, views=shown(front=frozen()))
    assert severities("frozen views", ill) == {"ok", "problem"}
    assert "while the arm moved" in said("frozen views", ill)
    still = replace(STILL, views=shown(front=frozen()))
    assert severities("frozen views", still) == {"ok", "problem"}, "a living camera has noise"
    assert severities("frozen views", replace(still, kind="simulated")) == {"ok", "unchecked"}
    assert severities("frozen views", replace(ill, kind="simulated")) == {"ok", "problem"}


def test_camera_that_gave_one_frame():
    ill = replace(PATIENT, views=shown(front=frozen(frames=1)))
    assert "one frame in 1.9 s" in said("frozen views", ill)


def test_one_camera_by_two_names():
    front = views()["front"]
    assert severities("same view twice", replace(PATIENT, views={"front": front, "wrist": front})) == {"problem"}


def test_cameras_of_other_sizes_are_not_the_same():
    watch = Watch("wrist")
    watch.add(views()["front"].picture[:120], 0.0)
    assert severities("same view twice", replace(PATIENT, views=shown(wrist=watch.view()))) == {"ok"}


def test_exchanged_cameras_by_how_they_move():
    ill = replace(PATIENT, views=exchanged())
    assert severities("swapped views", ill) == {"warning"}
    assert severities("swapped views", replace(STILL, views=exchanged())) == {"unchecked"}, "nothing moved"


def test_exchanged_cameras_by_the_recording():
    for sample in (PATIENT, STILL):
        assert severities("swapped views", replace(sample, views=exchanged()), reference=PATIENT) == {"problem"}


def test_views_too_alike_to_tell():
    front = views()["front"]
    twins = replace(PATIENT, views={"front": front, "wrist": front})
    assert severities("swapped views", twins, reference=twins) == {"unchecked"}


def test_views_that_cannot_be_told_without_a_recording():
    assert severities("swapped views", sample_for(OLD_CARD), OLD_CARD) == {"unchecked"}


def test_blue_first():
    ill = replace(PATIENT, views=blue_first())
    assert "warning" in severities("colour order", ill)
    assert severities("colour order", ill, reference=PATIENT) == {"warning"}
    assert "may be exchanged" in said("colour order", ill)
    assert "probably exchanged" in said("colour order", ill, reference=PATIENT)
