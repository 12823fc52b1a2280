"""Checks of time and of the policy's answer: rates, latency, and where the first action would go."""

from collections.abc import Iterable

import numpy as np

from molmoact2.robots.doctor.case import Case, Trial
from molmoact2.robots.doctor.finding import Finding, first, ok, problem, unchecked, warning

NO_RATE = "nobody says how many actions a second this robot executes"
SLOW = 0.9
"""Share of the rate that is wanted, below which a rate is slow."""
PAUSE_SHARE = 0.25
"""Of its time that an arm may stand waiting for answers before it is worth saying."""
FAR_SHARE = 0.5
"""Of a joint's training range that a first action may be from the arm."""
LATE_SHARE = 0.5
"""Of a plan that may be over before the next one arrives, before it is worth saying."""


def reading_rate(case: Case) -> Iterable[Finding]:
    """Joints are read as often as the policy acts, and recordings were."""
    wanted_hz, periods = case.card.control_hz, np.diff(case.sample.times_s)
    if periods.min() < 0 or not periods.any():
        yield problem(
            "reading rate",
            f"{len(periods) + 1} readings whose times do not go forward",
            "without time nothing can be executed at the right moment",
            "see that the robot's clock is monotonic",
        )
        return
    rate_hz, worst_s = 1 / float(np.median(periods[periods > 0])), float(periods.max())
    is_other_rate = case.sample.kind == "recorded" and abs(rate_hz - wanted_hz) > (1 - SLOW) * wanted_hz
    seen = f"{rate_hz:.1f} a second, at most {1000 * worst_s:.0f} ms apart; the policy acts at {wanted_hz:g} Hz"
    yield first(
        (not wanted_hz, unchecked("reading rate", NO_RATE, "compare with its training data")),
        (
            is_other_rate,
            warning(
                "reading rate",
                f"recorded at {rate_hz:.1f} Hz, the policy acts at {wanted_hz:g} Hz",
                "a chunk of the policy lasts as long as its training data say; at another rate it is another motion",
                f"record, or resample, at {wanted_hz:g} Hz",
            ),
        ),
        (
            rate_hz < SLOW * wanted_hz,
            warning(
                "reading rate",
                seen,
                "the arm is commanded on old news",
                "look for a slow bus, camera or computer; read less often what is not needed",
            ),
        ),
        (True, ok("reading rate", seen)),
    )


def answer(case: Case) -> Iterable[Finding]:
    """The policy answers what this robot sends."""
    match case.trial:
        case Trial(refusal=str(refusal)):
            yield problem(
                "answer",
                f"the policy refuses what this robot sends: {refusal}",
                "it would never get an action",
                "mend what it says; the checks above may say more",
            )
        case Trial(seconds=float()):
            yield ok("answer", "the policy answers what this robot sends")


def first_step(case: Case) -> Iterable[Finding]:
    """The first action is near where the arm is; one far off shows units, signs or offsets that differ."""
    action, usual = case.trial.first_action, case.usual
    if action is None or usual is None or not case.has_joints or action.shape != case.sample.states[-1].shape:
        return
    leap = action - case.sample.states[-1]
    share = np.abs(leap) / np.ptp(usual, axis=1)
    worst = int(np.argmax(np.where(case.gripper, 0.0, share)))
    name, unit = case.card.action_names[worst], case.units[worst]
    seen = f"the first action is farthest from the arm in {name}: {leap[worst]:+.3g} {unit}"
    leaps = warning(
        "first step",
        f"{seen}, {100 * share[worst]:.0f} % of where the training data were",
        "a policy goes on from where the arm is; a leap is a sign of another unit, sign or zero, or of a strange pose",
        "mend the joints first; if they are right, begin at a pose in which a task begins",
    )
    yield first((share[worst] > FAR_SHARE, leaps), (True, ok("first step", seen)))


def latency(case: Case) -> Finding:
    """Answers come before there is nothing left to execute."""
    card, act_s = case.card, case.trial.seconds
    if act_s is None:
        return unchecked(
            "latency",
            "nobody measured how long an answer takes",
            "compare with a server (--server), or ask the checkpoint here too (--ask)",
        )
    if not card.control_hz:
        return unchecked("latency", f"an answer takes {1000 * act_s:.0f} ms; {NO_RATE}")
    executed_s, planned_s = card.n_action_steps / card.control_hz, card.action_horizon / card.control_hz
    seen = (
        f"an answer takes {1000 * act_s:.0f} ms; {card.n_action_steps} of {card.action_horizon} planned steps are "
        f"executed, {executed_s:.2f} of {planned_s:.2f} s"
    )
    pause_share, late_share = act_s / (act_s + executed_s), act_s / planned_s
    match case.execution:
        case "open-loop" if pause_share > PAUSE_SHARE:
            return warning(
                "latency",
                f"{seen}; the arm stands still {100 * pause_share:.0f} % of the time",
                "it waits for every chunk, and moves unlike its training data where it starts and stops",
                "execute asynchronously, or make the policy faster (fewer flow steps, no thinking, another device)",
            )
        case "asynchronous" if late_share >= 1:
            return problem(
                "latency",
                f"{seen}; a plan is over before it arrives",
                "nothing would ever be executed",
                "make the policy faster (fewer flow steps, no thinking, another device), or execute open loop",
            )
        case "asynchronous" if late_share > LATE_SHARE:
            return warning(
                "latency",
                f"{seen}; {100 * late_share:.0f} % of a plan is over when it arrives",
                "the arm acts on what it saw long ago, and any delay leaves it without a plan",
                "make the policy faster (fewer flow steps, no thinking, another device)",
            )
    return ok("latency", seen)
