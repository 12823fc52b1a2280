"""Think: which cells of whose depth map are said, when, and what is remembered of it.

    now      the map of this observation is said before the action: where nothing changed it is the last one
    ahead    the action reads the last map as it is; that of this observation is said while the robot moves

Facts: architecture.md 7; thinking ahead is ours.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from molmoact2.depth.codec import DepthCodec
from molmoact2.inference.depth_map import DepthMaps
from molmoact2.inference.session import DepthInTheMaking, DepthMemory, DepthPlan, Session
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.tokens.vocabulary import TokenFamily
from molmoact2.types import DepthReasoning

BACKGROUND = ThreadPoolExecutor(max_workers=1, thread_name_prefix="think-ahead")
"""Says depth maps while robots move, one batch after the other: they all want the same device."""


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """What a batch of observations is to think."""

    images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
    """The main image of each."""
    sessions: Sequence[Session | None]
    plans: Sequence[DepthPlan]
    family: TokenFamily
    is_ahead: bool
    codec: DepthCodec | None

    @classmethod
    def of(
        cls,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        sessions: Sequence[Session | None],
        *,
        family: TokenFamily,
        num_codes: int,
        is_ahead: bool,
        codec: DepthCodec | None,
    ) -> "Thinking":
        """Compare the images with those that the sessions remember."""
        plans = [(session or Session()).plan(image, num_codes) for image, session in zip(images, sessions, strict=True)]
        return cls(images=images, sessions=sessions, plans=plans, family=family, is_ahead=is_ahead, codec=codec)

    def begin(self, model: MolmoAct2, inputs: ModelInputs, features: Float[Tensor, "i d"], *, room: int) -> DepthMaps:
        """Read the prompts, with the maps of the last calls as drafts."""
        draft = np.stack([plan.draft for plan in self.plans])
        return DepthMaps.begin(model, inputs, features, family=self.family, draft=draft, room=room)

    def settle(self, maps: DepthMaps) -> None:
        """Decide what is to be decided before the action: what changed, or, thinking ahead, maps that are not there."""
        is_due = np.array([plan.is_first or not self.is_ahead for plan in self.plans])
        maps.settle(np.stack([plan.changed for plan in self.plans]) & is_due[:, None])

    def thoughts(self, maps: DepthMaps, gates: Float[Tensor, "l b"] | None) -> list[DepthReasoning]:
        """What there is to say about the maps that the actions were read from."""
        codes = maps.codes.cpu().numpy()
        opened = [None] * len(codes) if gates is None else gates.float().cpu().numpy().T
        return [
            DepthReasoning(
                codes=codes[row],
                changed=plan.changed if plan.is_first or not self.is_ahead else np.zeros_like(plan.changed),
                age=int(self.is_ahead and not plan.is_first),
                passes=maps.passes,
                gates=opened[row],
                decoder=None if self.codec is None else self.codec.picture,
            )
            for row, plan in enumerate(self.plans)
        ]

    def remember(self, maps: DepthMaps) -> None:
        """Keep the maps for the next calls; thinking ahead, say them first, in the background."""
        if self.is_ahead:
            later = BACKGROUND.submit(self._think_ahead, maps)
            self._keep([DepthInTheMaking(maps=later, row=row) for row in range(len(self.plans))])
        else:
            self._keep(self._memories(maps))

    @torch.inference_mode()
    def _think_ahead(self, maps: DepthMaps) -> list[DepthMemory]:
        is_old = np.array([not plan.is_first for plan in self.plans])
        maps.settle(np.stack([plan.changed for plan in self.plans]) & is_old[:, None])
        return self._memories(maps)

    def _memories(self, maps: DepthMaps) -> list[DepthMemory]:
        codes = maps.codes.cpu().numpy()
        kept = zip(self.images, codes, self.plans, strict=True)
        return [DepthMemory(image=image.copy(), codes=row, num_kept=plan.num_kept) for image, row, plan in kept]

    def _keep(self, memories: Sequence[DepthMemory | DepthInTheMaking]) -> None:
        for session, memory in zip(self.sessions, memories, strict=True):
            if session is not None:
                session.depth = memory
