"""How often the doctor finds a mistake, and how often it complains of a healthy arm, on recorded episodes.

    python -m benchmarks.doctor --dataset runs/nano-so101/data --policy nano-so101

Every so many episodes of the checkpoint's own data are examined as they are, then with one mistake at a time; the
reference is the first episode.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from molmoact2.cli.doctor import local, recorded
from molmoact2.robots.calibration import OLD_SO_FRAME
from molmoact2.robots.doctor.examine import diagnose
from molmoact2.robots.doctor.finding import Finding
from molmoact2.robots.doctor.sample import Sample, View

GRIPPER, ELBOW, WRIST = np.arange(6) == 5, np.arange(6) == 2, np.arange(6) == 3


def joints(change: Callable[[np.ndarray], np.ndarray], sample: Sample) -> Sample:
    """An arm that tells its joints otherwise."""
    return replace(sample, states=change(sample.states), actions=None)


def at_start(sample: Sample) -> Sample:
    """The arm as it stands before it moves."""
    return replace(sample, states=np.repeat(sample.states[:1], len(sample.states), axis=0), actions=None)


def exchanged(sample: Sample) -> Sample:
    """Two cameras under one another's name."""
    (one, first), (other, second) = sample.views.items()
    return replace(sample, views={one: replace(second, name=one), other: replace(first, name=other)})


def blue_first(sample: Sample) -> Sample:
    """Cameras whose driver gives blue first."""

    def turned(view: View) -> View:
        return replace(view, thumbnails=view.thumbnails[..., ::-1], picture=view.picture[..., ::-1])

    return replace(sample, views={name: turned(view) for name, view in sample.views.items()})


MISTAKES: dict[str, tuple[Callable[[Sample], Sample], str, str]] = {
    "today's calibration for the old": (partial(joints, OLD_SO_FRAME.to_arm), "joint ranges", 'calibration = "old"'),
    "old calibration for today's": (partial(joints, OLD_SO_FRAME.to_model), "joint ranges", 'calibration = "new"'),
    "wrist_flex flipped": (partial(joints, lambda q: np.where(WRIST, -q, q)), "joint ranges", "send -wrist_flex"),
    "elbow_flex off by 90": (partial(joints, lambda q: q + 90 * ELBOW), "joint ranges", "send elbow_flex -90"),
    "elbow_flex flipped": (partial(joints, lambda q: np.where(ELBOW, -q, q)), "joint ranges", "send -elbow_flex"),
    "radians": (partial(joints, lambda q: np.where(GRIPPER, q, np.deg2rad(q))), "joint ranges", "multiply by 180/pi"),
    "gripper as a fraction": (
        partial(joints, lambda q: np.where(GRIPPER, q / 100, q)),
        "joint ranges",
        "multiply by 100",
    ),
    "gripper inverted": (
        partial(joints, lambda q: np.where(GRIPPER, 100 - q, q)),
        "joint ranges",
        "the other way round",
    ),
    "views exchanged": (exchanged, "swapped views", "exchange"),
    "blue first": (blue_first, "colour order", "exchange red and blue"),
}
"""Mistake -> how it is made, the check that should find it, and words of the fix that it should propose."""


def main() -> None:
    """Print what is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="runs/nano-so101/data")
    parser.add_argument("--policy", default="nano-so101")
    parser.add_argument("--every", type=int, default=27, help="examine every so many episodes")
    parser.add_argument("--episodes", type=int, default=2700)
    arguments = parser.parse_args()

    card, _, _ = local(arguments.policy, None, is_asked=False)
    reference = recorded(arguments.dataset, 0)
    samples = [recorded(arguments.dataset, episode) for episode in range(1, arguments.episodes, arguments.every)]

    def examine(sample: Sample, with_reference: bool) -> tuple[Finding, ...]:
        given = reference if with_reference else None
        return diagnose(sample, card, checkpoint=arguments.policy, reference=given).findings

    print(f"{len(samples)} episodes of {arguments.dataset}, {arguments.policy}")
    for with_reference in (False, True):
        print(f"\n{'with' if with_reference else 'without'} a reference recording")
        complaints = Counter(
            (finding.check, finding.severity)
            for sample in samples
            for finding in examine(sample, with_reference)
            if finding.severity in ("warning", "problem")
        )
        print(f"  complaints of healthy arms: {dict(complaints) or 'none'}")
        for name, (make, check, words) in MISTAKES.items():
            rates = [
                rate(make, check, words, samples, partial(examine, with_reference=with_reference), before)
                for before in (at_start, None)
            ]
            print(f"  {name:<34} still arm: {rates[0]}   moving arm: {rates[1]}")


def rate(
    make: Callable[[Sample], Sample],
    check: str,
    words: str,
    samples: list[Sample],
    examine: Callable[[Sample], tuple[Finding, ...]],
    before: Callable[[Sample], Sample] | None,
) -> str:
    """How often a mistake is complained of, and how often the right fix is proposed."""
    noticed = mended = 0
    for sample in samples:
        findings = [
            finding for finding in examine(make(before(sample) if before else sample)) if finding.check == check
        ]
        ill = [finding for finding in findings if finding.severity in ("warning", "problem")]
        noticed += bool(ill)
        mended += any(words in finding.fix for finding in ill)
    return f"noticed {100 * noticed / len(samples):3.0f} %, right fix {100 * mended / len(samples):3.0f} %"


if __name__ == "__main__":
    main()
