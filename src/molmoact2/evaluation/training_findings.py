"""What an examination found, in plain sentences: does it predict, look, listen, or only replay what its state suggests?

A verdict is given when the whole 95 % interval lies on one side of a threshold of `sensitivity`; else it stays open.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from molmoact2.evaluation.examination import POLICY, Examination
from molmoact2.evaluation.sensitivity import AVERAGE_STATE, OTHER_WORDS, Interval, mildest

Tone = Literal["good", "bad", "open"]

MUCH_SATURATED = 0.05
"""Share of a dimension's recorded values beyond its range, or of planned values at its bounds beyond the share of
recorded ones, from which on there is a warning."""

CAMERAS = {
    "relies": "It looks at its cameras: with all of them blank it errs {} times as much.",
    "uses": "It looks at its cameras, how much is not certain: with all of them blank it errs {} times as much.",
    "ignores": "It does not use its cameras: with all of them blank it errs {} times as much.",
    "unclear": "These frames do not say whether it uses its cameras: with all of them blank it errs {} times as much.",
}
WORDS = {
    "relies": "It listens: with another instruction it errs {} times as much.",
    "uses": "It listens, how much is not certain: with another instruction it errs {} times as much.",
    "ignores": "It ignores the words: with another instruction it errs {} times as much.",
    "unclear": "These frames do not say whether it listens: with another instruction it errs {} times as much.",
    "untestable": "Whether it listens cannot be tested: all episodes have the same instruction.",
}
SHORTCUTS: dict[str, tuple[Tone, str]] = {
    "state only": (
        "bad",
        "A state-only shortcut: what it sees does not make its plans better; all it knows is its joints and the words.",
    ),
    "images only": ("good", "No state-only shortcut: it plans from what it sees, whatever its joints say."),
    "neither": ("bad", "Neither images nor state make a difference: it plans the same average motion everywhere."),
    "images at least": ("good", "No state-only shortcut: it needs what it sees, and perhaps where its joints are."),
    "both": ("good", "No state-only shortcut: it needs both what it sees and where its joints are."),
    "unclear": ("open", "These frames do not say whether it takes a state-only shortcut."),
}
USED: dict[tuple[bool | None, bool | None], str] = {
    (True, True): "both",
    (True, None): "images at least",
    (True, False): "images only",
    (False, True): "state only",
    (False, None): "state only",
    (False, False): "neither",
}
"""Whether images and the state are used, None where that is unclear -> the answer; unclear for what is not here."""
TONES: dict[str, Tone] = {
    "better": "good",
    "relies": "good",
    "uses": "open",
    "ignores": "bad",
    "worse": "bad",
    "fits": "good",
    "saturated": "bad",
}
"""Of every other answer: open."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One measurement in words."""

    subject: str
    """"skill", "cameras", "words", "shortcut" or "saturation"."""
    answer: str
    """The verdict in a word or two."""
    tone: Tone
    sentence: str


def find(examination: Examination) -> list[Finding]:
    """The measurements in plain sentences."""
    return [
        find_skill(examination),
        find_cameras(examination),
        find_words(examination),
        find_shortcut(examination),
        find_saturation(examination),
    ]


def finding(subject: str, answer: str, sentence: str) -> Finding:
    """A finding whose tone follows from its answer."""
    return Finding(subject=subject, answer=answer, tone=TONES.get(answer, "open"), sentence=sentence)


def find_skill(examination: Examination) -> Finding:
    """Is it better than what sees nothing?"""
    answers = {name: compared(ratio) for name, ratio in examination.compared.items()}
    unbeaten = [name for name, answer in answers.items() if answer != "better"]
    answer = max(answers.values(), key=("better", "unclear", "worse").index)
    verdict = {
        "better": "It has learned what blind baselines do not know",
        "unclear": f"These frames do not say whether it is better than {' and '.join(unbeaten)}",
        "worse": f"It is no better than {' and '.join(unbeaten)}, so what follows says little",
    }[answer]
    errors = ", ".join(f"{name} by {percent(examination.errors[name].overall)}" for name in answers)
    own = percent(examination.errors[POLICY].overall)
    return finding("skill", answer, f"{verdict}: its plans are off by {own} of a joint's range, {errors}.")


def compared(ratio: Interval) -> str:
    """Whether an error is better or worse than that of a baseline, or nobody knows."""
    holds = {"better": ratio.high < 1, "worse": ratio.low >= 1}
    return next((answer for answer, is_so in holds.items() if is_so), "unclear")


def find_cameras(examination: Examination) -> Finding:
    """Does it look, and through which camera?"""
    effects = examination.effects
    blind = mildest(effects, "all cameras")
    others = {"all cameras", "noise", "words", "state"}
    single = dict.fromkeys(e.variation.subject for e in effects.values() if e.variation.subject not in others)
    each = ", ".join(f"{camera} {mildest(effects, camera).ratio.value:.2f}" for camera in single)
    more = f" Only one blank: {each}." if each else ""
    return finding("cameras", blind.answer, CAMERAS[blind.answer].format(interval_words(blind.ratio)) + more)


def find_words(examination: Examination) -> Finding:
    """Does it listen?"""
    swapped = examination.effects.get(OTHER_WORDS)
    if swapped is None:
        return finding("words", "untestable", WORDS["untestable"])
    return finding("words", swapped.answer, WORDS[swapped.answer].format(interval_words(swapped.ratio)))


def find_shortcut(examination: Examination) -> Finding:
    """Where does its accuracy come from?"""
    blind, numb = mildest(examination.effects, "all cameras"), examination.effects[AVERAGE_STATE]
    is_used = {"relies": True, "uses": True, "ignores": False}
    sees, feels = is_used.get(blind.answer), is_used.get(numb.answer)
    answer = USED.get((sees, feels), "unclear")
    tone, sentence = SHORTCUTS[answer]
    ratios = (
        f"It errs {interval_words(blind.ratio)} times as much with cameras blank, {interval_words(numb.ratio)} times "
        "with the average state in place of its own."
    )
    return Finding(subject="shortcut", answer=answer, tone=tone, sentence=f"{sentence} {ratios}")


def find_saturation(examination: Examination) -> Finding:
    """Does the data fit into what the checkpoint can see and say?"""
    state, action = examination.saturation["state"], examination.saturation["action"]
    assert action.predicted_at_bound is not None
    shares = {
        "recorded states beyond what it can see": (examination.state_names, state.recorded_outside),
        "recorded actions beyond what it can say": (examination.joints, action.recorded_outside),
        "plans at its bounds where recorded actions are not": (
            examination.joints,
            action.predicted_at_bound - action.recorded_at_bound,
        ),
    }
    loud = {
        what: [f"{names[i]} {percent(share[i])}" for i in np.flatnonzero(share > MUCH_SATURATED)]
        for what, (names, share) in shares.items()
    }
    warnings = "; ".join(f"{what}: {', '.join(dims)}" for what, dims in loud.items() if dims)
    sentences = {
        "saturated": f"The checkpoint's range is too narrow ({warnings}).",
        "fits": f"In no dimension are more than {percent(MUCH_SATURATED)} of the values cut off.",
    }
    answer = "saturated" if warnings else "fits"
    return finding("saturation", answer, sentences[answer])


def percent(share: float) -> str:
    """A share as a percentage."""
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def interval_words(interval: Interval) -> str:
    """For instance "1.93 (1.71 to 2.20)"; "an unknown number of" where it cannot be told."""
    known = f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"
    return known if np.isfinite(interval.value) else "an unknown number of"
