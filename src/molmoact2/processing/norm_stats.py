"""`norm_stats.json`: per embodiment, what its data look like and the words it is described with.

Facts: training.md C.4, deployment.md 7.2. Fields that change nothing here are kept in `document` and written again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from molmoact2.processing.normalize import MODES, NEEDED, Scaling, scaling_of
from molmoact2.registry import unknown
from molmoact2.tokens.reading import read_field, read_list, require

FORMAT = "molmoact2_norm_stats.v1"
FORMATS = (FORMAT, "1", 1, None)
"""The current one, and what older files say."""
QUANTITIES = ("min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureStats:
    """Statistics of one vector: of the state or of the action."""

    quantities: Mapping[str, Float[np.ndarray, " d"]]
    """Statistic ("min", "mean", "q01", …) -> its value in each dimension, in robot units."""
    mask: tuple[bool, ...] | None
    """False where a dimension is not normalised; None normalises all."""
    names: tuple[str, ...] | None
    """Of the dimensions, where the file says them."""

    @property
    def width(self) -> int:
        """Number of dimensions. The declared `action_dim` is the padded width instead."""
        return len(next(iter(self.quantities.values())))

    @classmethod
    def read(cls, document: Mapping[str, Any], mode: str, where: str) -> "FeatureStats":
        """Check and type one statistics object; ValueError says what is wrong in it."""
        present = [name for name in QUANTITIES if document.get(name) is not None]
        quantities = {name: np.array(read_list(document, name, float, where), np.float64) for name in present}
        missing = [name for name in NEEDED[mode] if name not in quantities]
        require(
            quantities and not missing,
            f"{where} lacks {', '.join(missing) or 'statistics'}, which norm_mode {mode!r} needs.",
        )
        mask, names = (
            read_optional_list(document, "mask", bool, where),
            read_optional_list(document, "names", str, where),
        )
        lengths = {name: len(values) for name, values in quantities.items()}
        lengths |= {name: len(values) for name, values in (("mask", mask), ("names", names)) if values is not None}
        is_even = len(set(lengths.values())) == 1 and 0 not in lengths.values()
        require(is_even, f"{where}: all lists must be of one length, at least 1, got {lengths}.")
        infinite = [name for name, values in quantities.items() if not np.isfinite(values).all()]
        require(not infinite, f"{where}: {', '.join(infinite)} must be finite.")
        return cls(quantities=quantities, mask=mask, names=names)

    @lru_cache  # noqa: B019 (statistics live as long as the processor)
    def scaling(self, mode: str) -> Scaling:
        """The map between robot units and the network's range."""
        everywhere = np.ones(self.width, bool)
        extremes = [self.quantities[name] for name in ("min", "max") if name in self.quantities]
        constant = extremes[0] == extremes[1] if len(extremes) == 2 else ~everywhere
        scaled = everywhere if self.mask is None else np.array(self.mask)
        return scaling_of(self.quantities.__getitem__, mode=mode, scaled=scaled, constant=constant)


@dataclass(frozen=True, kw_only=True, eq=False)
class TagStats:
    """What a checkpoint knows about one embodiment."""

    tag: str
    camera_keys: tuple[str, ...]
    """In the order the network sees them; empty means that any cameras may be given."""
    setup: str
    """The robot, in the words of the prompt."""
    control_mode: str
    """What an action means, in the words of the prompt."""
    action_horizon: int
    """Steps that are planned."""
    n_action_steps: int
    """Steps that are returned unless another number is asked for."""
    mode: str
    """How its values are normalised."""
    state: FeatureStats
    action: FeatureStats
    document: Mapping[str, Any]
    """The entry as it was read."""

    @classmethod
    def read(cls, tag: str, document: Mapping[str, Any], mode: str) -> "TagStats":
        """Check and type the entry of one tag."""
        where = f"norm_stats.json, tag {tag!r}"
        horizon = read_field(document, "action_horizon", int, where)
        n_action_steps = read_field(document, "n_action_steps", int, where)
        require(
            1 <= n_action_steps <= horizon,
            f"{where}: n_action_steps must be 1 to action_horizon ({horizon}), got {n_action_steps}.",
        )
        return cls(
            tag=tag,
            camera_keys=read_optional_list(document, "camera_keys", str, where) or (),
            setup=read_field(document, "setup_type", str, where),
            control_mode=read_field(document, "control_mode", str, where),
            action_horizon=horizon,
            n_action_steps=n_action_steps,
            mode=mode,
            state=FeatureStats.read(read_field(document, "state_stats", dict, where), mode, f"{where}, state_stats"),
            action=FeatureStats.read(read_field(document, "action_stats", dict, where), mode, f"{where}, action_stats"),
            document=document,
        )

    @property
    def state_scaling(self) -> Scaling:
        """The map of a state."""
        return self.state.scaling(self.mode)

    @property
    def action_scaling(self) -> Scaling:
        """The map of an action."""
        return self.action.scaling(self.mode)


@dataclass(frozen=True, kw_only=True)
class NormStats:
    """The statistics of every embodiment that a checkpoint was trained on."""

    tags: Mapping[str, TagStats]
    document: Mapping[str, Any]
    """The file as it was read, and as it is saved."""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "NormStats":
        """Check and type the content of a `norm_stats.json`; without a `norm_mode` it is min_max.

        To add an embodiment, read a document that has it: `NormStats.read(document_with_it)`.
        """
        mode, version = document.get("norm_mode", "min_max"), document.get("format")
        require(
            version in FORMATS and mode in MODES,
            f"norm_stats.json: format must be {FORMAT!r} and norm_mode one of {', '.join(MODES)}, "
            f"got {version!r} and {mode!r}.",
        )
        where = "norm_stats.json metadata_by_tag"
        entries = read_field(document, "metadata_by_tag", dict, "norm_stats.json")
        tags = {tag: TagStats.read(tag, read_field(entries, tag, dict, where), mode) for tag in entries}
        return cls(tags=tags, document=document)

    def with_tags(self, entries: Mapping[str, Mapping[str, Any]]) -> "NormStats":
        """The same statistics with these entries added, or put in the place of those of the same tags."""
        return NormStats.read({**self.document, "metadata_by_tag": {**self.document["metadata_by_tag"], **entries}})

    def tag(self, name: str | None) -> TagStats:
        """The entry of a tag; None means the only one there is."""
        if name is None and len(self.tags) == 1:
            return next(iter(self.tags.values()))
        known = ", ".join(sorted(self.tags))
        require(name is not None, f"This checkpoint knows {len(self.tags)} embodiments, name one: {known}.")
        if str(name) not in self.tags:
            raise unknown("embodiment", str(name), self.tags)
        return self.tags[str(name)]


def read_optional_list(document: Mapping[str, Any], name: str, kind: type, where: str) -> tuple[Any, ...] | None:
    """The list `document[name]`, or None where it is absent or null."""
    return None if document.get(name) is None else read_list(document, name, kind, where)
