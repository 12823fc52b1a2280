"""Rules about episodes that are there twice, and about how many there are."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.quality.findings import Found, Rule, Severity, episodes_at
from molmoact2.data.quality.material import Material

PROFILE_STEPS = 24
"""Points along an episode at which near duplicates are compared."""
NEAR = 0.01
"""Largest difference of near duplicates, as a fraction of each dimension's range."""
MOST_NEIGHBOURS = 200
"""Episodes that each one is compared with, of those most like it; exact copies are found without a limit."""
FEWEST_EPISODES = 10
FEW_EPISODES = 200
"""Below it the paper's authors advise to fine-tune with LoRA (paper section 4)."""


def copies(material: Material) -> Iterator[Found]:
    """Episodes whose actions and states are the same to the last bit."""
    first: dict[bytes, int] = {}
    pairs = []
    rows = np.ascontiguousarray(np.concatenate([material.action.raw, material.state.raw], axis=1))
    for episode, (start, length) in enumerate(zip(material.starts, material.lengths, strict=True)):
        original = first.setdefault(rows[start : start + length].tobytes(), episode)
        pairs.append((original, episode))
    twice = [(original, episode) for original, episode in pairs if original != episode]
    if twice:
        original, episode = twice[0]
        measured = f"{len(twice)} episodes are copies of earlier ones, such as {episode} of {original}"
        yield Found(measured=measured, places=episodes_at(episode for _, episode in twice))


def near_copies(material: Material) -> Iterator[Found]:
    """Episodes of about the same length with nearly the same actions all along, other than exact copies."""
    exact = {place.episode for found in copies(material) for place in found.places}
    candidates = np.array([e for e in range(material.num_episodes) if e not in exact], np.int64)
    shapes = profiles(material)[candidates]
    moves = np.ptp(shapes, axis=1).max(axis=1) > NEAR
    near = [(int(candidates[a]), int(candidates[b])) for a, b in similar(shapes, NEAR) if moves[a] and moves[b]]
    ratio = material.lengths / material.lengths[:, None] if near else np.ones((1, 1))
    near = [(a, b) for a, b in near if 0.9 < ratio[a, b] < 1.1]
    if near:
        later = sorted({max(pair) for pair in near})
        measured = (
            f"{len(later)} episodes are within {NEAR:.0%} of an earlier one, such as {max(near[0])} of {min(near[0])}"
        )
        yield Found(measured=measured, places=episodes_at(later))


def profiles(material: Material) -> NDArray[np.float32]:
    """[episodes, PROFILE_STEPS, d] actions at evenly spaced moments, as fractions of the range of each dimension."""
    along = np.linspace(0, 1, PROFILE_STEPS)
    rows = material.starts[:, None] + np.rint(along * (material.lengths[:, None] - 1)).astype(np.int64)
    span = np.where(material.action.range > 0, material.action.range, 1.0)
    return (material.action.values[rows] / span).astype(np.float32)


def similar(shapes: NDArray[np.float32], tolerance: float) -> list[tuple[int, int]]:
    """Pairs of rows [n, …] that differ by at most `tolerance` anywhere.

    Rows are sorted by their mean, which differs at most as much as they do, so only neighbours are compared.
    """
    flat = shapes.reshape(len(shapes), int(np.prod(shapes.shape[1:])))
    order = np.argsort(flat.mean(axis=1), kind="stable")
    means = flat.mean(axis=1)[order]
    pairs: list[tuple[int, int]] = []
    for step in range(1, min(len(flat), MOST_NEIGHBOURS + 1)):
        close = np.flatnonzero(means[step:] - means[:-step] <= tolerance)
        is_same = np.abs(flat[order[close]] - flat[order[close + step]]).max(axis=1, initial=0) <= tolerance
        pairs += [(int(order[i]), int(order[i + step])) for i in close[is_same]]
    return pairs


def few(material: Material) -> Iterator[Found]:
    """Fewer episodes than LoRA is advised for."""
    if FEWEST_EPISODES <= material.num_episodes < FEW_EPISODES:
        yield Found(measured=f"{material.num_episodes} demonstrations")


def very_few(material: Material) -> Iterator[Found]:
    """Hardly any episodes."""
    if material.num_episodes < FEWEST_EPISODES:
        yield Found(measured=f"{material.num_episodes} demonstrations")


RULES = (
    Rule(
        name="copy",
        severity=Severity.WARNING,
        title="Episodes that are there twice",
        why="They count twice in training, and in a split they leak from training into testing.",
        fix="Leave the copies out.",
        look=copies,
    ),
    Rule(
        name="near_copy",
        severity=Severity.WARNING,
        title="Episodes that are nearly the same",
        why="Replayed or scripted motions teach a motion by heart, whatever the cameras see.",
        fix="Leave them out, or record with the objects elsewhere.",
        look=near_copies,
    ),
    Rule(
        name="few_demonstrations",
        severity=Severity.NOTE,
        title="Few demonstrations",
        why="With fewer than about 200, training all weights forgets more than it learns.",
        fix="Fine-tune with LoRA and a fully trained action expert (paper section 4), or record more.",
        look=few,
    ),
    Rule(
        name="very_few_demonstrations",
        severity=Severity.WARNING,
        title="Hardly any demonstrations",
        why="So few do not show what may vary: the policy will repeat them.",
        fix="Record more; from 50 of one task on it is worth trying.",
        look=very_few,
    ),
)
