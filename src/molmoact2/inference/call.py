"""One question to a policy, answered.

    observation -> preprocess -> vision -> prefill -> [depth] -> flow ----> decode -> ActionChunk
                                                             \\-> speech -/

Everything was checked before; whatever fails from here on is the checkpoint's fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from molmoact2.depth.codec import DepthCodec
from molmoact2.inference.decoding import Speech, room_for, speak_action, speak_whole_action
from molmoact2.inference.depth_map import DepthMaps
from molmoact2.inference.request import Request
from molmoact2.inference.session import Session
from molmoact2.inference.stopwatch import Stopwatch
from molmoact2.inference.thinking import Thinking
from molmoact2.model import flow
from molmoact2.model.action_expert import ExpertContext, Modulation
from molmoact2.model.attention import LayerKeyValues
from molmoact2.model.guidance import Guidance
from molmoact2.model.inputs import ModelInputs
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing import Encoded, Processor, TagStats, collate
from molmoact2.processing.observation import checked_images
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.action import read_action_codes
from molmoact2.types import ActionChunk, Observation


@dataclass(frozen=True, kw_only=True)
class Call:
    """What is asked, and who is asked."""

    model: MolmoAct2
    processor: Processor
    action_tokenizer: ActionTokenizer | None
    stats: TagStats
    request: Request
    depth_codec: DepthCodec | None
    modulations: dict[int, Modulation]
    """Of the policy, by number of flow steps; what is missing is added."""
    guidance: Guidance | None
    """What pulls the flows towards what the robots will do anyway."""

    def initial_noise(self, count: int, *, is_list: bool) -> Float[Tensor, "b h a"]:
        """The noise of `count` observations; nothing is drawn when the action is spoken."""
        if self.request.mode == "discrete":
            return torch.empty(count, 0, 0)
        config = self.model.config
        shape = (count, self.stats.action_horizon, config.max_action_dim)
        return self.request.initial_noise(shape, scale=config.flow_matching_noise_scale, is_list=is_list)

    def answer(self, observations: Sequence[Observation], *, is_list: bool) -> list[ActionChunk]:
        """A chunk for every observation: all at once where actions flow, one after the other where they are spoken."""
        watch = Stopwatch(self.model.device)
        with watch.stage("preprocess"):
            prompts = [self.processor.encode(one, self.stats.tag, think=self.request.think) for one in observations]
        noise, sessions = self.initial_noise(len(prompts), is_list=is_list), self.request.sessions(len(prompts))
        if self.request.mode == "continuous":
            return self.flow(observations, prompts, sessions, noise, watch)
        asked = zip(observations, prompts, sessions, strict=True)
        return [self.say(*one, watch=watch.copy()) for one in asked]

    def flow(
        self,
        observations: Sequence[Observation],
        prompts: Sequence[Encoded],
        sessions: Sequence[Session | None],
        noise: Float[Tensor, "b h a"],
        watch: Stopwatch,
    ) -> list[ActionChunk]:
        """Read all prompts together, say their depth maps together, and integrate their flows together."""
        with watch.stage("preprocess"):
            inputs = collate(prompts).to(self.model.device)
            thinking = self.thinking(observations, sessions)
        with watch.stage("vision"):
            features = self.model.image_features(inputs, self.processor.images.grid)
        if thinking is None:
            with watch.stage("prefill"):
                layers = self.model.read(inputs, features).layers
            actions, _ = self.act(layers, inputs.token_ids, inputs.valid, noise, watch)
            return [ActionChunk(actions=one, timing=dict(watch.seconds)) for one in actions]
        maps = self.settled(thinking, inputs, features, watch)
        is_ended = maps.are_ended()
        if len(prompts) > 1 and not is_ended:  # some map goes on after its codes: each as far as it likes
            alone = [self.of_row(row) for row in range(len(prompts))]
            apart = zip(alone, observations, prompts, sessions, noise.split(1), strict=True)
            return [call.flow([o], [p], [s], n, watch.copy())[0] for call, o, p, s, n in apart]
        transcript = maps.transcript if is_ended else self.speech(maps).transcript
        actions, gates = self.act(*transcript.context(), noise, watch)
        thoughts = thinking.thoughts(maps, gates)
        thinking.remember(maps)
        answers = zip(actions, thoughts, strict=True)
        return [ActionChunk(actions=one, depth=depth, timing=dict(watch.seconds)) for one, depth in answers]

    def of_row(self, row: int) -> "Call":
        """The call for one observation of the batch."""
        return self if self.guidance is None else replace(self, guidance=self.guidance.row(row))

    def say(
        self, observation: Observation, prompt: Encoded, session: Session | None, *, watch: Stopwatch
    ) -> ActionChunk:
        """Read one prompt, say its depth map if that is asked for, and then the action."""
        with watch.stage("preprocess"):
            inputs = prompt.inputs.to(self.model.device)
            thinking = self.thinking([observation], [session])
        with watch.stage("vision"):
            features = self.model.image_features(inputs, self.processor.images.grid)
        if thinking is None:
            with watch.stage("prefill"):
                speech, maps = Speech.begin(self.model, inputs, features, room=self.room), None
        else:
            maps = self.settled(thinking, inputs, features, watch)
            speech = self.speech(maps)
        with watch.stage("speech"):
            actions = self.speak(speech)
        with watch.stage("decode"):
            decoded = self.decode(actions)[0]
        if thinking is None or maps is None:
            return ActionChunk(actions=decoded, timing=dict(watch.seconds))
        thinking.remember(maps)
        return ActionChunk(actions=decoded, depth=thinking.thoughts(maps, None)[0], timing=dict(watch.seconds))

    def thinking(self, observations: Sequence[Observation], sessions: Sequence[Session | None]) -> Thinking | None:
        """What there is to think about, if that is asked for."""
        family = self.processor.vocabulary.depth
        if not self.request.think or family is None:
            return None
        return Thinking.of(
            [checked_images(one.images, self.stats.camera_keys)[0] for one in observations],
            sessions,
            family=family,
            num_codes=self.model.config.num_depth_codes,
            is_ahead=self.request.think_ahead,
            codec=self.depth_codec,
        )

    def settled(
        self, thinking: Thinking, inputs: ModelInputs, features: Float[Tensor, "i d"], watch: Stopwatch
    ) -> DepthMaps:
        """The depth maps to act on."""
        with watch.stage("prefill"):
            maps = thinking.begin(self.model, inputs, features, room=self.room)
        with watch.stage("depth"):
            thinking.settle(maps)
        return maps

    def speech(self, maps: DepthMaps) -> Speech:
        """One depth map up to its end."""
        return Speech.after(maps, horizon=self.stats.action_horizon)

    def act(
        self,
        layers: list[LayerKeyValues],
        token_ids: Int[Tensor, "b s"],
        valid: Bool[Tensor, "b s"],
        noise: Float[Tensor, "b h a"],
        watch: Stopwatch,
    ) -> tuple[Float32[np.ndarray, "b steps width"], Float[Tensor, "l b"] | None]:
        """Actions in robot units, from everything that was read and said; also the gates on depth."""
        with watch.stage("flow"):
            context = self.model.expert_context(layers, token_ids, valid)
            actions = self.integrate(context, noise)
        with watch.stage("decode"):
            return self.decode(actions), context.gates

    @property
    def room(self) -> int:
        """The most tokens that may follow the prompt."""
        return room_for(
            thinks=self.request.think,
            speaks=self.request.mode == "discrete",
            num_depth_codes=self.model.config.num_depth_codes,
            horizon=self.stats.action_horizon,
            num_levels=self.stats.action_horizon * self.stats.action.width,
        )

    def integrate(self, context: ExpertContext, noise: Float[Tensor, "b h a"]) -> Float[Tensor, "b h a"]:
        """Carry noise to normalised actions."""
        num_steps = self.request.num_steps or self.model.config.flow_matching_num_steps
        if num_steps not in self.modulations:
            # A later call may want gradients, and inference mode makes tensors that never have any.
            with torch.inference_mode(False), torch.no_grad():
                self.modulations[num_steps] = self.model.modulation(flow.time_grid(num_steps, self.model.device))
        noise, width = noise.to(self.model.device), self.stats.action.width
        return self.model.sample_actions(
            noise, context, self.modulations[num_steps], action_dim=width, guidance=self.guidance
        )

    def speak(self, speech: Speech) -> Float[Tensor, "1 h a"]:
        """Say the action and read the normalised actions from it."""
        family, tokenizer = self.processor.vocabulary.action, self.action_tokenizer
        assert family is not None
        assert tokenizer is not None
        horizon, width = self.stats.action_horizon, self.stats.action.width
        end_of_turn = self.processor.vocabulary.end_of_turn
        if self.request.guided:
            lengths = tokenizer.table.lengths[: min(family.count, tokenizer.table.size)]
            codes = speak_whole_action(speech, family, lengths, num_levels=horizon * width, end_of_turn=end_of_turn)
        else:
            codes = read_action_codes(speak_action(speech, end_of_turn=end_of_turn, horizon=horizon), family)
        return torch.from_numpy(tokenizer.decode([codes], horizon=horizon, action_dim=width))

    def decode(self, actions: Float[Tensor, "b h a"]) -> Float32[np.ndarray, "b steps width"]:
        """Normalised actions in robot units."""
        steps = self.request.num_action_steps
        return self.processor.decode_actions(actions.float().cpu().numpy(), self.stats.tag, num_steps=steps)
