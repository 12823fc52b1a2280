"""What a policy says before it acts: a depth map, or the action itself, token by token. Batches of one.

    thinking    … <action_output>  ->  <depth_start> codes <depth_end>
    speaking    …                  ->  <action_start> codes <action_end> <|im_end|>

Facts: architecture.md 7 and 8.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from molmoact2.model.attention import KeyValueCache, LayerKeyValues
from molmoact2.model.generate import decode_until, feed
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.tokens.vocabulary import TokenFamily

TOKENS_PER_STEP = 16
"""Longest spoken action, in tokens per step of the horizon."""
TOKENS_AFTER_CODES = 8
"""A depth map ends within so many tokens after its codes, or within the horizon if that is longer."""


@dataclass(kw_only=True)
class Speech:
    """A prompt and what was said after it: its cache of keys and values grows as it goes on."""

    model: MolmoAct2
    cache: KeyValueCache
    logits: Float[Tensor, " v"]
    """Scores of the next token."""
    prompt_ids: Int[Tensor, "1 s"]
    generated: list[int] = field(default_factory=list)
    """Ids said so far."""

    @classmethod
    def begin(
        cls, model: MolmoAct2, inputs: ModelInputs, image_features: Float[Tensor, "i d"], *, room: int
    ) -> "Speech":
        """Read a prompt, leaving `room` for tokens after it."""
        text, length = model.config.text_config, inputs.token_ids.shape[1]
        shape = (text.num_hidden_layers, 1, text.num_key_value_heads, length + room, text.head_dim)
        cache = KeyValueCache(shape, dtype=image_features.dtype, device=model.device)
        encoding = model.read(inputs, image_features, cache)
        return cls(model=model, cache=cache, logits=model.logits(encoding.hidden[0, -1]), prompt_ids=inputs.token_ids)

    def say(self, token_ids: list[int]) -> None:
        """Append known tokens, all in one pass."""
        self.logits = feed(self.model, self.cache, token_ids)
        self.generated += token_ids

    def go_on_until(self, stop_id: int, *, max_tokens: int, what: str) -> None:
        """Append the likeliest tokens up to and including `stop_id`; DecodingError if it does not come in time."""
        token_ids, self.logits = decode_until(
            self.model, self.cache, self.logits, stop_id=stop_id, max_tokens=max_tokens, what=what
        )
        self.generated += token_ids

    def context(self) -> tuple[list[LayerKeyValues], Int[Tensor, "1 s"], Bool[Tensor, "1 s"]]:
        """Keys and values, ids and validity of everything read and said so far."""
        said = torch.tensor([self.generated], dtype=torch.long, device=self.prompt_ids.device)
        token_ids = torch.cat((self.prompt_ids, said), dim=1)
        return self.cache.layers(), token_ids, self.cache.valid[:, : self.cache.length]


def think(
    speech: Speech,
    family: TokenFamily,
    *,
    previous: Int[np.ndarray, " num_depth_codes"],
    changed: Bool[np.ndarray, " num_depth_codes"],
    horizon: int,
) -> Int[np.ndarray, " num_depth_codes"]:
    """Say the depth map and return its codes: where `changed`, the likeliest depth token, elsewhere the previous code.

    Known tokens wait until a decision needs them, so that each run of unchanged cells costs no pass of its own.
    """
    codes, waiting = previous.copy(), [family.start]
    for cell in range(len(codes)):
        if changed[cell]:
            speech.say(waiting)
            codes[cell] = int(speech.logits[family.first : family.first + family.count].argmax())
            waiting = []
        waiting.append(family.first + int(codes[cell]))
    speech.say(waiting)
    limit = max(TOKENS_AFTER_CODES, horizon)
    speech.go_on_until(family.end, max_tokens=limit, what="depth map")
    return codes


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


def room_for(*, thinks: bool, speaks: bool, num_depth_codes: int, horizon: int, num_levels: int) -> int:
    """The most tokens that may be said: an action of `num_levels` levels is at most so many tokens, and three more."""
    depth = 1 + num_depth_codes + max(TOKENS_AFTER_CODES, horizon)
    return thinks * depth + speaks * max(TOKENS_PER_STEP * horizon, num_levels + 3)
