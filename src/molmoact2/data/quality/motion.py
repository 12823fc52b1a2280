"""Rules about how the robot moves: jumps, joints that are stuck, and time in which nothing happens."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from molmoact2.data.curation.idle import IdleRule, idle_frames, moving_spans
from molmoact2.data.quality.findings import Found, Place, Rule, Severity, episodes_at
from molmoact2.data.quality.material import Material, Vector

JUMP_SPEEDS = 4.0
"""A jump is this many times faster than all but 1 % of the steps that move at all ..."""
JUMP_RANGE = 0.25
"""... and crosses this fraction of the distance from the 1st to the 99th percentile in one step."""
MOST_IDLE_EPISODE = 0.8
MOST_IDLE_DATASET = 0.2


def jumps(material: Material) -> Iterator[Found]:
    """Steps that are far too large for one frame."""
    for vector in material.vectors:
        steps = np.abs(np.diff(vector.values, axis=0))[material.is_inner]
        moving = np.where(steps > 0, steps, np.nan)
        is_still = ~(steps > 0).any(axis=0)
        usual = np.nanquantile(np.where(is_still, 0.0, moving), 0.99, axis=0)
        is_jump = (steps > JUMP_SPEEDS * usual) & (steps > JUMP_RANGE * vector.span)
        rows = np.flatnonzero(material.is_inner)
        for d in np.flatnonzero(is_jump.any(axis=0)):
            where = rows[is_jump[:, d]]
            largest = steps[:, d].max()
            places = tuple(
                Place(episode=int(e), first_frame=int(f), last_frame=int(f) + 1, dimension=vector.label(d))
                for e, f in zip(material.episode_of[where], material.frame_of[where], strict=True)
            )
            measured = (
                f"{vector.label(d)}: {len(where)} steps of up to {largest:.4g} {vector.units[d]}, "
                f"99 % of its steps are below {usual[d]:.3g}"
            )
            yield Found(measured=measured, places=places)


def frozen_state(material: Material) -> Iterator[Found]:
    """State dimensions that do not change in an episode in which their action does."""
    states, actions = material.shared
    is_stuck = _extent(material, material.state)[:, states] == 0
    moves = _extent(material, material.action)[:, actions] > 0.1 * material.action.span[actions]
    frozen = is_stuck & moves & (material.action.span[actions] > 0)
    for d in np.flatnonzero(frozen.any(axis=0)):
        label = material.state.label(states[d])
        episodes = np.flatnonzero(frozen[:, d])
        measured = (
            f"{label} has one single value in {len(episodes)} of {material.num_episodes} episodes, its action moves"
        )
        yield Found(measured=measured, places=episodes_at(episodes, dimension=label))


def _extent(material: Material, vector: Vector) -> NDArray[np.float64]:
    """[episodes, d] highest minus lowest value."""
    return material.per_episode(np.maximum, vector.values) - material.per_episode(np.minimum, vector.values)


def idle_episode(material: Material) -> Iterator[Found]:
    """Episodes in which nearly nothing happens."""
    share = material.per_episode(np.add, idle_frames(material, IdleRule()).astype(np.float64)) / material.lengths
    idle = np.flatnonzero(share > MOST_IDLE_EPISODE)
    if len(idle):
        which = f"{len(idle)} of {material.num_episodes} episodes"
        yield Found(
            measured=f"{which} stand still for more than {MOST_IDLE_EPISODE:.0%} of the time", places=episodes_at(idle)
        )


def idle_time(material: Material) -> Iterator[Found]:
    """A dataset that stands still for much of its time."""
    rule = IdleRule()
    spans = moving_spans(idle_frames(material, rule), material.starts, fps=material.fps, rule=rule)
    kept = sum(span.last - span.first + 1 for span in spans)
    share = 1 - kept / material.num_frames
    if share > MOST_IDLE_DATASET:
        yield Found(
            measured=f"{share:.0%} of the frames are in pauses, or in motions of less than {rule.shortest_span_s:g} s"
        )


RULES = (
    Rule(
        name="jump",
        severity=Severity.WARNING,
        title="Jumps",
        why="No joint moves so far in one frame: frames are missing, or a sensor or the teleoperation failed for a "
        "moment. A policy that learns it jerks.",
        fix="Look at the frames. Leave the episode out, or split it there.",
        look=jumps,
    ),
    Rule(
        name="frozen_state",
        severity=Severity.ERROR,
        title="State that does not move",
        why="The joint is told to move and its reading stays as it is: the sensor is stuck or not connected.",
        fix="Check the cable and the name of this joint in the recorder; leave these episodes out.",
        look=frozen_state,
        needs=("shared",),
    ),
    Rule(
        name="idle_episode",
        severity=Severity.WARNING,
        title="Episodes without motion",
        why="They teach the policy to wait, and from a standing start a policy that waits waits for ever.",
        fix="Leave them out: molmoact2 data filter --idle does.",
        look=idle_episode,
    ),
    Rule(
        name="idle_time",
        severity=Severity.WARNING,
        title="Much time without motion",
        why="Pauses are the most predictable part of the data, so the policy learns them first.",
        fix="Keep the motions only: molmoact2 data filter --idle does, as it was done for DROID.",
        look=idle_time,
    ),
)
