"""What a policy says, token by token: words, or the action itself. Batches of one.

    speaking    …                  ->  <action_start> codes <action_end> <|im_end|>

Facts: architecture.md 8.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from molmoact2.inference.depth_map import DepthMaps
from molmoact2.inference.transcript import Transcript
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.tokens.vocabulary import TokenFamily

TOKENS_PER_STEP = 16
"""Longest spoken action, in tokens per step of the horizon."""
TOKENS_AFTER_CODES = 8
"""A depth map ends within so many tokens after its codes, or within the horizon if that is longer."""


class DecodingError(ValueError):
    """A checkpoint that does not end what it was asked to decode."""


@dataclass(kw_only=True)
class Speech:
    """One prompt and what was said after it."""

    transcript: Transcript
    logits: Float[Tensor, " v"]
    """Scores of the next token."""
    generated: list[int] = field(default_factory=list)
    """Ids said so far."""

    @classmethod
    def begin(
        cls, model: MolmoAct2, inputs: ModelInputs, image_features: Float[Tensor, "i d"], *, room: int
    ) -> "Speech":
        """Read a prompt, leaving `room` for tokens after it."""
        transcript, hidden = Transcript.begin(model, inputs, image_features, room=room)
        return cls(transcript=transcript, logits=model.logits(hidden[0, -1]))

    @classmethod
    def after(cls, maps: DepthMaps, *, horizon: int) -> "Speech":
        """Go on after one depth map, which ends when the network says so.

        Raises:
            DecodingError: it does not say so within a horizon of tokens.
        """
        transcript, num_said = maps.transcript, maps.codes.shape[1] + 2
        said = transcript.token_ids[0, -num_said:].tolist()
        if maps.are_ended():
            return cls(transcript=transcript, logits=transcript.model.logits(maps.last[0, 1]), generated=said)
        transcript.rewind(transcript.token_ids.shape[1] - 1)
        speech = cls(transcript=transcript, logits=transcript.model.logits(maps.last[0, 0]), generated=said[:-1])
        limit = max(TOKENS_AFTER_CODES, horizon)
        speech.go_on_until(maps.family.end, max_tokens=limit, what="depth map")
        return speech

    def say(self, token_ids: list[int]) -> None:
        """Append known tokens, all in one pass."""
        hidden = self.transcript.extend(torch.tensor([token_ids], device=self.logits.device))
        self.logits = self.transcript.model.logits(hidden[0, -1])
        self.generated += token_ids

    def go_on_until(self, stop_id: int, *, max_tokens: int, what: str) -> None:
        """Append the likeliest tokens up to and including `stop_id`; DecodingError if it does not come in time."""
        said: list[int] = []
        while not said or said[-1] != stop_id:
            if len(said) == max_tokens:
                raise unending(said, stop_id, what)
            said.append(int(self.logits.argmax()))
            self.say(said[-1:])


def speak_action(speech: Speech, *, end_of_turn: int, horizon: int) -> Int[np.ndarray, " n"]:
    """Say the action; return its ids, the end of the turn included."""
    begin = len(speech.generated)
    speech.go_on_until(end_of_turn, max_tokens=TOKENS_PER_STEP * horizon, what="spoken action")
    return np.array(speech.generated[begin:])


def speak_whole_action(
    speech: Speech, family: TokenFamily, lengths: Int[np.ndarray, " count"], *, num_levels: int, end_of_turn: int
) -> Int[np.ndarray, " n"]:
    """Say an action of exactly `num_levels` levels; return its codes.

    Each token is the likeliest of those that still fit; `lengths` are the levels that each code stands for, and some
    code must stand for one. Where the checkpoint says a whole action by itself, this is the same action.
    """
    codes, missing, waiting = [], num_levels, [family.start]
    levels = torch.from_numpy(lengths).to(speech.logits.device)
    while missing:
        speech.say(waiting)
        scores = speech.logits[family.first : family.first + len(lengths)]
        codes.append(int(scores.masked_fill((levels > missing) | (levels == 0), -torch.inf).argmax()))
        missing -= int(lengths[codes[-1]])
        waiting = [family.first + codes[-1]]
    speech.say([*waiting, family.end, end_of_turn])
    return np.array(codes)


def unending(said: list[int], stop_id: int, what: str) -> DecodingError:
    """The error of a checkpoint that goes on for too long; `what` names for people what it was to end."""
    return DecodingError(
        f"The checkpoint decoded {len(said)} tokens without ending its {what} (token id {stop_id}); the last ones were "
        f"{said[-5:]}. It was probably not trained for this mode."
    )


def room_for(*, thinks: bool, speaks: bool, num_depth_codes: int, horizon: int, num_levels: int) -> int:
    """The most tokens that may be said: an action of `num_levels` levels is at most so many tokens, and three more."""
    depth = 1 + num_depth_codes + max(TOKENS_AFTER_CODES, horizon)
    return thinks * depth + speaks * max(TOKENS_PER_STEP * horizon, num_levels + 3)
