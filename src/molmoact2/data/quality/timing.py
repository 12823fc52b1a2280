"""Rules about time: the stamps of the frames, the rate they keep, and video that is as long as the numbers."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.quality.findings import Found, Place, Rule, Severity, episodes_at
from molmoact2.data.quality.material import Material

STEP_TOLERANCE = 0.2
"""Of a frame's duration: how far one step may be off."""
RATE_TOLERANCE = 0.02
"""Relative: how far the median step may be off."""
FRAMES_TOLERANCE = 0.6
"""Frames by which a video may differ from what it should be; more than rounding, less than one."""
SHORTEST_EPISODE_S = 1.0


def _steps(material: Material) -> NDArray[np.float64]:
    """[frames - 1] seconds from each frame to the next, NaN from one episode to the next."""
    return np.where(material.is_inner, np.diff(material.timestamps.astype(np.float64)), np.nan)


def _places(material: Material, is_wrong: NDArray[np.bool_]) -> tuple[Place, ...]:
    """A place per episode: its first wrong step."""
    rows = np.flatnonzero(is_wrong)
    episodes, first = np.unique(material.episode_of[rows], return_index=True)
    frames = material.frame_of[rows[first]]
    return tuple(
        Place(episode=int(episode), first_frame=int(frame), last_frame=int(frame) + 1)
        for episode, frame in zip(episodes, frames, strict=True)
    )


def time_goes_back(material: Material) -> Iterator[Found]:
    """Timestamps that stand still or go back."""
    is_wrong = _steps(material) <= 0
    if is_wrong.any():
        yield Found(measured=f"{is_wrong.sum()} steps of zero or less", places=_places(material, is_wrong))


def wrong_rate(material: Material) -> Iterator[Found]:
    """The usual step is not 1 / fps."""
    steps = _steps(material)
    step_s = float(np.median(steps[material.is_inner])) if material.is_inner.any() else 1 / material.fps
    if abs(step_s * material.fps - 1) > RATE_TOLERANCE:
        yield Found(
            measured=f"the median step is {step_s:.4f} s, fps says {1 / material.fps:.4f} s ({material.fps:g} Hz)"
        )


def time_gap(material: Material) -> Iterator[Found]:
    """Steps that are much longer or shorter than the usual one: frames were dropped or came in bursts."""
    steps = _steps(material)
    usual_s = np.median(steps[material.is_inner]) if material.is_inner.any() else 1.0
    is_wrong = (np.abs(steps / usual_s - 1) > STEP_TOLERANCE) & (steps > 0)
    if is_wrong.any():
        measured = (
            f"{is_wrong.sum()} steps differ by more than {STEP_TOLERANCE:.0%}, the longest is {np.nanmax(steps):.3f} s"
        )
        yield Found(measured=measured, places=_places(material, is_wrong))


def late_start(material: Material) -> Iterator[Found]:
    """Episodes whose first timestamp is not 0."""
    first = material.timestamps[material.starts]
    late = np.flatnonzero(np.abs(first) * material.fps > STEP_TOLERANCE)
    if len(late):
        yield Found(
            measured=f"the first frame is at {first[late[0]]:.3f} s, not 0",
            places=episodes_at(late, first_frame=0, last_frame=0),
        )


def short_video(material: Material) -> Iterator[Found]:
    """Video that is shorter than the rows of its episode."""
    yield from _video_lengths(material, sign=1, words="too short")


def long_video(material: Material) -> Iterator[Found]:
    """Video that the table of episodes says is longer than the rows of its episode."""
    yield from _video_lengths(material, sign=-1, words="too long")


def _video_lengths(material: Material, *, sign: int, words: str) -> Iterator[Found]:
    for camera in material.cameras:
        parts = [part for part in material.video_lengths if part.camera == camera]
        rows = material.lengths[[part.episode for part in parts]]
        promised = sign * (rows - np.array([part.promised_frames for part in parts]))
        stored = rows - np.array([part.stored_frames for part in parts])
        lacking = np.fmax(promised, stored if sign > 0 else promised)
        wrong = np.flatnonzero(lacking > FRAMES_TOLERANCE)
        if len(wrong):
            measured = f"{camera}: {len(wrong)} episodes, up to {lacking.max():.0f} frames {words}"
            yield Found(measured=measured, places=episodes_at((parts[i].episode for i in wrong), camera=camera))


def short_episode(material: Material) -> Iterator[Found]:
    """Episodes that end before anything can have been done."""
    short = np.flatnonzero(material.lengths < SHORTEST_EPISODE_S * material.fps)
    if len(short):
        shortest = material.lengths.min()
        measured = (
            f"{len(short)} episodes are shorter than {SHORTEST_EPISODE_S:g} s, the shortest has {shortest} frames"
        )
        yield Found(measured=measured, places=episodes_at(short))


RULES = (
    Rule(
        name="time_goes_back",
        severity=Severity.ERROR,
        title="Time stands still or goes back",
        why="Images are found by time: such frames get the wrong image, or the dataset cannot be read.",
        fix="Write timestamps as frame number / fps, starting at 0 in every episode.",
        look=time_goes_back,
    ),
    Rule(
        name="wrong_rate",
        severity=Severity.ERROR,
        title="Not recorded at the rate it says",
        why="A plan's steps are taken to last 1 / fps. At another rate the robot moves too fast or too slowly.",
        fix="Correct fps in meta/info.json, or resample.",
        look=wrong_rate,
    ),
    Rule(
        name="time_gap",
        severity=Severity.WARNING,
        title="Uneven steps",
        why="Where frames were dropped, the robot seems to jump, and an action chunk covers more time than it says.",
        fix="Drop or split these episodes, and find out why the recorder was late (disk, USB bandwidth, exposure).",
        look=time_gap,
    ),
    Rule(
        name="late_start",
        severity=Severity.ERROR,
        title="Episodes do not start at time 0",
        why="Images are looked up by the timestamp within the episode's video: every frame gets a wrong image.",
        fix="Subtract the first timestamp of each episode.",
        look=late_start,
    ),
    Rule(
        name="short_video",
        severity=Severity.ERROR,
        title="Video shorter than the numbers",
        why="The last frames have no image, or, where frames were dropped on the way, every image is too late.",
        fix="Record these episodes again, or leave them out.",
        look=short_video,
        needs=("images",),
    ),
    Rule(
        name="long_video",
        severity=Severity.WARNING,
        title="Video longer than the numbers",
        why="Rows were dropped that the camera still saw, so images and actions may be shifted against each other.",
        fix="Look at the end of such an episode: does the image fit the state?",
        look=long_video,
        needs=("images",),
    ),
    Rule(
        name="short_episode",
        severity=Severity.WARNING,
        title="Very short episodes",
        why="They are false starts: most of an action chunk there is padding.",
        fix="Leave them out: molmoact2 data filter does.",
        look=short_episode,
    ),
)
