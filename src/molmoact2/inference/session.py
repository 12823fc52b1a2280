"""One robot's episode: what a policy may remember from one call to the next. Nothing of it lives in the policy."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8

from molmoact2.depth.change import changed_cells
from molmoact2.tokens.reading import require


@dataclass(frozen=True, kw_only=True)
class DepthRefresh:
    """When a whole depth map is said anew, so that what is kept from call to call cannot drift away from the scene."""

    every: int | None = None
    """At every such call of an episode at the latest; None never does."""
    changed_fraction: float | None = None
    """As soon as more than this share of the cells changed, as when the camera moved; None never does."""

    def __post_init__(self) -> None:
        require(self.every is None or self.every >= 1, f"every must be at least 1 call, got {self.every}.")
        share = self.changed_fraction
        require(share is None or 0 <= share < 1, f"changed_fraction must be in [0, 1), got {share}.")

    def is_due(self, changed: Bool[np.ndarray, " cells"], num_kept: int) -> bool:
        """Whether everything is to be said anew, `num_kept` calls after it last was."""
        is_old = self.every is not None and num_kept >= self.every
        has_moved = self.changed_fraction is not None and changed.mean() > self.changed_fraction
        return bool(is_old or has_moved)


NEVER = DepthRefresh()
"""Cells are said anew where they changed, and nowhere else: as the releases do."""


@dataclass(frozen=True, kw_only=True)
class DepthMemory:
    """The last depth map, and the image it was made from."""

    image: UInt8[np.ndarray, "h w 3"]
    codes: Int[np.ndarray, " num_depth_codes"]
    num_kept: int = 0
    """Calls since every cell was said anew."""


@dataclass(frozen=True, kw_only=True)
class DepthInTheMaking:
    """A depth map that is being said in the background, together with others."""

    maps: "Future[list[DepthMemory]]"
    row: int
    """Which of them it is."""


@dataclass(frozen=True, kw_only=True)
class DepthPlan:
    """What of a depth map is to be said."""

    draft: Int[np.ndarray, " num_depth_codes"]
    """The codes of the last call; zeros where there are none."""
    changed: Bool[np.ndarray, " num_depth_codes"]
    """Cells to decide; the others keep their code."""
    num_kept: int
    """Calls since every cell was decided, this one included; 0 if all of them are now."""
    is_first: bool
    """Whether there is no map from a call before."""


class Session:
    """The random numbers and the depth memory of one episode. Make a new one when an episode begins, or `reset` it."""

    def __init__(self, seed: int | None = None, *, depth_refresh: DepthRefresh = NEVER) -> None:
        """`seed` makes the episode's noise repeatable; None draws a new seed."""
        self.generator = torch.Generator()
        self.depth_refresh = depth_refresh
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Begin another episode: forget the depth map and start the noise anew."""
        self.seed = self.generator.seed() if seed is None else self.generator.manual_seed(seed).initial_seed()
        self.depth = None

    @property
    def depth(self) -> DepthMemory | None:
        """The last depth map; waits for one that is being said in the background, and raises what went wrong there."""
        if isinstance(self._depth, DepthInTheMaking):
            self._depth = self._depth.maps.result()[self._depth.row]
        return self._depth

    @depth.setter
    def depth(self, memory: DepthMemory | DepthInTheMaking | None) -> None:
        self._depth = memory

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """A call that fails inside leaves the episode as it was: its depth map and its noise."""
        depth, noise = self._depth, self.generator.get_state()
        try:
            yield
        except ValueError:
            self._depth = depth
            self.generator.set_state(noise)
            raise

    def plan(self, image: UInt8[np.ndarray, "h w 3"], num_codes: int) -> DepthPlan:
        """What of the depth map of a new image is to be said.

        Raises:
            ValueError: the episode began with images of another size, or with another checkpoint's depth maps.
        """
        before = self.depth
        if before is None:
            nothing = np.zeros(num_codes, np.int64)
            return DepthPlan(draft=nothing, changed=np.ones(num_codes, bool), num_kept=0, is_first=True)
        require(
            before.image.shape == image.shape and before.codes.shape == (num_codes,),
            f"This session remembers a depth map of {len(before.codes)} cells from an image of "
            f"{list(before.image.shape)}, but now there are {num_codes} cells and an image of {list(image.shape)}. An "
            "episode keeps its checkpoint, its main camera and its size: begin another with policy.new_session().",
        )
        changed = changed_cells(before.image, image, side=round(num_codes**0.5))
        is_due = self.depth_refresh.is_due(changed, before.num_kept + 1)
        num_kept = 0 if is_due else before.num_kept + 1
        return DepthPlan(draft=before.codes, changed=changed | is_due, num_kept=num_kept, is_first=False)
