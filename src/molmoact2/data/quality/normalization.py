"""Rules about what the q01/q99 normalisation does to the numbers (training.md C): constants, long tails, clipping."""

from collections.abc import Iterator

import numpy as np

from molmoact2.data.quality.findings import Found, Place, Rule, Severity, episodes_at
from molmoact2.data.quality.material import Material

SMALLEST_RATIO = 1e-3
"""Distance from q01 to q99 over the whole range; below it a dimension is constant but for exceptions."""
LONGEST_TAIL = 2.0
"""How far beyond q01 or q99 a value may be, in distances from q01 to q99."""
MOST_CLIPPED = 0.5
"""Share of an episode's values of one dimension that may lie far outside."""
FAR = 0.25
"""What is far outside, in distances from q01 to q99."""


def constant(material: Material) -> Iterator[Found]:
    """Dimensions with one single value."""
    for vector in material.vectors:
        dimensions = np.flatnonzero(vector.range == 0)
        if len(dimensions):
            places = tuple(Place(dimension=vector.label(d)) for d in dimensions)
            names = ", ".join(vector.names[d] for d in dimensions)
            yield Found(measured=f"{vector.kind}: {names}", places=places)


def nearly_constant(material: Material) -> Iterator[Found]:
    """Dimensions that hardly ever leave one value."""
    for vector in material.vectors:
        is_rare = (vector.range > 0) & (vector.span < SMALLEST_RATIO * vector.range)
        for d in np.flatnonzero(is_rare):
            sizes = f"98 % of the values are within {vector.span[d]:.3g}, all within {vector.range[d]:.3g}"
            yield Found(measured=f"{vector.label(d)}: {sizes}", places=(Place(dimension=vector.label(d)),))


def long_tail(material: Material) -> Iterator[Found]:
    """Dimensions with values far beyond the percentiles that they are scaled by."""
    for vector in material.vectors:
        span = np.where(vector.span > 0, vector.span, np.inf)
        beyond = np.maximum(vector.quantiles[1] - vector.quantiles[0], vector.quantiles[4] - vector.quantiles[3])
        is_long = (beyond / span > LONGEST_TAIL) & (vector.span >= SMALLEST_RATIO * vector.range)
        for d in np.flatnonzero(is_long):
            limit = LONGEST_TAIL * span[d]
            far = (vector.values[:, d] < vector.quantiles[1, d] - limit) | (
                vector.values[:, d] > vector.quantiles[3, d] + limit
            )
            label = vector.label(d)
            low, q01, _, q99, high = vector.quantiles[:, d]
            measured = f"{label}: from {low:.4g} to {high:.4g}, 98 % of it within {q01:.4g} to {q99:.4g}"
            yield Found(measured=measured, places=episodes_at(np.unique(material.episode_of[far]), dimension=label))


def strange_episode(material: Material) -> Iterator[Found]:
    """Episodes that spend most of their time well outside the usual range of one dimension."""
    for vector in material.vectors:
        room = FAR * vector.span
        is_far = (vector.values < vector.quantiles[1] - room) | (vector.values > vector.quantiles[3] + room)
        share = material.per_episode(np.add, is_far.astype(np.float64)) / material.lengths[:, None]
        is_strange = (share > MOST_CLIPPED) & (vector.span >= SMALLEST_RATIO * vector.range) & (vector.span > 0)
        for d in np.flatnonzero(is_strange.any(axis=0)):
            episodes, label = np.flatnonzero(is_strange[:, d]), vector.label(d)
            measured = (
                f"{label}: mostly far below q01 or above q99 in {len(episodes)} of {material.num_episodes} episodes"
            )
            yield Found(measured=measured, places=episodes_at(episodes, dimension=label))


RULES = (
    Rule(
        name="constant",
        severity=Severity.NOTE,
        title="Dimensions that never change",
        why="The network sees 0 for them, and restores the one value: they cannot be learned.",
        fix="Nothing, if this joint is not used. Otherwise the recorder does not read it.",
        look=constant,
    ),
    Rule(
        name="nearly_constant",
        severity=Severity.WARNING,
        title="Dimensions that hardly ever change",
        why="They are scaled by the distance of the 1st to the 99th percentile, here next to nothing: noise fills the "
        "whole range, and what little they do is clipped.",
        fix="Use min_max normalisation, or record episodes in which this joint is used.",
        look=nearly_constant,
    ),
    Rule(
        name="long_tail",
        severity=Severity.WARNING,
        title="Values far outside the usual range",
        why="They are clipped to the 1st or 99th percentile: the policy never sees them, and never goes there.",
        fix="If they are mistakes, leave these episodes out; if they matter, record more of them.",
        look=long_tail,
    ),
    Rule(
        name="strange_episode",
        severity=Severity.WARNING,
        title="Episodes beyond the usual range",
        why="Most of these episodes is clipped by the normalisation, so they teach something else than what was done.",
        fix="Look whether they were recorded with another calibration or set-up; leave them out if so.",
        look=strange_episode,
    ),
)
