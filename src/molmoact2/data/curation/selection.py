"""What a curation keeps of a dataset, and which rule dropped the rest. Every frame is in exactly one of the two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from molmoact2.data.curation.idle import Span
from molmoact2.data.errors import require


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What one rule dropped."""

    rule: str
    reason: str
    """What it saw, in a sentence."""
    spans: tuple[Span, ...]

    @property
    def num_frames(self) -> int:
        """Frames of all its spans."""
        return num_frames(self.spans)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is kept of one dataset."""

    source: str
    fps: float
    lengths: tuple[int, ...]
    """Frames of every episode of the dataset."""
    spans: tuple[Span, ...]
    """What is kept, in order; a whole episode is a span too."""
    dropped: tuple[Dropped, ...]
    """In the order in which the rules were asked; a frame counts for the first rule that drops it."""

    @property
    def episodes(self) -> tuple[int, ...]:
        """Episodes of which something is kept."""
        return tuple(dict.fromkeys(span.episode for span in self.spans))

    @property
    def num_frames(self) -> int:
        """Frames that are kept."""
        return num_frames(self.spans)

    def to_dict(self) -> dict[str, Any]:
        """The selection as JSON: `episodes`, and `spans` as [episode, first frame, last frame], inclusive."""
        return {
            "source": self.source,
            "episodes": list(self.episodes),
            "spans": [list(span) for span in self.spans],
            "kept": {"episodes": len(self.episodes), "spans": len(self.spans), "frames": self.num_frames},
            "of": {"episodes": len(self.lengths), "frames": sum(self.lengths)},
            "dropped": [
                {
                    "rule": part.rule,
                    "reason": part.reason,
                    "frames": part.num_frames,
                    "spans": [list(span) for span in part.spans],
                }
                for part in self.dropped
            ],
        }


def num_frames(spans: Sequence[Span]) -> int:
    """Frames of spans that do not overlap."""
    return sum(span.last - span.first + 1 for span in spans)


def whole(lengths: Mapping[int, int]) -> tuple[Span, ...]:
    """Whole episodes, given their lengths."""
    return tuple(Span(episode, 0, length - 1) for episode, length in lengths.items())


def remainder(lengths: Mapping[int, int], kept: Sequence[Span]) -> tuple[Span, ...]:
    """What is left of whole episodes when the spans `kept`, in order, are taken out."""
    inside: dict[int, list[Span]] = {episode: [] for episode in lengths}
    for span in kept:
        inside[span.episode].append(span)
    rest = []
    for episode, length in lengths.items():
        begins = [0, *(span.last + 1 for span in inside[episode])]
        ends = [*(span.first for span in inside[episode]), length]
        rest += [Span(episode, begin, end - 1) for begin, end in zip(begins, ends, strict=True) if begin < end]
    return tuple(rest)


def require_complete(selection: Selection) -> None:
    """Raise ValueError unless kept and dropped frames are all frames of the dataset."""
    counted = selection.num_frames + sum(part.num_frames for part in selection.dropped)
    total = sum(selection.lengths)
    require(counted == total, f"{selection.source}: {counted} frames are accounted for, the dataset has {total}.")
