"""A checkpoint that can be asked for the next actions of a robot.

What it can do is decided here, and every question is checked; `call` then answers it.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Unpack, overload

import numpy as np
import torch

from molmoact2.depth.codec import DepthCodec
from molmoact2.inference.call import Call
from molmoact2.inference.decoding import Speech
from molmoact2.inference.real_time import guidance
from molmoact2.inference.request import ActOptions, Request
from molmoact2.inference.session import NEVER, DepthRefresh, Session
from molmoact2.model.action_expert import Modulation
from molmoact2.model.config import ModelConfig
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing import Encoded, Processor, TagStats
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.reading import require
from molmoact2.types import ActionChunk, Image, Observation


@dataclass(frozen=True, kw_only=True, eq=False)
class MolmoAct2Policy:
    """A network, its processor, and what it can do. It holds nothing about an episode; a `Session` does."""

    model: MolmoAct2
    processor: Processor
    action_tokenizer: ActionTokenizer | None = None
    """Reads spoken actions; without it there is no discrete mode."""
    depth_codec: DepthCodec | None = None
    """Turns depth codes into pictures and metres; thinking does not need it."""
    revision: str | None = None
    """Commit of the hub repository it came from; None for a directory."""
    modulations: dict[int, Modulation] = field(default_factory=dict, init=False, repr=False)
    """Number of flow steps -> what their times decide: computed at first use, kept as the weights do not change."""

    @property
    def config(self) -> ModelConfig:
        """The network's numbers."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.device

    @property
    def embodiments(self) -> tuple[str, ...]:
        """Tags of the robots it knows."""
        stats = self.processor.norm_stats
        return () if stats is None else tuple(stats.tags)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes in which the network can act. "discrete" also needs an `action_tokenizer`."""
        has_expert, has_words = self.model.action_expert is not None, self.processor.vocabulary.action is not None
        able = {"continuous": has_expert, "discrete": has_words}
        trained = [mode for mode in able if self.config.action_mode in (mode, "both")]
        return tuple(mode for mode in trained if able[mode] and self.embodiments)

    @property
    def can_think(self) -> bool:
        """Whether it predicts a depth map when asked to."""
        return self.config.enable_depth_reasoning and self.processor.vocabulary.depth is not None

    @property
    def kind(self) -> str:
        """What it is, in words, for instance "vision-language-action (continuous, thinks)"."""
        abilities = ", ".join((*self.modes, *["thinks"] * self.can_think))
        return f"vision-language-action ({abilities})" if self.modes else "vision-language"

    def new_session(self, seed: int | None = None, *, depth_refresh: DepthRefresh = NEVER) -> Session:
        """A new episode of one robot; `seed` makes its noise repeatable, `depth_refresh` bounds the age of depth."""
        return Session(seed, depth_refresh=depth_refresh)

    def encode(self, observation: Observation, embodiment: str | None = None, think: bool = False) -> Encoded:
        """The prompt of an observation, as `act` reads it; ValueError if the observation is not one it can be asked."""
        self._refuse_thinking(think)
        return self.processor.encode(observation, embodiment, think=think)

    @torch.inference_mode()
    def ask(self, question: str, images: Sequence[Image] = (), *, max_tokens: int = 256) -> str:
        """The answer in words to a question about up to five images; DecodingError if it does not end in time."""
        prompt = self.processor.encode_question(question, images).inputs.to(self.device)
        features = self.model.image_features(prompt, self.processor.images.grid)
        speech, words = Speech.begin(self.model, prompt, features, room=max_tokens), self.processor.vocabulary
        speech.go_on_until(words.end_of_turn, max_tokens=max_tokens, what="answer")
        return words.decode(np.array(speech.generated[:-1], np.int64)).strip()

    @overload
    def act(
        self, observation: Observation, embodiment: str | None = None, **options: Unpack[ActOptions]
    ) -> ActionChunk: ...

    @overload
    def act(
        self, observation: Sequence[Observation], embodiment: str | None = None, **options: Unpack[ActOptions]
    ) -> list[ActionChunk]: ...

    def act(
        self,
        observation: Observation | Sequence[Observation],
        embodiment: str | None = None,
        **options: Unpack[ActOptions],
    ) -> ActionChunk | list[ActionChunk]:
        """The next actions for an observation, or for each of a list of observations of one embodiment.

        `embodiment` is a tag of the checkpoint's norm statistics, and may be left out where there is only one;
        `options` are those of `ActOptions`. A list is computed as one batch in continuous mode, else one by one.

        Raises ValueError, before anything is computed, for what the checkpoint cannot do, an observation that is not
        the embodiment's, and options out of range; DecodingError or ActionDecodeError where the checkpoint does not
        finish what it says, or says no action. Sessions are then as they were. There is never a made-up action.
        """
        request, is_list = Request(**options), not isinstance(observation, Observation)
        observations = [observation] if isinstance(observation, Observation) else checked_observations(observation)
        stats = self._check(request, embodiment, len(observations))
        plans, padded_width = request.plans(len(observations)), self.config.max_action_dim
        pull = guidance(plans, request.real_time, stats, padded_width=padded_width, device=self.device)
        call = Call(
            model=self.model,
            processor=self.processor,
            action_tokenizer=self.action_tokenizer,
            depth_codec=self.depth_codec,
            stats=stats,
            request=request,
            modulations=self.modulations,
            guidance=pull,
        )
        # Gradients need tensors that inference mode does not make; the weights are not learned either way.
        with ExitStack() as episodes, torch.inference_mode(pull is None or not pull.needs_gradient), torch.no_grad():
            for session in filter(None, request.sessions(len(observations))):
                episodes.enter_context(session.undone_on_error())
            chunks = call.answer(observations, is_list=is_list)
        return chunks if is_list else chunks[0]

    def _refuse_thinking(self, think: bool) -> None:
        require(self.can_think or not think, f"This checkpoint is {self.kind}: it cannot think. Use think=False.")

    def _check(self, request: Request, embodiment: str | None, count: int) -> TagStats:
        """The embodiment's statistics; ValueError where the checkpoint cannot do what is asked."""
        modes = ", ".join(self.modes) or "none, it can only be asked in words"
        cannot = f"This checkpoint is {self.kind} and cannot act in {request.mode} mode. Its modes: {modes}."
        require(request.mode in self.modes, cannot)
        require(
            request.mode == "continuous" or self.action_tokenizer is not None,
            "Discrete mode needs an action tokenizer, which reads the spoken action. "
            "Give one: load_policy(..., action_tokenizer=<directory or hub id>).",
        )
        self._refuse_thinking(request.think)
        request.sessions(count)
        stats, config = self.processor.tag(embodiment), self.config
        horizon, width = stats.action_horizon, stats.action.width
        require(
            request.mode == "discrete" or (horizon <= config.max_action_horizon and width <= config.max_action_dim),
            f"{stats.tag!r} plans {horizon} steps of {width} dimensions, but the checkpoint has room for "
            f"{config.max_action_horizon} steps of {config.max_action_dim}. Correct its norm_stats.json.",
        )
        require(
            (request.num_action_steps or 1) <= horizon,
            f"num_action_steps must be at most {horizon}, the horizon of {stats.tag!r}, "
            f"got {request.num_action_steps}.",
        )
        return stats


def checked_observations(observations: object) -> list[Observation]:
    """A list of at least one observation; ValueError for anything else."""
    given = observations if isinstance(observations, list | tuple) else []
    are_observations = given and all(isinstance(one, Observation) for one in given)
    require(are_observations, f"act needs an Observation or a list of them, got {type(observations).__name__}.")
    return list(given)
