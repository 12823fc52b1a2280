"""Depth maps that a batch of prompts says, decoded by guessing them whole and mending the guess.

    prompt <depth_output> <action_output> <depth_start> c0 c1 ... c99 <depth_end>
                                          \\__ a draft: the map of the last call __/

Prompt and draft are read in one pass, which also says what the likeliest code of every cell is, given the codes before
it. Cells that did not change keep their code. Where a changed cell's code is not the likeliest one, all changed cells
take their likeliest code, and what stands behind the first of them is read again. Each pass so makes at least one cell
final, and the end is the map that decoding one cell after the other gives: code i is then the likeliest after the codes
before it. This is speculative decoding with Jacobi iterations, whose only fixed point is greedy decoding. Facts:
architecture.md 7.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from molmoact2.inference.transcript import Transcript
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.tokens.vocabulary import TokenFamily


@dataclass(kw_only=True)
class DepthMaps:
    """The depth maps of b prompts with n cells each, as far as they are decided."""

    transcript: Transcript
    family: TokenFamily
    codes: Int[Tensor, "b n"]
    likeliest: Int[Tensor, "b n"]
    """The likeliest code of each cell after the `codes` before it."""
    last: Float[Tensor, "b 2 d"]
    """Hidden states of the last code and of the end."""
    passes: int = 1
    """Runs of the decoder so far, the one that read the prompts included."""

    @classmethod
    def begin(
        cls,
        model: MolmoAct2,
        inputs: ModelInputs,
        image_features: Float[Tensor, "i d"],
        *,
        family: TokenFamily,
        draft: Int[np.ndarray, "b n"],
        room: int,
    ) -> "DepthMaps":
        """Read prompts with a draft of their maps behind them; `room` is for the maps and whatever follows.

        Raises:
            ValueError: the draft has a code that the checkpoint does not know.
        """
        family.check(draft, "code")
        codes = torch.from_numpy(draft).to(model.device)
        said = _span(family, codes)
        length, count = inputs.token_ids.shape[1], said.shape[1]
        transcript, hidden = Transcript.begin(model, inputs.followed_by(said), image_features, room=room - count)
        maps = cls(transcript=transcript, family=family, codes=codes, likeliest=codes, last=hidden[:, -2:])
        maps.likeliest = maps._likeliest(hidden[:, length:-2])
        return maps

    @property
    def start(self) -> int:
        """Slot of `<depth_start>`."""
        return self.transcript.token_ids.shape[1] - self.codes.shape[1] - 2

    def settle(self, changed: Bool[np.ndarray, "b n"]) -> None:
        """Decide the cells that changed; the others keep their codes."""
        is_open = torch.from_numpy(changed).to(self.codes.device)
        cells = torch.arange(self.codes.shape[1], device=self.codes.device)
        while True:
            wanted = torch.where(is_open, self.likeliest, self.codes)
            is_wrong = (wanted != self.codes).any(dim=0)
            first = int(torch.where(is_wrong, cells, len(cells)).min())
            if first == len(cells):
                return
            self.codes = wanted
            self._read_again(first)

    def _read_again(self, first: int) -> None:
        """Read the maps from cell `first` on, whose code has changed; those before stay as they are."""
        said, start = _span(self.family, self.codes), self.start
        self.transcript.rewind(start + 1 + first)
        hidden = self.transcript.extend(said[:, 1 + first :])
        self.likeliest = torch.cat((self.likeliest[:, : first + 1], self._likeliest(hidden[:, :-2])), dim=1)
        self.last = hidden[:, -2:]
        self.passes += 1

    def _likeliest(self, hidden: Float[Tensor, "b m d"]) -> Int[Tensor, "b m"]:
        first = self.family.first
        return self.transcript.model.logits(hidden, slice(first, first + self.family.count)).argmax(dim=-1)

    def are_ended(self) -> bool:
        """Whether every map ends after its last code, as its network would say by itself."""
        following = self.transcript.model.logits(self.last[:, 0]).argmax(dim=-1)
        return bool((following == self.family.end).all())


def _span(family: TokenFamily, codes: Int[Tensor, "b n"]) -> Int[Tensor, "b n+2"]:
    """Token ids of start, the codes, end."""
    edge = codes.new_ones(len(codes), 1)
    return torch.cat((edge * family.start, codes + family.first, edge * family.end), dim=1)
