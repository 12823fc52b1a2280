"""From datasets and a `Curation` to selections: gates for the dataset, gates for its episodes, then spans."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from molmoact2.data.curation.gates import DATASET_GATES, EPISODE_GATES, Candidate, Curation
from molmoact2.data.curation.idle import Span, idle_frames, moving_spans
from molmoact2.data.curation.selection import Dropped, Selection, remainder, require_complete, whole
from molmoact2.data.datasets import open_dataset
from molmoact2.data.errors import require
from molmoact2.data.quality.opening import material_of
from molmoact2.embodiments import EMBODIMENTS
from molmoact2.registry import unknown

UNREADABLE = "unreadable"


def curate(source: str | Path, curation: Curation, *, embodiment: str | None = None) -> Selection:
    """Decide what to keep of one dataset.

    Args:
        source: folder or hub id.
        curation: what is asked.
        embodiment: tag of the robot, for units and the schema; by default the dataset's robot type where it is a tag.

    Returns:
        The selection. A dataset that cannot be opened or has no episode is dropped by the rule `unreadable`.

    Raises:
        ValueError: when the embodiment is not in the table, or rewards are missing or no scores.
    """
    if embodiment is not None and embodiment not in EMBODIMENTS:
        raise unknown("embodiment", embodiment, EMBODIMENTS)
    try:
        dataset = open_dataset(source)
        require(len(dataset) > 0, f"{source} has no finished episode, so there is nothing to choose from.")
    except ValueError as error:
        dropped = Dropped(rule=UNREADABLE, reason=str(error), spans=())
        return Selection(source=str(source), fps=0.0, lengths=(), spans=(), dropped=(dropped,))
    material = material_of(dataset, embodiment=EMBODIMENTS.get(embodiment or ""), images=False)
    candidate = Candidate(name=str(source), dataset=dataset, material=material)
    left = dict(enumerate(material.lengths.tolist()))
    dropped = list(refused(candidate, curation, left))
    spans, cut = cut_spans(candidate, curation, left)
    selection = Selection(
        source=str(source),
        fps=material.fps,
        lengths=tuple(material.lengths.tolist()),
        spans=spans,
        dropped=(*dropped, *cut),
    )
    require_complete(selection)
    return selection


def refused(candidate: Candidate, curation: Curation, left: dict[int, int]) -> Iterator[Dropped]:
    """Ask the gates one after the other; what they drop is taken out of `left` (episode -> length)."""
    for rule, gate in DATASET_GATES.items():
        reason = gate(candidate, curation) if left else ""
        if reason:
            yield Dropped(rule=rule, reason=reason, spans=whole(left))
            left.clear()
    for rule, episode_gate in EPISODE_GATES.items():
        reasons = {episode: why for episode, why in episode_gate(candidate).items() if episode in left}
        if reasons:
            lengths = {episode: left.pop(episode) for episode in reasons}
            yield Dropped(rule=rule, reason=next(iter(reasons.values())), spans=whole(lengths))


def cut_spans(
    candidate: Candidate, curation: Curation, left: dict[int, int]
) -> tuple[tuple[Span, ...], Sequence[Dropped]]:
    """Cut pauses out of the episodes that are left, and drop what is too short."""
    material, rule = candidate.material, curation.idle
    shortest = rule.shortest_span_s * material.fps
    short = {episode: length for episode, length in left.items() if length < shortest}
    longer = {episode: length for episode, length in left.items() if episode not in short}
    kept = whole(longer)
    if curation.drops_idle:
        spans = moving_spans(idle_frames(material, rule), material.starts, fps=material.fps, rule=rule)
        kept = tuple(span for span in spans if span.episode in longer)
    reasons = {
        "short": (f"shorter than {rule.shortest_span_s:g} s", whole(short)),
        "idle": ("the robot stands still, or moves too briefly", remainder(longer, kept)),
    }
    return kept, [Dropped(rule=name, reason=why, spans=spans) for name, (why, spans) in reasons.items() if spans]
