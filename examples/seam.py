"""What happens where two plans meet that do not agree: position, speed and acceleration of one joint, as a picture.

python examples/seam.py            writes seam.png; needs matplotlib
"""

import numpy as np
from matplotlib.figure import Figure

from molmoact2.control.executor import Executor
from molmoact2.control.guard import Guard, Mode
from molmoact2.control.limits import MotionLimits
from molmoact2.control.plan import Plan
from molmoact2.control.robot import Reading
from molmoact2.control.strategies import make_strategy
from molmoact2.embodiments import SO101_TABLETOP

LIMITS = MotionLimits.of(SO101_TABLETOP)
START = np.array((0.0, -60.0, 30.0, 60.0, 0.0, 40.0))
COMMAND_HZ = 60
SEAM_S = 0.8
"""When the second plan comes, 0.1 s after what it was made for."""


def plan(sequence: int, observed_at_s: float, shoulder_deg) -> Plan:
    """A second of motion: the shoulder goes where `shoulder_deg` of the time says, everything else rests."""
    actions = np.tile(START, (16, 1))
    actions[:, 0] = shoulder_deg(observed_at_s + np.arange(16) * LIMITS.period_s)
    arrived_at_s = observed_at_s + 0.1
    return Plan(
        actions=actions.astype(np.float32),
        observed_at_s=observed_at_s,
        period_s=LIMITS.period_s,
        sequence=sequence,
        arrived_at_s=arrived_at_s,
    )


def shoulder(strategy: str, *, guarded: bool) -> np.ndarray:
    """[ticks] commands of the shoulder in degrees, with or without the guard behind the executor."""
    executor, guard = Executor(make_strategy(strategy), 6, SO101_TABLETOP.control_hz), Guard(LIMITS, mode=Mode.FULL)
    command, commands = START, []
    first = plan(0, 0.0, lambda t: 40 * np.clip(t, 0, 2) ** 2)
    second = plan(1, SEAM_S - 0.1, lambda t: 8 - 30 * (t - SEAM_S))
    executor.take(first, 0.0)
    guard.admit(None, Reading(time_s=-1 / COMMAND_HZ, state=command.astype(np.float32)), -1 / COMMAND_HZ)
    for now in np.arange(0, 1.4, 1 / COMMAND_HZ):
        if now >= SEAM_S:
            executor.take(second, now)  # dropped as out of order from the second time on
        target = executor.target(now)
        reading = Reading(time_s=now, state=command.astype(np.float32))
        command = guard.admit(target, reading, now).command if guarded else target
        commands.append(command[0])
    return np.array(commands, dtype=np.float64)


VARIANTS = (
    ("plans as they come", {"color": "#c8553d", "lw": 1.2}, shoulder("replan", guarded=False)),
    ("… behind the guard", {"color": "#1f6f8b", "lw": 2.2}, shoulder("replan", guarded=True)),
    ("blended, behind the guard", {"color": "#e0a030", "lw": 2.2}, shoulder("blend", guarded=True)),
)
BOUNDS = (None, LIMITS.speed_per_s[0], LIMITS.acceleration_per_s2[0])

figure = Figure(figsize=(7.6, 6.4), layout="constrained")
axes = figure.subplots(3, 1, sharex=True)
for label, style, position in VARIANTS:
    speed = np.diff(position, prepend=position[0]) * COMMAND_HZ
    curves = (position, speed, np.diff(speed, prepend=0) * COMMAND_HZ)
    for axis, curve in zip(axes, curves, strict=True):
        axis.plot(np.arange(len(curve)) / COMMAND_HZ, curve, label=label, **style)
names = ("position [deg]", "speed [deg/s]", "acceleration [deg/s²]")
for axis, name, bound in zip(axes, names, BOUNDS, strict=True):
    axis.set_ylabel(name)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    for sign in (-1, 1) if bound else ():
        axis.axhline(sign * bound, color="0.45", lw=0.9, ls="--")
        axis.set_ylim(-2.2 * bound, 2.2 * bound)
axes[0].legend(frameon=False, loc="upper left")
axes[0].set_title("The second plan comes at 0.8 s and wants something else", fontsize=11, loc="left")
axes[-1].set_xlabel("time [s]; dashed: the bounds, which the raw plans leave far behind")
figure.savefig("seam.png", dpi=110)
