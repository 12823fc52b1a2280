"""One question to a policy, answered.

    observation -> preprocess -> vision -> prefill -> [depth] -> flow ----> decode -> ActionChunk
                                                             \\-> speech -/

Everything was checked before; whatever fails from here on is the checkpoint's fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from molmoact2.depth.change import changed_cells
from molmoact2.inference.decoding import Speech, room_for, speak_action, speak_whole_action, think
from molmoact2.inference.request import Request
from molmoact2.inference.session import DepthMemory, Session
from molmoact2.inference.stopwatch import Stopwatch
from molmoact2.model import flow
from molmoact2.model.action_expert import ExpertContext, Modulation
from molmoact2.model.molmoact2 import MolmoAct2
from molmoact2.processing import Encoded, Processor, TagStats, collate
from molmoact2.processing.observation import checked_images
from molmoact2.tokens import ActionTokenizer
from molmoact2.tokens.action import read_action_codes
from molmoact2.types import ActionChunk, DepthReasoning, Observation


@dataclass(frozen=True, kw_only=True)
class Call:
    """What is asked, and who is asked."""

    model: MolmoAct2
    processor: Processor
    action_tokenizer: ActionTokenizer | None
    stats: TagStats
    request: Request
    modulations: dict[int, Modulation]
    """Of the policy, by number of flow steps; what is missing is added."""

    def initial_noise(self, count: int, *, is_list: bool) -> Float[Tensor, "b h a"]:
        """The noise of `count` observations; nothing is drawn when the action is spoken."""
        if self.request.mode == "discrete":
            return torch.empty(count, 0, 0)
        config = self.model.config
        shape = (count, self.stats.action_horizon, config.max_action_dim)
        return self.request.initial_noise(shape, scale=config.flow_matching_noise_scale, is_list=is_list)

    def answer(self, observations: Sequence[Observation], *, is_list: bool) -> list[ActionChunk]:
        """A chunk for every observation: all at once where nothing is said, else one after the other."""
        watch = Stopwatch(self.model.device)
        with watch.stage("preprocess"):
            prompts = [self.processor.encode(one, self.stats.tag, think=self.request.think) for one in observations]
        noise = self.initial_noise(len(prompts), is_list=is_list)
        if self.request.mode == "continuous" and not self.request.think:
            return self.answer_batch(prompts, noise, watch)
        sessions = self.request.sessions(len(prompts))
        asked = zip(observations, prompts, sessions, noise.split(1), strict=True)
        return [self.answer_one(*one, watch=watch.copy()) for one in asked]

    def answer_batch(
        self, prompts: Sequence[Encoded], noise: Float[Tensor, "b h a"], watch: Stopwatch
    ) -> list[ActionChunk]:
        """Read all prompts together and integrate their flows together."""
        with watch.stage("preprocess"):
            inputs = collate(prompts).to(self.model.device)
        with watch.stage("vision"):
            features = self.model.image_features(inputs, self.processor.images.grid)
        with watch.stage("prefill"):
            encoding = self.model.read(inputs, features)
        with watch.stage("flow"):
            context = self.model.expert_context(encoding.layers, inputs.token_ids, inputs.valid)
            actions = self.integrate(context, noise)
        with watch.stage("decode"):
            decoded = self.decode(actions)
        return [ActionChunk(actions=actions, timing=dict(watch.seconds)) for actions in decoded]

    def answer_one(
        self,
        observation: Observation,
        prompt: Encoded,
        session: Session | None,
        noise: Float[Tensor, "1 h a"],
        *,
        watch: Stopwatch,
    ) -> ActionChunk:
        """Read one prompt, say the depth map if that is asked for, then flow or speak."""
        with watch.stage("preprocess"):
            inputs = prompt.inputs.to(self.model.device)
        with watch.stage("vision"):
            features = self.model.image_features(inputs, self.processor.images.grid)
        with watch.stage("prefill"):
            speech = Speech.begin(self.model, inputs, features, room=self.room)
        depth, memory = None, None
        if self.request.think:
            with watch.stage("depth"):
                depth, memory = self.think(speech, observation, session)
        if self.request.mode == "continuous":
            with watch.stage("flow"):
                actions = self.integrate(self.model.expert_context(*speech.context()), noise)
        else:
            with watch.stage("speech"):
                actions = self.speak(speech)
        with watch.stage("decode"):
            decoded = self.decode(actions)[0]
        if session is not None and memory is not None:
            session.depth = memory
        return ActionChunk(actions=decoded, depth=depth, timing=dict(watch.seconds))

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

    def think(
        self, speech: Speech, observation: Observation, session: Session | None
    ) -> tuple[DepthReasoning, DepthMemory]:
        """Say the depth map, keeping the codes of cells in which the main image did not change."""
        family, num_codes = self.processor.vocabulary.depth, self.model.config.num_depth_codes
        assert family is not None
        image = checked_images(observation.images, self.stats.camera_keys)[0]
        before = None if session is None else session.depth
        previous, changed = np.zeros(num_codes, np.int64), np.ones(num_codes, bool)
        if before is not None:
            previous, changed = before.codes, changed_cells(before.image, image, side=int(num_codes**0.5))
        codes = think(speech, family, previous=previous, changed=changed, horizon=self.stats.action_horizon)
        return DepthReasoning(codes=codes, changed=changed), DepthMemory(image=image.copy(), codes=codes)

    def integrate(self, context: ExpertContext, noise: Float[Tensor, "b h a"]) -> Float[Tensor, "b h a"]:
        """Carry noise to normalised actions."""
        num_steps = self.request.num_steps or self.model.config.flow_matching_num_steps
        if num_steps not in self.modulations:
            self.modulations[num_steps] = self.model.modulation(flow.time_grid(num_steps, self.model.device))
        noise, width = noise.to(self.model.device), self.stats.action.width
        return self.model.sample_actions(noise, context, self.modulations[num_steps], action_dim=width)

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
